"""Windows a second from a dataset in GPU memory: `python -m benchmarks.windows --out FILE`; needs a GPU.

Batches of 4096 windows of 16 frames by 26 columns, shuffled anew every epoch, out of `rc.Loader`: their order, their
places and their rows are computed on the device. Beside it PyTorch as an expert would write it: `randperm` on the
device, then one gather by index. Both give every sample of an epoch once, which is checked before they are timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch

import robocache as rc
from robocache.benchmarks import machine, results
from robocache.benchmarks.device_timing import DeviceTimer, Rounds
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.testing import MemoryDataset

BATCH, WINDOW, COLUMNS = 4096, 16, 26
EPISODES, FRAMES = 2000, 1000
REPEATS = 7
HELD_BACK = 100_000_000  # cycles: long enough for the host to issue a run before the GPU begins


def dataset(dtype: str) -> MemoryDataset:
    """Random content."""
    random = np.random.default_rng(0)
    episodes = [
        EpisodeArrays(
            np.arange(FRAMES, dtype=np.int64) * 10**7,
            {"state": random.standard_normal((FRAMES, COLUMNS), np.float32).astype(dtype)},
            {"state": np.ones(FRAMES, np.bool_)},
            {"state": np.zeros(FRAMES, np.int64)},
        )
        for _ in range(EPISODES)
    ]
    feature = Feature("state", "numbers", np.dtype(dtype), (COLUMNS,))
    return MemoryDataset({"state": feature}, episodes, fingerprint="random")


def by_index(packed: torch.Tensor) -> Iterator[torch.Tensor]:
    """PyTorch's way: the permutation of an epoch on the device, then rows by index."""
    per_episode = FRAMES - WINDOW + 1
    steps = torch.arange(WINDOW, device="cuda")
    order = torch.randperm(EPISODES * per_episode, device="cuda")
    for samples in order.split(BATCH):
        starts = samples + (samples // per_episode) * (WINDOW - 1)
        yield packed[starts[:, None] + steps]


def seconds(batches: Callable[[], Iterator[object]]) -> tuple[float, float]:
    """Of an epoch, a batch: as it goes, and on the device alone."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    count = sum(1 for _ in batches())
    torch.cuda.synchronize()
    whole = (time.perf_counter() - begin) / count
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    iterator = batches()
    next(iterator)
    torch.cuda._sleep(HELD_BACK)  # noqa: SLF001
    start.record()
    for number, _ in enumerate(iterator):
        if number == 63:
            break
    end.record()
    end.synchronize()
    return whole, start.elapsed_time(end) / 64 / 1e3


def measure(dtype: str, copy_bytes_per_s: float) -> dict[str, object]:
    """One dtype."""
    data = dataset(dtype)
    with rc.Loader(data, batch_size=BATCH, window=WINDOW, device="cuda", memory="16GiB", drop_last=True) as loader:
        seen = torch.zeros(len(data.lengths) * FRAMES, dtype=torch.int32, device="cuda")
        for batch in loader:
            seen.index_add_(0, batch.episode * FRAMES + batch.frame, torch.ones_like(seen[:BATCH]))
            first = batch
        assert seen.max() == 1
        assert int(seen.sum()) == len(loader) * BATCH
        with data.open_episode(int(first.episode[5])) as arrays:
            frame = int(first.frame[5])
            assert np.array_equal(first["state"][5].cpu().numpy(), arrays.data["state"][frame : frame + WINDOW])
        packed = torch.from_numpy(np.concatenate([one.data["state"] for one in data._episodes])).cuda()  # noqa: SLF001
        runs: dict[str, Callable[[], Iterator[object]]] = {
            "robocache": lambda: iter(loader),
            "pytorch": lambda: by_index(packed),
        }
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(REPEATS):
            for name, run in runs.items():
                samples[name].append(seconds(run))
        statistics = loader.statistics()
    item = np.dtype(dtype).itemsize
    record_bytes = statistics.packed_bytes // (EPISODES * FRAMES)
    # Read once and written once: the columns alone, and with them times, ages and validity, which a batch has too.
    floor = 2 * BATCH * WINDOW * COLUMNS * item / copy_bytes_per_s
    whole_floor = 2 * BATCH * WINDOW * record_bytes / copy_bytes_per_s
    found: dict[str, object] = {
        "dtype": dtype,
        "tier": statistics.tier,
        "packed_bytes": statistics.packed_bytes,
        "record_bytes": record_bytes,
        "columns_floor_us": floor * 1e6,
        "records_floor_us": whole_floor * 1e6,
    }
    for name, times in samples.items():
        whole, device = (median(column) for column in zip(*times, strict=True))
        found[name] = {
            "batch_us": whole * 1e6,
            "device_us": device * 1e6,
            "windows_per_s": BATCH / whole,
            "device_over_floor": device / (whole_floor if name == "robocache" else floor),
        }
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=results.FOLDER / "windows_h200.json")
    arguments = parser.parse_args()
    copy = DeviceTimer(Rounds(1, 1, 1, 1)).copy_bytes_per_s
    document = {
        "schema": results.SCHEMA,
        "what": f"batches of {BATCH} windows of {WINDOW} x {COLUMNS} of {EPISODES} episodes of {FRAMES} frames",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        **machine.commit(),
        "copy_bytes_per_s": copy,
        "runs": [measure(dtype, copy) for dtype in ("float32", "float16")],
    }
    results.save(document, arguments.out)
    for run in document["runs"]:  # type: ignore[attr-defined]
        print(run)


if __name__ == "__main__":
    main()
