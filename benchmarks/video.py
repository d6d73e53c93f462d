"""PyAV beside torchcodec: frames of one MP4 file in order, in runs and at random, one thread each, in turn.

It measures processor time, which other programs lengthen less than the time on the clock.

    python -m benchmarks.video VIDEO [--out benchmarks/results/video_cpu.json]

torchcodec is a peer and no dependency: it is left out, and the result says so, where it cannot be loaded. Frames are
compared before they are timed, and the largest difference is stored.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robocache.readers.limits import Limits
from robocache.readers.video import VideoFiles, VideoFrames

FRAMES, REPETITIONS = 240, 5
RESULT = Path(__file__).parent / "results" / "video_cpu.json"
Read = Callable[[np.ndarray[Any, np.dtype[np.int64]]], np.ndarray[Any, np.dtype[np.uint8]]]


def patterns(count: int) -> dict[str, list[np.ndarray[Any, np.dtype[np.int64]]]]:
    """Which frames each call asks for."""
    starts = np.random.default_rng(0).integers(0, count - 16, 15)
    return {
        "in order, 60 a call": list(np.arange(FRAMES).reshape(-1, 60)),
        "runs of 16 at random": [np.arange(start, start + 16) for start in starts],
        "single frames at random": list(np.random.default_rng(1).integers(0, count, (60, 1))),
    }


def readers(path: Path, files: VideoFiles) -> tuple[dict[str, Read], int, str | None]:
    """The ways to read, the number of frames, and why torchcodec is not among them."""
    count = len(files.known(path)[0].pts)
    index = files.known(path)[0]
    found: dict[str, Read] = {"pyav": VideoFrames(files, path, index.pts * float(index.time_base), 0.001).read}
    try:
        module = importlib.import_module("torchcodec.decoders")
    except (ImportError, RuntimeError, OSError) as error:
        return found, count, str(error).strip().splitlines()[0]
    for mode in ("exact", "approximate"):
        decoder = module.VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode=mode)
        found[f"torchcodec {mode}"] = lambda rows, decoder=decoder: decoder.get_frames_at(rows.tolist()).data.numpy()
    return found, count, None


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    files = VideoFiles(Limits())
    ways, count, absent = readers(options.video, files)
    rows = np.array([0, 1, 7, count - 1])
    ours = ways["pyav"](rows).astype(int)
    differences = {name: int(np.abs(read(rows) - ours).max()) for name, read in ways.items()}
    frames_a_second: dict[str, dict[str, float]] = {}
    for pattern, calls in patterns(count).items():
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPETITIONS):
            for name, read in ways.items():
                start = time.process_time()
                for call in calls:
                    read(call)
                seconds[name].append(time.process_time() - start)
        total = sum(map(len, calls))
        frames_a_second[pattern] = {name: round(total / statistics.median(s), 1) for name, s in seconds.items()}
        print(pattern, frames_a_second[pattern])
    files.close()
    document = {
        "schema": 1,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "system": platform.platform(),
        "versions": {name: installed_version(name) for name in ("av", "torch", "torchcodec")},
        "threads": 1,
        "repetitions": REPETITIONS,
        "load_average": load,
        "load_average_after": os.getloadavg(),
        "video": {"name": options.video.name, "bytes": options.video.stat().st_size, "frames": count},
        "torchcodec_absent": absent,
        "frames_a_processor_second": frames_a_second,
        "largest_difference_from_pyav": differences,
    }
    options.out.write_text(json.dumps(document, indent=1) + "\n")


def installed_version(name: str) -> str | None:
    """The version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
