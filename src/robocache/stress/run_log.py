"""The log of a long run: JSON lines, only ever appended to; from it alone the verdict is computed.

The first line is the run: what it is, on what, with which thresholds. Each process that works on it adds a line of its
own, then its readings, checks and failures, and a line at its end, unless it was killed. Every line is written in one
piece at once, so that SIGKILL loses none; `fsync` at intervals keeps a power failure from losing more than the last few
seconds. A last line that is torn is cut off when the run is resumed, and that is noted.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Self

from robocache.errors import ArgumentError, OutputError

FORMAT = 1
SYNC_S = 5.0
_COMPARED = (
    *("scenario", "device", "batch_size", "seed", "seconds", "source", "budgets", "code", "machine", "torch", "gpu"),
)
_BEGINNING = b'{"kind":'
_Fields = dict[str, type | tuple[type, ...]]
_NUMBER = int, float
_PLACE: _Fields = {"process": int, "iteration": _NUMBER, "seconds": _NUMBER}
_WANTED: dict[str, _Fields] = {
    "run": {"counters": list},
    "process": _PLACE,
    "reading": _PLACE | {"counts": list},
    "check": _PLACE | {"gpu_leak_mb": (*_NUMBER, NoneType), "cpu_leak_mb": (*_NUMBER, NoneType)},
    "end": _PLACE | {"is_complete": bool, "reading_share": (*_NUMBER, NoneType)},
    "failure": {"text": str},
    "invalid": {"counter": str, "why": str},
}
Record = dict[str, Any]


class RunLog:
    """An open log; one process has it at a time.

    Args:
        path: The file.
        header: What the run is: `scenario`, `seconds`, `counters` and all that a resumed run must share.
        resume: Go on with the run of the file, if it holds one. Without it a file that holds anything is refused.

    Raises:
        ArgumentError: The file holds a run of something else, is no log, or another process writes to it.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        try:
            # Not Path.open: nothing between a record and the kernel may keep it back.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); name another file with --log") from error
        self._synced = time.monotonic()
        try:
            self._begin(header, resume=resume)
        except BaseException:
            os.close(self._file)
            raise

    def _begin(self, header: Mapping[str, Any], *, resume: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArgumentError(f"{self.path}: another process is writing to this log; wait for its end") from error
        if self.path.stat().st_size and not resume:
            raise ArgumentError(f"{self.path}: is there already; add --resume to go on with it, or name a new file")
        self._check_beginning()
        torn = self._cut_torn_line()
        self.is_new = self.path.stat().st_size == 0
        if self.is_new:
            self.append({"kind": "run", "format": FORMAT} | dict(header))
        self.header = read_log(self.path)[0]
        _check_same(self.path, self.header, header)
        if torn:
            self.append({"kind": "torn", "bytes": torn})

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line; NaN becomes null.

        Raises:
            OutputError: There is no room; the line is not there, not even half of it.
        """
        line = (json.dumps(_strict(record), separators=(",", ":"), ensure_ascii=False) + "\n").encode()
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(28, "No space left on device")  # noqa: TRY301  a short write is what the kernel says first
        except OSError as error:
            os.ftruncate(self._file, end)
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); make room, then --resume") from error
        if time.monotonic() - self._synced > SYNC_S:
            self.sync()

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def records(self) -> list[Record]:
        """All lines so far, the run's own first."""
        return read_log(self.path)

    def close(self) -> None:
        """Sync, unlock and close."""
        self.sync()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_beginning(self) -> None:
        """Before anything is cut off: a file of something else keeps what it has."""
        first = os.pread(self._file, len(_BEGINNING), 0).rstrip(b"\0")  # which a crash of the machine may leave
        if not _BEGINNING.startswith(first):
            raise ArgumentError(f"{self.path}: line 1 is no line of a long run's log; use a new file")

    def _cut_torn_line(self) -> int:
        """How many bytes of a last line without an end were cut off: a crash of the machine leaves such."""
        size = self.path.stat().st_size
        start, tail = size, b""
        while start and b"\n" not in tail:
            start = max(start - 65_536, 0)
            tail = os.pread(self._file, size - start, start)
        torn = len(tail) - (tail.rfind(b"\n") + 1)
        if torn:
            os.ftruncate(self._file, size - torn)
        return torn


def read_run(path: Path) -> Record | None:
    """The first line of a log; None where nothing is yet.

    Args:
        path: The file.

    Raises:
        ArgumentError: It is no such log.
    """
    if not path.is_file() or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        line = file.readline()
    try:
        record: Record = json.loads(line)
        is_run = record["kind"] == "run" and "seconds" in record
    except (ValueError, KeyError, TypeError):
        is_run = False
    if not is_run:
        raise ArgumentError(f"{path}: line 1 is no line of a long run's log; use a new file")
    return record


def read_log(path: Path) -> list[Record]:
    """Every line of a log.

    Args:
        path: The file.

    Raises:
        ArgumentError: It is no such log, or a line in it is damaged; the message says which.
    """
    records: list[Record] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                kind = record["kind"]
                _check_whole(record, records[0] if records else record)
            except (ValueError, KeyError, TypeError) as error:
                raise ArgumentError(f"{path}: line {number} is no line of a long run's log; use a new file") from error
            if (number == 1) != (kind == "run"):
                raise ArgumentError(f"{path}: line {number} is of kind {kind!r}, a log begins with its one run")
            records.append(record)
    if not records:
        raise ArgumentError(f"{path}: is empty, so that there is no run in it")
    if records[0].get("format") != FORMAT:
        raise ArgumentError(f"{path}: has format {records[0].get('format')!r}, this version reads {FORMAT}")
    return records


def _check_whole(record: Record, run: Record) -> None:
    """Raise KeyError, TypeError or ValueError for a line that a verdict could not be computed from."""
    for name, kinds in _WANTED.get(record["kind"], {}).items():
        if not isinstance(record[name], kinds):
            raise TypeError(name)
    if record["kind"] == "reading" and len(record["counts"]) != len(run["counters"]):
        raise ValueError("counts")
    for value in (*record.get("counts", ()), *record.get("also", {}).values()):
        if not isinstance(value, (*_NUMBER, NoneType)):
            raise TypeError("counts")


def _check_same(path: Path, logged: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for name in _COMPARED:
        before, now = logged.get(name), own.get(name)
        if before == now:
            continue
        if name == "code":
            before, now = (f"{each.get('commit') or 'no commit'} ({each.get('code')})" for each in (logged, own))
            raise ArgumentError(
                f"{path}: belongs to a run of the code of commit {before}, and this is {now}: one verdict cannot be of "
                "both; check that commit out, or start a new log"
            )
        hint = "go on there, or start a new log" if name == "machine" else "start a new log"
        raise ArgumentError(f"{path}: belongs to a run with {name} {before!r}, and this is {name} {now!r}; {hint}")


def _strict(value: Any) -> Any:  # noqa: ANN401  any JSON value
    if isinstance(value, Mapping):
        return {str(key): _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value == int(value) else value
    return value
