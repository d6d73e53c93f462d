"""Aligned images as a LeRobot video: one mp4 an episode, encoded piece by piece."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.align.aligned import AlignedImages
from robocache.align.lerobot_statistics import FeatureStatistics
from robocache.errors import ArgumentError, OutputError

CODECS = {"libx264": "h264", "libsvtav1": "av1"}  # the first that is there
OPTIONS = {"g": "2", "crf": "23"}  # a keyframe every two frames, as LeRobot's own, so that any frame is soon decoded
PIXELS = "yuv420p"
PIECE_FRAMES = 16


def video_feature(name: str, images: AlignedImages, fps: float) -> dict[str, Any]:
    """What meta/info.json says of a video.

    Args:
        name: The stream, for errors.
        images: What it shows.
        fps: Frames a second.

    Raises:
        ArgumentError: A side is odd, which the pixel format does not allow, or no encoder is installed.
    """
    height, width, channels = images.shape
    if height % 2 or width % 2:
        message = f"images of {name!r} are {height} x {width}, and a video's sides must be even"
        raise ArgumentError(f"{message}: say then=Resize({height + height % 2}, {width + width % 2})")
    return {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channel"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": CODECS[_encoder(name)],
            "video.pix_fmt": PIXELS,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": channels,
            "has_audio": False,
        },
    }


def write_video(path: Path, name: str, images: AlignedImages, rate: Fraction) -> FeatureStatistics:
    """Encode the image of every frame; return the statistics of the pixels, 0 to 1, each [channel, 1, 1].

    Args:
        path: The file to make, and its folders.
        name: The stream, for errors.
        images: What to encode.
        rate: Frames a second.

    Raises:
        OutputError: The encoder fails.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, _ = images.shape
    parts: list[FeatureStatistics] = []
    frames = len(images.row)
    try:
        with av.open(str(path), "w") as container:
            video: Any = container.add_stream(_encoder(name), rate=rate, options=OPTIONS)
            video.width, video.height, video.pix_fmt = width, height, PIXELS
            for first in range(0, frames, PIECE_FRAMES):
                pixels = images.read(slice(first, first + PIECE_FRAMES))
                parts.append(_statistics(pixels))
                for image in pixels:
                    container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(video.encode())
    except av.error.FFmpegError as error:
        raise OutputError(f"{path}: the video of {name!r} cannot be written ({error})") from error
    return FeatureStatistics.together(parts)


def _statistics(pixels: npt.NDArray[np.uint8]) -> FeatureStatistics:
    """Of [frame, height, width, channel], 0 to 1: exact, from how often each of the 256 values comes."""
    values = np.arange(256) / 255.0
    low, high, mean, variance = np.empty((4, pixels.shape[-1], 1, 1))
    total = pixels[..., 0].size
    for channel in range(pixels.shape[-1]):
        counts = np.bincount(pixels[..., channel].reshape(-1), minlength=256)
        seen = np.flatnonzero(counts)
        low[channel], high[channel] = values[seen[[0, -1]]]
        mean[channel] = counts @ values / total
        variance[channel] = counts @ (values - mean[channel]).reshape(-1) ** 2 / total
    return FeatureStatistics(low, high, mean, variance, np.full(low.shape, float(total)), len(pixels))


def _encoder(name: str) -> str:
    try:
        import av
    except ImportError as error:
        message = f"images of {name!r} become a video, which needs PyAV"
        raise ArgumentError(f"{message}: pip install 'robocache[video]', or leave the stream out") from error
    for encoder in CODECS:
        if encoder in av.codecs_available:
            return encoder
    raise ArgumentError(f"images of {name!r} become a video, but PyAV has none of the encoders {', '.join(CODECS)}")
