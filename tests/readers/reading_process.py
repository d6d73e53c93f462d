"""Run as a program: reads the recordings that standard input lists, and says of each what came of it and what it took.

Memory is the peak of what is resident, which counts what C libraries take; `tracemalloc` does not see that.
"""

import importlib
import json
import resource
import sys
import traceback
from pathlib import Path

MODULES = ("h5py", "av", "PIL.Image", "pyarrow.parquet", "zstandard", "lz4.frame", "numcodecs.blosc", "mcap.reader")
CAP_BYTES = 6 * 2**30  # what is worse than all limits still leaves the machine alone


def megabytes(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def read(path, options):
    from robocache.readers import open_recording

    if options.get("drop_in"):
        from robocache.integrations.lerobot import LeRobotDataset

        dataset = LeRobotDataset("local/set", path)
        dataset[len(dataset) - 1]
        return
    with open_recording(path, **options) as opened:
        for index in range(len(opened.episode_names)):
            for stream in opened.read_episode(index).streams.values():
                if stream.frames is not None:
                    stream.frames.read(stream.values[-1:, 0])


def outcome(path, options):
    from robocache.errors import RecordingError

    files = len(list(Path("/proc/self/fd").iterdir()))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held, begun = megabytes("VmRSS"), seconds()
    kind, text = "", ""
    try:
        read(path, options)
    except RecordingError as error:
        kind, text = type(error).__name__, str(error)
    except Exception:  # noqa: BLE001 -- whoever asked is told
        kind, text = "other", traceback.format_exc()
    took, peak = seconds() - begun, megabytes("VmHWM") - held
    left = len(list(Path("/proc/self/fd").iterdir())) - files
    return {"kind": kind, "text": text, "seconds": took, "megabytes": peak, "files_left": left}


def main():
    resource.setrlimit(resource.RLIMIT_AS, (CAP_BYTES, CAP_BYTES))
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        path, options, warm_up = json.loads(line)
        for other, other_options in warm_up:
            read(other, other_options)
        print(json.dumps(outcome(path, options)), flush=True)


if __name__ == "__main__":
    main()
