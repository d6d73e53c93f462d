"""The lines of a text log, plain, bzip2 or gzip, read as a stream with a cap on lines and on expansion."""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits, MiB
from robocache.readers.recording import unreadable

BZIP2_MAGIC = b"BZh"
GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = MiB  # a scan of 100 000 beams
COPY = "copy or record it again"
_BLOCK_BYTES = 64 * 1024
# So little is fed at once that a bomb shows soon after its first byte, wherever in the file it lies.
_FED_BYTES = 1024
_SMALL_BYTES = 256 * 1024  # what any file may become, however small it is
_HEAD_BYTES = 64 * 1024
_FIRST = re.compile(rb"(?:PARAM|SYNC|ODOM|FLASER|RLASER|TRUEPOS)[ \t]")


def is_carmen(path: Path, limits: Limits) -> bool:
    """Whether the first lines, decompressed where they are compressed, are those of a CARMEN log.

    Raises:
        RecordingError: It is compressed, and does not decompress.
    """
    head = b""
    for block in _content(path, limits):
        head += block
        if len(head) >= _HEAD_BYTES:
            break
    for line in head.split(b"\n"):
        if line.startswith(b"# CARMEN") or _FIRST.match(line):
            return True
        if line.strip() and not line.startswith(b"#"):
            return False
    return False


def compression_of(head: bytes) -> str | None:
    """What a file that starts like this is compressed with, if we can undo it."""
    if head.startswith(BZIP2_MAGIC):
        return "bzip2"
    return "gzip" if head.startswith(GZIP_MAGIC) else None


def numbered_lines(path: Path, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Every line that is not empty, with its number from 1 on, without its end.

    Raises:
        DamagedRecordingError: The file ends inside a line, or does not decompress.
        RecordingLimitError: A line is longer than 1 MiB, or the file expands beyond the limits.
    """
    number, rest = 0, bytearray()
    for block in _content(path, limits):
        rest += block
        if b"\n" not in block:
            _check_length(path, number + 1, rest)
            continue
        lines = bytes(rest).split(b"\n")
        rest = bytearray(lines.pop())
        for line in lines:
            number += 1
            if line:
                yield number, line
        _check_length(path, number + 1, rest)
    if rest.strip():
        # A number that was cut is a number still: nothing else tells a whole last line from half of one.
        problem = "the file ends inside this line: it was truncated"
        remedy = "copy it again, or end the last line if it is whole"
        raise DamagedRecordingError(path, problem, place="line", offset=number + 1, remedy=remedy)


def _check_length(path: Path, number: int, line: bytearray) -> None:
    if len(line) > MAX_LINE_BYTES:
        problem = f"the line does not end within {MAX_LINE_BYTES} bytes"
        raise RecordingLimitError(path, problem, place="line", offset=number, remedy="is this a CARMEN log?")


def _content(path: Path, limits: Limits) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            compression = compression_of(file.read(4))
            file.seek(0)
            if compression is not None:
                yield from _decompressed(path, file, compression, limits)
                return
            while block := file.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise unreadable(path, error) from error


def _decompressed(path: Path, file: BinaryIO, compression: str, limits: Limits) -> Iterator[bytes]:
    """The content of all streams in the file, one after the other, never more than the limits."""
    fed, made = 0, 0
    pending, stream = b"", None
    while True:
        if stream is None or (not pending and _wants_input(stream)):
            more = b"" if pending else file.read(_FED_BYTES)
            fed, pending = fed + len(more), pending + more
        if stream is None:
            if not pending:
                return
            stream = _new_stream(compression)
        try:
            content = stream.decompress(pending, _BLOCK_BYTES)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            problem = f"does not decompress with {compression} ({error})"
            raise DamagedRecordingError(path, problem, offset=fed, remedy=COPY) from error
        made += len(content)
        if made > max(_SMALL_BYTES, fed * limits.expansion):
            problem = f"its first {fed} bytes become more than {limits.expansion} times as many"
            remedy = "open it with a larger Limits(expansion=...) if you trust it"
            raise RecordingLimitError(path, problem, offset=fed, remedy=remedy)
        is_idle = not content and not pending
        pending = stream.unused_data if stream.eof else getattr(stream, "unconsumed_tail", b"")
        if stream.eof:
            stream = None
        elif is_idle:
            problem = f"ends inside its {compression} stream: it was truncated"
            raise DamagedRecordingError(path, problem, offset=fed, remedy=COPY)
        if content:
            yield content


def _new_stream(compression: str) -> Any:  # noqa: ANN401 -- the two have no type in common
    return bz2.BZ2Decompressor() if compression == "bzip2" else zlib.decompressobj(wbits=31)


def _wants_input(stream: Any) -> bool:  # noqa: ANN401
    return bool(getattr(stream, "needs_input", True))
