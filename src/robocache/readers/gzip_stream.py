"""Reading a gzip file at any place, as far as its content is not much longer than the file.

Deflate can only be read from the start. What zlib knows at a place can be copied, though (40 kB): such copies, a few
megabytes apart, are kept of the files read last, and reading starts at the one before.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits, MiB

GZIP_MAGIC = b"\x1f\x8b"
_REMEDY = "copy or download it again"
MAX_FILES = 16
MAX_PLACES = 64  # of a file
_FED_BYTES = 64 * 1024
_MADE_BYTES = MiB  # at a time
_SMALL_BYTES = 16 * MiB  # a file may expand to so much, whatever its size
_GZIP_BITS = 31


@dataclass(frozen=True)
class _Place:
    """What zlib knows where `made` bytes of the content were made of `fed` bytes of the file."""

    made: int
    fed: int
    stream: Any
    pending: bytes


_START = _Place(0, 0, None, b"")


class GzipStreams:
    """Opens the gzip files of one recording, and keeps places in those used last.

    Args:
        limits: How much longer the content may be than the file.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places: OrderedDict[Path, dict[int, _Place]] = OrderedDict()

    def opened(self, file: BinaryIO, path: Path, *, is_kept: bool = True) -> GzipStream:
        """The content of a file.

        Args:
            file: Open for reading; it is closed with the stream.
            path: Its path.
            is_kept: Whether places are kept for the next stream of it.
        """
        places: dict[int, _Place] = {}
        if is_kept:
            places = self._places.setdefault(path, places)
            self._places.move_to_end(path)
            while len(self._places) > MAX_FILES:
                self._places.popitem(last=False)
        return GzipStream(file, path, self._limits, places if is_kept else None)


class GzipStream:
    """The content of one gzip file; use it as a context manager.

    Args:
        file: Open for reading.
        path: Its path, for errors.
        limits: How much longer the content may be than the file.
        places: Those known, by their number; others are added. None: none are kept.
    """

    def __init__(self, file: BinaryIO, path: Path, limits: Limits, places: dict[int, _Place] | None) -> None:
        self._file, self._path, self._limits, self._places = file, path, limits, places
        self._apart = max(4 * MiB, file.seek(0, 2) // (MAX_PLACES // 4))
        self._at = 0
        self._held = memoryview(b"")  # content from `_at` on
        self._begin(_START)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def seek(self, offset: int) -> int:
        """Go to a place of the content, or to its end where it is shorter; where that is, is returned."""
        known = [place for place in list((self._places or {}).values()) if place.made <= offset]
        nearest = max(known, key=lambda place: place.made, default=_START)
        if offset < self._at or nearest.made > self._at + len(self._held):
            self._begin(nearest)
        while self._at < offset:
            if not len(self._held) and not self._more():
                break
            self._take(offset - self._at)
        return self._at

    def read(self, size: int) -> bytes:
        """The next bytes; fewer at the end."""
        parts = []
        while size > 0 and (len(self._held) or self._more()):
            parts.append(bytes(self._take(size)))
            size -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _begin(self, place: _Place) -> None:
        self._at = self._made = place.made
        self._fed, self._pending = place.fed, place.pending
        self._stream = None if place.stream is None else place.stream.copy()
        self._held = memoryview(b"")
        self._file.seek(place.fed)

    def _take(self, size: int) -> memoryview:
        taken, self._held = self._held[:size], self._held[size:]
        self._at += len(taken)
        return taken

    def _more(self) -> bool:
        """Hold the next part of the content; False at its end."""
        while True:
            if self._stream is not None and self._stream.eof:
                self._pending, self._stream = self._stream.unused_data, None
            if not self._pending:
                self._pending = self._file.read(_FED_BYTES)
                self._fed += len(self._pending)
            is_all_fed = not self._pending
            if self._stream is None:
                if is_all_fed:
                    return False
                self._stream = zlib.decompressobj(wbits=_GZIP_BITS)
            content = self._decompressed(self._stream)
            if content:
                self._held = memoryview(content)
                self._keep()
                return True
            if is_all_fed and not self._stream.eof:
                problem = "ends inside its gzip stream: it was truncated"
                raise DamagedRecordingError(self._path, problem, offset=self._fed, remedy=_REMEDY)

    def _decompressed(self, stream: Any) -> bytes:  # noqa: ANN401 -- zlib's type has no public name
        try:
            content: bytes = stream.decompress(self._pending, _MADE_BYTES)
        except zlib.error as error:
            problem = f"does not decompress with gzip ({error})"
            raise DamagedRecordingError(self._path, problem, offset=self._fed, remedy=_REMEDY) from error
        self._pending = stream.unconsumed_tail
        self._made += len(content)
        if self._made > max(_SMALL_BYTES, self._fed * self._limits.expansion):
            problem = f"its first {self._fed} bytes become more than {self._limits.expansion} times as many"
            remedy = "open it with a larger Limits(expansion=...) if you trust it"
            raise RecordingLimitError(self._path, problem, offset=self._fed, remedy=remedy)
        return content

    def _keep(self) -> None:
        number = self._made // self._apart
        if self._places is None or not number or number in self._places or len(self._places) >= MAX_PLACES:
            return
        if self._stream is not None and not self._stream.eof:
            self._places[number] = _Place(self._made, self._fed, self._stream.copy(), self._pending)
