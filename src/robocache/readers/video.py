"""Frames of MP4 files, decoded by FFmpeg through PyAV when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robocache.errors import ClosedError, DamagedRecordingError
from robocache.readers.decoders import OPEN_DECODERS
from robocache.readers.images import Uint8, checked_size, resized, room_for
from robocache.readers.mp4_boxes import DOWNLOAD
from robocache.readers.stills import checked_numbers
from robocache.readers.video_decoder import VideoDecoder, VideoIndex
from robocache.records import Int64

if TYPE_CHECKING:
    from robocache.readers.limits import Limits


class VideoFiles:
    """The video files of one recording: their decoders, which wait among those of the process, and their indexes.

    Args:
        limits: How large frames may be.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[VideoIndex, tuple[int, int, int]]] = {}
        self._is_closed = False

    def close(self) -> None:
        """Close the decoders."""
        self._is_closed = True
        OPEN_DECODERS.close_those_of(self)

    @contextmanager
    def decoder(self, path: Path) -> Iterator[VideoDecoder]:
        """A decoder of a file, for the caller alone.

        Raises:
            ClosedError: After `close`.
        """
        if self._is_closed:
            raise ClosedError(f"the recording of {path} is closed; open it again to read from it")
        opened: Callable[[], VideoDecoder] = lambda: VideoDecoder(path, self._limits)  # noqa: E731
        with OPEN_DECODERS.lent(self, path, opened, may_wait=lambda: not self._is_closed) as decoder:
            yield decoder

    def known(self, path: Path) -> tuple[VideoIndex, tuple[int, int, int]]:
        """The index of a file and the shape of its frames; the file is read the first time only."""
        with self._lock:
            found = self._known.get(path)
        if found is None:
            with self.decoder(path) as decoder:
                found = decoder.index(), (decoder.height, decoder.width, 3)
            with self._lock:
                self._known[path] = found
        return found


class VideoFrames:
    """The frames of one stream in one file: of each row the frame that is shown nearest its time.

    Args:
        files: Of the recording.
        path: The file.
        seconds: [rows] float64: when each row is shown, counted in the file.
        reach_s: How far from it a frame may be.
    """

    def __init__(
        self, files: VideoFiles, path: Path, seconds: np.ndarray[Any, np.dtype[np.float64]], reach_s: float
    ) -> None:
        self._files = files
        self._path = path
        self._seconds = seconds
        self._reach_s = reach_s

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame; the first use of a file reads its index."""
        return self._files.known(self._path)[1]

    def __len__(self) -> int:
        return len(self._seconds)

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> Uint8:
        """Decode some of the frames; see `Frames.read`."""
        rows = checked_numbers(numbers, len(self))
        size = checked_size(size)
        index, shape = self._files.known(self._path)
        wanted, back = np.unique(self._in_file(rows, index), return_inverse=True)
        found = room_for(len(wanted), shape[:2] if size is None else size, resized=size is not None)
        if len(wanted):
            with self._files.decoder(self._path) as decoder:
                for place, pixels in enumerate(decoder.decoded(wanted, index)):
                    found[place] = pixels if size is None else resized(pixels, size)
        return found if np.array_equal(back, np.arange(len(wanted))) else found[back]

    def _in_file(self, rows: Int64, index: VideoIndex) -> Int64:
        frames = index.nearest(self._seconds[rows])
        away_s = np.abs(index.pts[frames] * float(index.time_base) - self._seconds[rows])
        if len(away_s) and float(away_s.max()) > self._reach_s:
            worst = int(np.argmax(away_s))
            problem = f"has no frame at {self._seconds[rows][worst]:.4f} s, the nearest is {away_s[worst]:.4f} s away"
            place = f"row {int(rows[worst])} of its episode"
            raise DamagedRecordingError(self._path, problem, place=place, remedy=DOWNLOAD)
        return frames
