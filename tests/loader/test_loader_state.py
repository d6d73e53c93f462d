"""Where a loader stands: counted in what was delivered, the same on any number of ranks."""

import json

import pytest

import robocache as rc
from robocache.errors import ArgumentError
from robocache.testing import wait_until

pytestmark = pytest.mark.timeout(200)
LENGTHS = (9, 3, 12, 1, 7, 30)


def samples_of(batch):
    return list(zip(batch.dataset.tolist(), batch.episode.tolist(), batch.frame.tolist(), strict=True))


def loader_of(make_dataset, **rest):
    arguments = {"batch_size": 8, "window": 2, "seed": 3} | rest
    return rc.Loader(make_dataset(lengths=LENGTHS, names=("state",)), **arguments)


@pytest.mark.parametrize("prefetch", [0, 4])
@pytest.mark.parametrize("taken", [0, 1, 3, 7])
def test_a_state_counts_what_was_delivered(make_dataset, prefetch, taken):
    """Fails when batches that were read ahead count as taken: the reader is 4 ahead of `taken`."""
    with loader_of(make_dataset, prefetch=prefetch) as loader:
        whole = [samples_of(batch) for batch in loader]
    with loader_of(make_dataset, prefetch=prefetch) as loader:
        batches = iter(loader)
        got = [samples_of(next(batches)) for _ in range(taken)]
        if prefetch and taken < 3:
            thread = batches._thread
            wait_until(lambda: thread.statistics().has_read >= min(taken + prefetch, len(whole)))
        state = json.loads(json.dumps(loader.state_dict()))
    assert (got, state["order"]["consumed"]) == (whole[:taken], taken * 8 if taken < len(whole) else 0)
    with loader_of(make_dataset, prefetch=prefetch) as loader:
        loader.load_state_dict(state)
        assert loader.epoch == (taken == len(whole))
        assert [samples_of(batch) for batch in loader][: len(whole) - taken] == whole[taken:] or taken == len(whole)


def test_epochs_follow_and_a_break_gives_the_same_again(make_dataset):
    """Fails when what the reader finished, and the consumer did not, ends the epoch."""
    with loader_of(make_dataset, prefetch=50) as loader:
        first = [samples_of(batch) for batch in loader]
        assert (loader.epoch, len(first)) == (0, len(loader))
        assert sum(map(len, first)) == sum(n - 1 for n in LENGTHS)
        for _ in loader:
            break
        assert loader.epoch == 1
        second = [samples_of(batch) for batch in loader]
        assert (loader.epoch, second == first) == (1, False)
        loader.set_epoch(0)
        assert [samples_of(batch) for batch in loader] == first
        loader.set_epoch(0)
        assert [samples_of(batch) for batch in loader] == first
    with loader_of(make_dataset, drop_last=True) as loader:
        assert len(loader) == len(list(loader)) == sum(n - 1 for n in LENGTHS) // 8


def test_a_resumed_epoch_keeps_its_place_through_set_epoch(make_dataset):
    """Fails when `set_epoch` before the resumed epoch begins it anew, or after it keeps its place."""
    with loader_of(make_dataset) as loader:
        whole = [samples_of(batch) for batch in loader]
        loader.set_epoch(0)
        next(iter(loader))
        state = loader.state_dict()
    with loader_of(make_dataset) as loader:
        loader.load_state_dict(state)
        loader.set_epoch(0)
        assert [samples_of(batch) for batch in loader] == whole[1:]
        loader.set_epoch(0)
        assert [samples_of(batch) for batch in loader] == whole


def test_states_of_other_data_are_refused(make_dataset):
    """Fails when the data's fingerprint or the window is not compared, or a refused state changes the loader."""
    with loader_of(make_dataset) as loader:
        state = loader.state_dict()
        other = rc.Loader(make_dataset(lengths=LENGTHS, names=("state",), seed=9), batch_size=8, window=2, seed=3)
        with other, pytest.raises(ArgumentError, match=r"state is of data \w+ and window=2, this loader of data \w+"):
            other.load_state_dict(state)
        with loader_of(make_dataset, window=3) as wider, pytest.raises(ArgumentError, match="this loader of data"):
            wider.load_state_dict(state)
        with loader_of(make_dataset, seed=4) as seeded, pytest.raises(ArgumentError, match="seed=3"):
            seeded.load_state_dict(state)
        for damaged in ({}, None, "state", [state]):
            with pytest.raises(ArgumentError, match=r"must be what Loader\.state_dict gave"):
                loader.load_state_dict(damaged)


RANK = """
import json, sys
from datetime import timedelta
import numpy as np
import torch.distributed as dist
import robocache as rc
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.testing import MemoryDataset

job = json.loads(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + job["meeting"], rank=job["rank"],
                        world_size=job["world_size"], timeout=timedelta(seconds=60))
feature = Feature("state", "numbers", np.dtype("float32"), (2,))
episodes = [EpisodeArrays(np.arange(n), {"state": np.zeros((n, 2), "float32")}, {"state": np.ones(n, bool)},
                          {"state": np.zeros(n, "int64")}) for n in (9, 3, 12, 1, 7, 30)]
loader = rc.Loader(MemoryDataset({"state": feature}, episodes), batch_size=job["batch_size"], window=2, seed=3,
                   rank=dist.get_rank(), world_size=dist.get_world_size())
steps = []
with loader:
    if job["state"]:
        loader.load_state_dict(job["state"])
    for batch in loader:
        everybodys = [None] * dist.get_world_size()
        dist.all_gather_object(everybodys, list(zip(batch.episode.tolist(), batch.frame.tolist())))
        steps.append(sum(everybodys, []))
        if len(steps) == job["stop_after"]:
            break
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, loader.state_dict())
dist.destroy_process_group()
if job["rank"] == 0:
    print(json.dumps({"steps": steps, "states": states}))
"""


@pytest.fixture
def run(ranks, tmp_path):
    """What rank 0 reports of one run."""

    def run(world_size, *, state=None, stop_after=None):
        job = {"world_size": world_size, "batch_size": 8 // world_size, "state": state, "stop_after": stop_after}
        return ranks(RANK, tmp_path, job)

    return run


def test_ranks_share_one_global_order_and_resume_on_another_number(run):
    """Fails when a rank's part depends on more than rank and step: 1, 2 and 4 processes; 4 stop, 2 go on."""
    alone = run(1)
    assert run(2)["steps"] == alone["steps"]
    begun = run(4, stop_after=3)
    assert begun["states"] == [begun["states"][0]] * 4
    resumed = run(2, state=begun["states"][0], stop_after=99)
    assert begun["steps"] + resumed["steps"] == alone["steps"]
