"""How many messages of an MCAP file a second become numpy streams, beside mcap-ros2-support's own decoder.

    python -m benchmarks.mcap RECORDING.mcap [--rounds N] [--store RESULT.json]

One process, one thread, the two in turn; medians, of the processor's time too, for machines that others use
meanwhile. Both read the file anew each round. The peer decodes each message into an object; what a user would still
have to do, taking numbers out of the objects, is not counted against it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from robocache.readers import open_recording


def ours(path: Path) -> int:
    """Messages read: the rows of one stream a topic."""
    with open_recording(path) as recording:
        streams = recording.read_episode(0).streams
    rows = {name.rpartition(".")[0]: len(stream.times_ns) for name, stream in streams.items()}
    return sum(rows.values())


def peer(path: Path) -> int:
    """Messages decoded into objects."""
    with path.open("rb") as file:
        return sum(1 for _ in make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages())


def main(arguments: list[str] | None = None) -> int:
    """0: measured; 1: the two read different numbers of messages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcap", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--store", type=Path, help="write the figures as JSON")
    options = parser.parse_args(arguments)
    counts = {run.__name__: run(options.recording) for run in (ours, peer)}
    if len(set(counts.values())) != 1:
        print(f"error: {counts}", file=sys.stderr)
        return 1
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(options.rounds):
        for run in (ours, peer):
            start, cpu_start = time.perf_counter(), time.process_time()
            run(options.recording)
            seconds[run.__name__].append(time.perf_counter() - start)
            cpu_seconds[run.__name__].append(time.process_time() - cpu_start)
    cpu_medians = {name: statistics.median(times) for name, times in cpu_seconds.items()}
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "recording": options.recording.name,
        "messages": counts["ours"],
        "rounds": options.rounds,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "load_average": os.getloadavg()[0],
        "messages_per_s": {name: counts["ours"] / median for name, median in medians.items()},
        "messages_per_cpu_s": {name: counts["ours"] / median for name, median in cpu_medians.items()},
        "ratio_of_cpu_medians": cpu_medians["peer"] / cpu_medians["ours"],
        "ratio_of_medians": medians["peer"] / medians["ours"],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
    }
    print(json.dumps({key: value for key, value in result.items() if not key.endswith("seconds")}, indent=1))
    if options.store is not None:
        options.store.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
