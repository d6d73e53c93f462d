"""The sizes that an MP4 file declares, held against the file before FFmpeg believes them.

FFmpeg makes a table with an entry for every sample that is declared, and a file of a kilobyte can declare two billion.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.recording import open_binary

DOWNLOAD = "download or write the video again"
MAX_SAMPLES = 20_000_000  # a week of 30 frames a second
MAX_BOXES = 100_000
MAX_DEPTH = 8
_INSIDE = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"mvex", b"moof", b"traf"})
# Bytes of an entry, and where the number of entries stands behind the box's header.
_TABLES = {b"stts": (8, 4), b"ctts": (8, 4), b"stsc": (12, 4), b"stco": (4, 4), b"co64": (8, 4), b"stss": (4, 4)}
_HEAD = struct.Struct(">I4s")


def check_boxes(path: Path) -> None:
    """See that an MP4 file is whole, and that its tables declare no more than it holds.

    Raises:
        RecordingNotFoundError: It cannot be opened.
        DamagedRecordingError: It is no MP4 file, or is cut.
        RecordingLimitError: A table declares more entries, or samples, than the file can hold.
    """
    with open_binary(path) as file:
        size = file.seek(0, 2)
        found: set[bytes] = set()
        try:
            for number, (name, start, end) in enumerate(_boxes(path, file, 0, size)):
                if number > MAX_BOXES:
                    raise RecordingLimitError(path, f"has more than {MAX_BOXES} boxes", offset=start, remedy=DOWNLOAD)
                found.add(name)
                _check_table(path, file, name, start, end, size)
        except OSError as error:
            raise DamagedRecordingError(path, f"cannot be read ({error.strerror or error})", remedy=DOWNLOAD) from error
    missing = {b"ftyp", b"moov"} - found
    if missing:
        problem = f"is no whole MP4 file: it has no {min(missing).decode()}"
        raise DamagedRecordingError(path, problem, offset=size, remedy=DOWNLOAD)


def _boxes(path: Path, file: BinaryIO, at: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte behind the header, and end of every box, those inside others too."""
    while at < end:
        file.seek(at)
        head = file.read(16)
        if len(head) < _HEAD.size or end - at < _HEAD.size:
            raise DamagedRecordingError(path, "ends inside the header of a box", offset=at, remedy=DOWNLOAD)
        length, name = _HEAD.unpack_from(head)
        start = at + _HEAD.size
        if length == 1:
            if len(head) < 16:
                raise DamagedRecordingError(path, "ends inside the header of a box", offset=at, remedy=DOWNLOAD)
            length, start = int.from_bytes(head[8:16], "big"), at + 16
        elif length == 0:
            length = end - at
        following = at + length
        if following < start or following > end:
            kind = RecordingLimitError if length >= 2**48 else DamagedRecordingError
            problem = f"the box {name!r} declares {length} bytes, but {end - at} are left"
            raise kind(path, f"{problem}: it was truncated, or is damaged", offset=at, remedy=DOWNLOAD)
        yield name, start, following
        if name in _INSIDE and depth < MAX_DEPTH:
            yield from _boxes(path, file, start, following, depth + 1)
        at = following


def _check_table(path: Path, file: BinaryIO, name: bytes, start: int, end: int, file_bytes: int) -> None:
    if name == b"stsz":
        size, count = struct.unpack(">II", _at(file, start + 4, 8))
        # Without a size for all, each sample has an entry of four bytes.
        held, possible = (count * size, file_bytes) if size else (count * 4, end - start - 12)
        what = "samples"
    elif name in _TABLES:
        entry_bytes, place = _TABLES[name]
        (count,) = struct.unpack(">I", _at(file, start + place, 4))
        held, possible, what = count * entry_bytes, end - start - place - 4, "entries"
        if name == b"stts" and held <= possible:
            durations = struct.unpack(f">{2 * count}I", _at(file, start + 8, 8 * count))
            count = max(count, sum(durations[::2]))
    else:
        return
    if held > possible or count > MAX_SAMPLES:
        problem = f"the table {name.decode()} declares {count} {what}, more than fit into it or {MAX_SAMPLES}"
        raise RecordingLimitError(path, problem, offset=start, remedy=DOWNLOAD)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size).ljust(size, b"\0")
