"""The budget is a limit of the system's: batches from a dataset several times larger, under RLIMIT_DATA."""

import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(200)

MEMORY, DATASET_BYTES = 16 * 2**20, 96 * 2**20
# A thread's stack, three batches of 2 MB that the consumer or a tensor on its way out may hold, and what the
# allocator rounds up.
OVERHEAD = 8 * 2**20 + 3 * 2 * 2**20 + 6 * 2**20

CHILD = """
import resource, sys
import numpy as np
import torch
import robocache as rc
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.loader import tiers
from robocache.loader.budget import ByteBudget
from robocache.testing import MemoryDataset, wait_until

torch.set_num_threads(1)
folder, memory, overhead, is_accounted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "accounted"
feature = Feature("image", "image", np.dtype("uint8"), (3, 64, 64))
episodes = []
for number in range(8):
    images = np.load(f"{folder}/{number}.npy", mmap_mode="r")
    frames = len(images)
    episodes.append(EpisodeArrays(np.arange(frames), {"image": images}, {"image": np.ones(frames, bool)},
                                  {"image": np.zeros(frames, "i8")}, {"image": np.arange(frames)}))
dataset = MemoryDataset({"image": feature}, episodes, fingerprint="images")
# What is loaded and started on first use, on some machines 10 MB of it, is no part of a batch.
with rc.Loader(dataset, batch_size=2, memory="1MiB", prefetch=1) as first:
    for batch in first:
        int(batch["image"][..., 0, 0].sum())
        break
loader = rc.Loader(dataset, batch_size=160, memory=memory, prefetch=100)
assert loader.statistics().tier == "disk"
if not is_accounted:
    loader._budget = ByteBudget(2**50)
held = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (held + memory + overhead, held + memory + overhead))
seen, total = 0, 0
with loader:
    for batch in loader:
        if seen == 0 and is_accounted:  # the reader makes as many as there is room for
            wait_until(lambda: loader.statistics().reader_waits, deadline_s=60)
        elif seen == 0:
            thread = loader._running()._thread
            wait_until(lambda: not thread.statistics().is_reading, deadline_s=60)
        total += int(batch["image"][..., 0, 0].sum())
        seen += len(batch.frame)
    statistics = loader.statistics()
assert statistics.peak_bytes <= memory, statistics
assert statistics.peak_bytes > memory * 3 // 4, statistics
print(seen, total)
"""


def run(folder, how):
    command = [sys.executable, "-c", CHILD, str(folder), str(MEMORY), str(OVERHEAD), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")
def test_a_loader_lives_within_its_budget_and_dies_without_it(tmp_path):
    """Fails when a buffer is allocated before it is claimed, or given back while it is held. The control: the same
    with a budget without end meets the limit, which so is a real one."""
    random = np.random.default_rng(0)
    frames = DATASET_BYTES // (3 * 64 * 64) // 8
    expected = 0
    for number in range(8):
        images = random.integers(0, 256, (frames, 3, 64, 64), np.uint8)
        expected += int(images[..., 0, 0].sum())
        np.save(tmp_path / f"{number}.npy", images)
    done = run(tmp_path, "accounted")
    assert (done.returncode, done.stdout.split()) == (0, [str(8 * frames), str(expected)]), done.stderr
    control = run(tmp_path, "control")
    assert control.returncode != 0
    assert "MemoryError" in control.stderr or "can't allocate memory" in control.stderr
