"""Reads texts out of an HDF5 file, as a process of its own that may hang, crash or run out of memory.

Run by `hdf5_texts`, never imported: the path is its argument, a JSON list of object names its input, a JSON object of
object name to attribute name to text its output.
"""

import json
import resource
import signal
import sys
from pathlib import Path

import h5py

CPU_SECONDS = 0.8
MEMORY_BYTES = 64 * 2**20
NAMES = ("info", "task", "language_instruction", "env_args", "units", "order")


def _texts(owner: h5py.HLObject) -> dict[str, str]:
    found = {}
    for name in NAMES:
        if name in owner.attrs and h5py.check_string_dtype(owner.attrs.get_id(name).dtype) is not None:
            value = owner.attrs[name]
            if isinstance(value, str):
                found[name] = value.encode("utf-8", "replace").decode()
    return found


def _main(path: str) -> None:
    status = Path("/proc/self/statm")
    if status.exists():  # what Python and h5py already take, and no more than a little on top
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    texts = {}
    with h5py.File(path, "r", locking="best-effort") as file:
        for owner in json.load(sys.stdin):
            # The clock of this process's own work: a busy machine does not make a good file look bad.
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            found = _texts(file[owner or "/"])
            if found:
                texts[owner] = found
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
