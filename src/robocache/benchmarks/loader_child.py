"""One measurement of one side, in a process of its own: it imports RoboCache or LeRobot, never both.

python loader_child.py REQUEST.json      prints {"seconds": ..., "batch_seconds": [...], "peak_bytes": ..., ...}

The peer's Python runs this file too: it needs PyTorch, and `lerobot` or `robocache`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

CHUNK = 50
LOADER_MEMORY = "64MiB"


def _theirs(request: dict[str, Any]) -> Any:  # noqa: ANN401
    try:
        from torchvision.transforms import v2
    except RuntimeError:  # its compiled part is a CUDA build: two schemas let the Python part load
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        from torchvision.transforms import v2
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    resize = v2.Resize(request["size"], antialias=True)
    return lambda deltas: LeRobotDataset(
        "local/set", root=request["root"], delta_timestamps=deltas, tolerance_s=1e-3, image_transforms=resize
    )


def _ours(request: dict[str, Any]) -> Any:  # noqa: ANN401
    from robocache.integrations.lerobot import LeRobotDataset

    cached = {"cache": request["cache"], "size": tuple(request["size"])} if request["cache"] else {}
    return lambda deltas: LeRobotDataset(
        "local/set",
        root=request["root"],
        delta_timestamps=deltas,
        tolerance_s=1e-3,
        return_uint8=request["uint8"],
        **cached,
    )


def _dataset(request: dict[str, Any]) -> Callable[[ExitStack], Any]:
    """Opens either side's dataset in PyTorch's DataLoader."""
    make: Callable[[dict[str, list[float]]], Any] = (_theirs if request["side"] == "lerobot" else _ours)(request)
    deltas = {"action": [step / request["fps"] for step in range(CHUNK)]}
    return lambda _: DataLoader(make(deltas), batch_size=request["batch_size"], shuffle=True)


def _loader(request: dict[str, Any]) -> Callable[[ExitStack], Any]:
    """Opens RoboCache's own loader over aligned episodes, in less memory than they take."""
    import robocache as rc
    from robocache.cache.opening import open_dataset

    cameras = {name: rc.From(name, then=rc.Resize(*request["size"])) for name in request["cameras"]}
    numbers = {"observation.state": rc.From("observation.state"), "action": rc.From("action", horizon=CHUNK)}
    spec = rc.Align(rc.Rate(request["fps"]), {**numbers, **cameras})

    def made(opened: ExitStack) -> Any:  # noqa: ANN401
        dataset = open_dataset(request["root"], spec, cache=request["cache"])
        settings = {"batch_size": request["batch_size"], "memory": LOADER_MEMORY, "seed": request["seed"]}
        return opened.enter_context(rc.Loader(dataset, device="cpu", **settings))

    return made


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """Epochs over a dataset in PyTorch's DataLoader, or in RoboCache's.

    Args:
        request: side, loader ("torch" or "robocache"), root, cache, size, uint8, batch_size, epochs, warm_epochs (run
            before, not timed), batches (at most so many an epoch), cameras, fps, seed.

    Returns:
        seconds (opening the dataset and all epochs), batch_seconds, samples, frame_bytes (of a batch), peak_bytes,
        copy_seconds (for the frame bytes of a batch).
    """
    torch.set_num_threads(1)
    torch.manual_seed(request["seed"])
    with ExitStack() as opened:
        return _measured(request, opened)


def _measured(request: dict[str, Any], opened: ExitStack) -> dict[str, Any]:
    make = {"torch": _dataset, "robocache": _loader}[request["loader"]](request)
    start = time.perf_counter()
    loader = make(opened)
    batch_seconds: list[float] = []
    samples = frame_bytes = 0
    for epoch in range(request["warm_epochs"] + request["epochs"]):
        if epoch == request["warm_epochs"] > 0:
            start, samples = time.perf_counter(), 0
            batch_seconds.clear()
        before = time.perf_counter()
        for number, batch in enumerate(loader):
            now = time.perf_counter()
            batch_seconds.append(now - before)
            samples += len(batch["action"])
            frame_bytes = max(frame_bytes, sum(batch[key].nbytes for key in request["cameras"]))
            if number + 1 == request["batches"]:
                break
            before = time.perf_counter()
    seconds = time.perf_counter() - start
    peak_bytes = _peak_bytes()
    return {
        "seconds": seconds,
        "batch_seconds": batch_seconds,
        "samples": samples,
        "frame_bytes": frame_bytes,
        "peak_bytes": peak_bytes,
        "copy_seconds": _copy_seconds(frame_bytes),
    }


def _peak_bytes() -> int:
    """The most resident memory that this process had: unlike getrusage's, it is not that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _copy_seconds(frame_bytes: int) -> float:
    """How long memory takes to copy so many bytes out of a source too large for the processor's caches."""
    if not frame_bytes:
        return 0.0
    pieces = max(2, 256 * 2**20 // frame_bytes)
    source = torch.ones(pieces, frame_bytes, dtype=torch.uint8)
    target = torch.ones(frame_bytes, dtype=torch.uint8)
    taken = []
    for piece in [*source, *source]:
        start = time.perf_counter()
        target.copy_(piece)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def print_measured(path: str) -> None:
    """Measure and print the result as one line of JSON.

    Args:
        path: The request.
    """
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(measured(request)) + "\n")


if __name__ == "__main__":
    print_measured(sys.argv[1])
