"""An MCAP log becomes a LeRobot dataset at 50 Hz: `robocache inspect` and `align`, beside a plain loop.

    python -m benchmarks.end_to_end RECORDING.mcap [--rounds N] [--store RESULT.json]

The plain loop is what one writes without RoboCache: mcap-ros2-support's decoder a message, numbers appended to lists,
rates and gaps by numpy, `numpy.interp` a column, SciPy's Slerp for orientations, one Parquet file by pyarrow and an
info.json. "ours" does the same steps, reads once as well, and writes validity, ages and statistics besides. "commands"
are the two commands, each of which reads the file, and which print tables and draw a report. The results are compared
first; then the three take turns in one process, everything loaded, with one thread of PyTorch and of Arrow each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from scipy.spatial.transform import Rotation, Slerp

from robocache.align import Rate
from robocache.align.lerobot import feature_name
from robocache.cli.conversion import convert
from robocache.cli.conversion_settings import Settings
from robocache.cli.main import app
from robocache.readers import open_recording

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 50
XYZ, XYZW = ("x", "y", "z"), ("x", "y", "z", "w")
FIELDS = {
    "sensor_msgs/msg/Imu": {
        "orientation": (("orientation",), XYZW),
        "angular_velocity": (("angular_velocity",), XYZ),
        "linear_acceleration": (("linear_acceleration",), XYZ),
    },
    "nav_msgs/msg/Odometry": {
        "position": (("pose", "pose", "position"), XYZ),
        "orientation": (("pose", "pose", "orientation"), XYZW),
        "linear_velocity": (("twist", "twist", "linear"), XYZ),
        "angular_velocity": (("twist", "twist", "angular"), XYZ),
    },
    "sensor_msgs/msg/NavSatFix": {"fix": ((), ("latitude", "longitude", "altitude"))},
}

Streams = dict[str, tuple[list[int], list[list[float]]]]


def ours(recording: Path, out: Path) -> None:
    """Rates, gaps and clocks of every stream, alignment, and a LeRobot dataset, in one pass."""
    out.mkdir()
    with open_recording(recording) as opened:
        convert(opened, Settings(Rate(RATE_HZ)), out, lambda _: None)


def commands(recording: Path, out: Path) -> None:
    """The two commands as a user types them."""
    _command("inspect", recording)
    _command("align", recording, "--rate", RATE_HZ, "--out", out)


def _command(*arguments: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app([str(argument) for argument in arguments], standalone_mode=False)


def peer(recording: Path, out: Path) -> None:
    """The plain loop."""
    streams = _decoded(recording)
    for stamps, _ in streams.values():
        periods = np.diff(np.asarray(stamps))
        median = np.median(periods)
        print(len(stamps), 1e9 / periods.mean(), periods.std(), (periods > 3 * median).sum(), file=io.StringIO())
    start = max(stamps[0] for stamps, _ in streams.values())
    end = min(stamps[-1] for stamps, _ in streams.values())
    targets = np.arange(start, end + 1, 10**9 // RATE_HZ)
    seconds = (targets - start) / 1e9
    columns: dict[str, Any] = {}
    for name, (stamps, rows) in streams.items():
        times, values = (np.asarray(stamps) - start) / 1e9, np.asarray(rows)
        if values.shape[1] == 4:
            aligned = Slerp(times, Rotation.from_quat(values))(seconds).as_quat()
        else:
            aligned = np.stack([np.interp(seconds, times, column) for column in values.T], axis=1)
        flat = pa.array(np.ascontiguousarray(aligned).reshape(-1))
        columns[feature_name(name)] = pa.FixedSizeListArray.from_arrays(flat, aligned.shape[1])
    numbers = np.arange(len(targets))
    columns |= {"timestamp": pa.array(seconds.astype(np.float32)), "frame_index": numbers, "index": numbers}
    columns |= {"episode_index": np.zeros_like(numbers), "task_index": np.zeros_like(numbers)}
    (out / "data").mkdir(parents=True)
    pq.write_table(pa.table(columns), out / "data" / "file-000.parquet")
    info = {"codebase_version": "v3.0", "fps": RATE_HZ, "total_episodes": 1, "total_frames": len(targets)}
    (out / "info.json").write_text(json.dumps(info), encoding="utf-8")


def _decoded(recording: Path) -> Streams:
    streams: Streams = {}
    with recording.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for schema, channel, _, message in reader.iter_decoded_messages():
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            for name, (path, fields) in FIELDS[schema.name].items():
                part = message
                for step in path:
                    part = getattr(part, step)
                stamps, rows = streams.setdefault(f"{channel.topic}.{name}", ([], []))
                stamps.append(stamp)
                rows.append([getattr(part, field) for field in fields])
    return streams


def difference(left: Path, right: Path) -> float:
    """The largest between the numbers of ours and the plain loop's; orientations up to their sign."""
    with open_recording(left) as written:
        streams = written.read_episode(0).streams
    table = pq.read_table(right / "data" / "file-000.parquet")
    names = [name for name in table.column_names if name.startswith("observation.")]
    largest = 0.0
    for name in names:
        got, want = streams[name].values, np.stack(table[name].to_numpy())
        if got.shape != want.shape:
            return float("inf")
        if want.shape[1] == 4:
            want = want * np.sign((got * want).sum(axis=1, keepdims=True))
        largest = max(largest, float(np.abs(got - want).max()))
    return largest if names else float("inf")


RUNS = (ours, commands, peer)


def measured(recording: Path, rounds: int, scratch: Path) -> dict[str, list[float]]:
    """Seconds of each, in turn."""
    seconds: dict[str, list[float]] = {run.__name__: [] for run in RUNS}
    for number in range(rounds):
        for run in RUNS:
            start = time.perf_counter()
            run(recording, scratch / f"{run.__name__}-{number}")
            seconds[run.__name__].append(time.perf_counter() - start)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: the results differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--store", type=Path, help="write the figures as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for run in RUNS:
            run(options.recording, scratch / run.__name__)
        apart = max(difference(scratch / run.__name__, scratch / "peer") for run in (ours, commands))
        if not apart <= 1e-6:
            print(f"error: the results differ by {apart}", file=sys.stderr)
            return 1
        seconds = measured(options.recording, options.rounds, scratch)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "recording": options.recording.name,
        "rate_hz": RATE_HZ,
        "rounds": options.rounds,
        "largest_difference": apart,
        "seconds": seconds,
        "median_seconds": medians,
        "ratio_of_medians": {run.__name__: medians["peer"] / medians[run.__name__] for run in (ours, commands)},
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
    }
    print(json.dumps(result, indent=1))
    if options.store is not None:
        options.store.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
