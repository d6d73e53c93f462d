"""One open MP4 file, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from robocache.errors import BackendUnavailableError, DamagedRecordingError, RecordingLimitError
from robocache.readers.images import ImageTooLargeError, Uint8, check_pixels
from robocache.readers.mp4_boxes import DOWNLOAD, check_boxes
from robocache.records import Int64

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from robocache.readers.limits import Limits

MANY_FRAMES = 8  # from here on a thread is worth its start
AHEAD = 4  # frames that are decoded before they are asked for
SEEK_FRAMES = 2  # what a seek costs, in frames that could be decoded meanwhile


_Found = TypeVar("_Found")


@dataclass(frozen=True)
class VideoIndex:
    """What a pass over the packets of a file found, none of them decoded.

    Args:
        pts: [frames] int64, ascending: when each frame is shown, in units of `time_base` seconds.
        key: [frames] int64: the last frame at or before each from which decoding can begin.
        key_dts: [frames] int64: where to seek for it.
        time_base: Seconds a unit.
    """

    pts: Int64
    key: Int64
    key_dts: Int64
    time_base: Fraction

    def nearest(self, seconds: np.ndarray[Any, np.dtype[np.float64]]) -> Int64:
        """The frame shown nearest each time, the earlier of two as near: [times] int64."""
        shown = self.pts * float(self.time_base)
        after = np.clip(np.searchsorted(shown, seconds), 1, max(1, len(shown) - 1))
        is_before = seconds - shown[after - 1] <= shown[np.minimum(after, len(shown) - 1)] - seconds
        return np.where(is_before, after - 1, np.minimum(after, len(shown) - 1)).astype(np.int64)


class VideoDecoder:
    """One open MP4 file and where decoding stands in it.

    It has no thread between two calls: many files are decoded side by side, and a forked process can close it without
    waiting for threads that it does not have.

    Args:
        path: The file.
        limits: How large its frames may be.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        check_boxes(path)
        self.path = path
        self._av = _pyav()
        # Before PyAV 17 a conversion always has one thread, and the argument does not exist.
        self._converting: dict[str, Any] = {"threads": 1} if int(self._av.__version__.split(".")[0]) >= 17 else {}
        # Only MP4: FFmpeg knows formats that name other files to read.
        options = {"max_pixels": str(limits.image_pixels), "threads": "1"}
        with self._damage_named():
            # PyAV leaves the file open where it fails over a text in it that is not UTF-8.
            self._container: InputContainer = self._av.open(
                f"file:{path.absolute()}", format="mp4", options=options, metadata_errors="replace"
            )
        try:
            self._stream = self._video_stream()
            self._stream.codec_context.thread_count = 1
            self.height, self.width = int(self._stream.height), int(self._stream.width)
            self._check_size(limits)
        except BaseException:
            self._container.close()
            raise
        self._frames: Iterator[VideoFrame] | None = None
        self._at = 0  # the frame that the decoder gives next

    def close(self) -> None:
        """Close the file."""
        self._frames = None
        self._container.close()

    def _check_size(self, limits: Limits) -> None:
        problem = ""
        if not self.height * self.width:  # FFmpeg forgets a size that is beyond its own limit, `max_pixels`
            problem = f"declares no size of frames, or one of more than the {limits.image_pixels} pixels allowed"
        try:
            check_pixels(self.height, self.width, limits)
        except ImageTooLargeError as error:
            problem = str(error)
        if problem:
            raise RecordingLimitError(self.path, problem, remedy="raise Limits(image_pixels=...) if you trust it")

    def _video_stream(self) -> VideoStream:
        streams = self._container.streams.video
        if not streams:
            raise DamagedRecordingError(self.path, "holds no video", remedy=DOWNLOAD)
        if getattr(streams[0], "codec_context", None) is None:  # whatever PyAV's types say
            raise DamagedRecordingError(self.path, "holds video of a codec that FFmpeg cannot decode", remedy=DOWNLOAD)
        return streams[0]

    def index(self) -> VideoIndex:
        """Pass over all packets.

        Raises:
            DamagedRecordingError: There is none, or FFmpeg cannot read them.
        """
        with self._damage_named():
            self._container.seek(0)
            packets = [
                (packet.pts, packet.dts, packet.is_keyframe)
                for packet in self._container.demux(self._stream)
                if packet.pts is not None and packet.dts is not None and not packet.is_discard
            ]
            self._container.seek(0)
        self._frames, self._at = None, 0
        if not packets or not any(is_key for _, _, is_key in packets):
            raise DamagedRecordingError(self.path, "has no frame to begin with", remedy=DOWNLOAD)
        pts, dts, is_key = (np.array(column) for column in zip(*sorted(packets), strict=True))
        first = int(np.argmax(is_key))
        key = np.maximum.accumulate(np.where(is_key, np.arange(len(pts)), first))
        base = self._stream.time_base or Fraction(1, 1)
        return VideoIndex(pts.astype(np.int64), key.astype(np.int64), dts.astype(np.int64)[key], Fraction(base))

    def decoded(self, frames: Int64, index: VideoIndex) -> Iterator[Uint8]:
        """Frames of the file, each [height, width, 3].

        It goes on from where it stands, and seeks only where that saves frames: for ascending numbers, nothing is
        decoded twice. Of many frames, the next ones are decoded in a thread while one is converted, and the caller
        works with it; the thread ends with the iteration.

        Args:
            frames: Ascending numbers in the file, each once.
            index: Of this file.

        Raises:
            DamagedRecordingError: A frame is not there, or cannot be decoded.
        """
        found = self._found(frames, index)
        with closing(_ahead(found) if len(frames) >= MANY_FRAMES else found) as each:
            for number, frame in each:
                yield self._pixels(number, frame)

    def _found(self, frames: Int64, index: VideoIndex) -> Generator[tuple[int, VideoFrame]]:
        for number in frames.tolist():
            key = int(index.key[number])
            if self._frames is None or number < self._at or key > self._at + SEEK_FRAMES:
                with self._damage_named(number):
                    self._container.seek(int(index.key_dts[number]), stream=self._stream, backward=True)
                self._frames = iter(self._container.decode(self._stream))
            yield number, self._next_at(number, int(index.pts[number]))

    def _next_at(self, number: int, pts: int) -> VideoFrame:
        assert self._frames is not None
        with self._damage_named(number):
            for frame in self._frames:
                if frame.pts is not None and frame.pts >= pts:
                    break
            else:
                frame = None
            if frame is None or frame.pts != pts:
                self._frames = None
                where = "no frame" if frame is None else f"a frame at {frame.pts}"
                raise DamagedRecordingError(
                    self.path, f"gives {where} where one at {pts} is listed", place=f"frame {number}", remedy=DOWNLOAD
                )
            self._at = number + 1
        return frame

    def _pixels(self, number: int, frame: VideoFrame) -> Uint8:
        with self._damage_named(number):
            pixels = np.asarray(frame.to_ndarray(format="rgb24", **self._converting), np.uint8)
        if pixels.shape != (self.height, self.width, 3):
            problem = f"has {pixels.shape[1]} x {pixels.shape[0]} pixels, not {self.width} x {self.height}"
            raise DamagedRecordingError(self.path, problem, place=f"frame {number}", remedy=DOWNLOAD)
        return pixels

    @contextmanager
    def _damage_named(self, frame: int | None = None) -> Iterator[None]:
        place = None if frame is None else f"frame {frame}"
        try:
            yield
        except (self._av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, DamagedRecordingError | RecordingLimitError):
                raise
            text = " ".join(str(error).replace(str(self.path), "it").split())[:200]
            problem = f"FFmpeg cannot read it ({text})"
            raise DamagedRecordingError(self.path, problem, place=place, remedy=DOWNLOAD) from error


def _ahead(found: Iterator[_Found]) -> Generator[_Found]:
    """The same, of which some are made before they are asked for, in a thread that ends with the iteration."""
    with ThreadPoolExecutor(1, thread_name_prefix="robocache-decode") as thread:
        making = deque(thread.submit(next, found, None) for _ in range(AHEAD))
        try:
            while (one := making.popleft().result()) is not None:
                making.append(thread.submit(next, found, None))
                yield one
        finally:
            for future in making:
                future.cancel()


def _pyav() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as error:
        message = 'video is decoded by PyAV, which is not installed; pip install "robocache[video]"'
        raise BackendUnavailableError(message) from error
    return av
