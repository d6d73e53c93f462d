"""The sample order in real processes under torch.distributed: 1, 2 and 4 ranks, and from 4 to 2 in mid-epoch."""

import numpy as np
import pytest

from robocache.loader import SampleOrder

pytestmark = pytest.mark.timeout(200)

LENGTHS, WEIGHTS, SEED, GLOBAL_BATCH = [70, 33], [1, 2], 5, 8

# One rank: what every rank got is gathered at each step, and rank 0 writes it down. Batches may differ in size.
RANK = """
import json, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from robocache.loader import SampleOrder

job = json.loads(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + job["meeting"], rank=job["rank"],
                        world_size=job["world_size"], timeout=timedelta(seconds=60))
order = SampleOrder(job["lengths"], weights=job["weights"], seed=job["seed"], batch_size=job["batch_size"],
                    rank=dist.get_rank(), world_size=dist.get_world_size())
if job["state"]:
    order.load_state_dict(job["state"])
steps, length = [], len(order)
for batch in order:
    own = torch.full((job["batch_size"],), -1, dtype=torch.int64)
    own[: len(batch)] = torch.from_numpy(batch)
    everybodys = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everybodys, own)
    steps.append(torch.cat(everybodys).tolist())
    if len(steps) == job["stop_after"]:
        break
states = [None] * dist.get_world_size()
dist.all_gather_object(states, order.state_dict())
dist.destroy_process_group()
if job["rank"] == 0:
    print(json.dumps({"steps": steps, "states": states, "length": length}))
"""


@pytest.fixture
def run(ranks, tmp_path):
    """What rank 0 reports of one run."""

    def run(world_size, *, batch_size, state=None, stop_after=None):
        job = {"lengths": LENGTHS, "weights": WEIGHTS, "seed": SEED, "batch_size": batch_size, "state": state}
        return ranks(RANK, tmp_path, job | {"world_size": world_size, "stop_after": stop_after})

    return run


def samples(report):
    return [sample for step in report["steps"] for sample in step if sample >= 0]


def whole_epoch():
    return SampleOrder(LENGTHS, weights=WEIGHTS, seed=SEED, batch_size=1).samples_at(np.arange(sum(LENGTHS))).tolist()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_any_number_of_ranks_gives_the_same_steps(world_size, run):
    """Fails when a rank's place enters the order, or ranks differ in their number of batches and wait for ever."""
    report = run(world_size, batch_size=GLOBAL_BATCH // world_size)
    assert samples(report) == whole_epoch()
    assert len(report["steps"]) == report["length"] == -(-sum(LENGTHS) // GLOBAL_BATCH)
    assert all(state == report["states"][0] for state in report["states"])
    assert report["states"][0]["epoch"] == 1


@pytest.mark.parametrize("batch_size", [4, 5])  # the same steps as before, and larger ones
def test_four_ranks_stop_and_two_go_on(batch_size, run):
    """Fails when the state counts what one rank took: a sample would be lost or come twice."""
    before = run(4, batch_size=2, stop_after=5)
    assert all(state == before["states"][0] for state in before["states"])
    after = run(2, batch_size=batch_size, state=before["states"][3])
    assert samples(before) + samples(after) == whole_epoch()
