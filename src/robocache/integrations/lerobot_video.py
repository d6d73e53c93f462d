"""Frames of a LeRobot video file, decoded in order; no decoder stays open between two calls.

So there is nothing that a forked worker could inherit half used, and nothing whose number must be bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robocache.errors import BackendUnavailableError, DamagedRecordingError, RecordingNotFoundError
from robocache.readers.lerobot_table import CHECK
from robocache.records import Int64

Images = npt.NDArray[np.uint8]
MAX_PIXELS = 2**25  # an 8K frame is just allowed


def read_frames(path: Path, seconds: npt.NDArray[np.float64], fps: float, out: Images, places: Int64) -> None:
    """Decode the frames nearest to some times of a video.

    Args:
        path: The video file.
        seconds: [frame] times in the file, ascending; the same may be there several times.
        fps: Frames a second: a frame farther than half a period from its time is missing.
        out: [image, 3, height, width], written. A frame of another size is resized by PyTorch's antialiased bilinear
            filter.
        places: [frame] which image of `out` each becomes.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It cannot be decoded, or lacks a frame.
        BackendUnavailableError: PyAV is not installed.
    """
    if not path.is_file():
        raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK)
    try:
        import av
    except ImportError as error:
        message = "LeRobot's videos need PyAV, which is not installed: pip install 'robocache[lerobot]'"
        raise BackendUnavailableError(message) from error
    try:
        with av.open(str(path)) as container:
            done = _read(container, seconds, fps, out, places)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise DamagedRecordingError(path, f"cannot be decoded ({error})", remedy=CHECK) from error
    if done < len(seconds):
        raise DamagedRecordingError(path, f"has no frame at {seconds[done]:.4f} s", remedy=CHECK)


def _read(container: Any, seconds: npt.NDArray[np.float64], fps: float, out: Images, places: Int64) -> int:  # noqa: ANN401 -- PyAV's
    """Fill `out` up to the first missing frame; the number of frames found."""
    from av.video.reformatter import VideoReformatter

    done = 0
    if not len(seconds):
        return done
    converter = VideoReformatter()  # one for all frames: making it takes as long as a conversion
    for time, frame in _frames(container, float(seconds[0]), fps):
        image = None
        while done < len(seconds) and abs(time - seconds[done]) <= 0.5 / fps:
            image = (
                _channels_first(converter.reformat(frame, format="rgb24"), out.shape[2:]) if image is None else image
            )
            out[places[done]] = image
            done += 1
        if done == len(seconds) or time > seconds[done]:
            break
    return done


def _frames(container: Any, start: float, fps: float) -> Iterator[tuple[float, Any]]:  # noqa: ANN401
    """Frames with their seconds, from the key frame before `start` on."""
    stream = container.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS:
        raise ValueError(f"declares {stream.width} x {stream.height} pixels")
    base = stream.time_base
    first = stream.start_time or 0
    target = int((start - 0.5 / fps) / base) + first
    if target > first:
        container.seek(target, stream=stream)
    for frame in container.decode(stream):
        if frame.pts is not None:
            yield float((frame.pts - first) * base), frame


def _channels_first(frame: Any, size: tuple[int, ...]) -> Images:  # noqa: ANN401
    image: Images = frame.to_ndarray()
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if tuple(image.shape[:2]) != tuple(size):
        pixels = torch.nn.functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
    return np.asarray(pixels.numpy())


def frame_seconds(first: float, rows: Int64, fps: float) -> npt.NDArray[np.float64]:
    """When rows of an episode are in its video.

    Args:
        first: When the episode starts in the file.
        rows: [row] counted from the start of the episode.
        fps: Frames a second.
    """
    return np.asarray(first + rows / fps, dtype=np.float64)
