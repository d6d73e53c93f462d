"""What streams of images promise, asked of the streams of one reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from robocache.errors import ArgumentError, ClosedError
from robocache.readers import Recording
from robocache.records import Frames, Int64, RecordedStream

SMALL = (2, 3)  # height and width to resize to


def images_are_those_asked_for(open_: Callable[[], Recording], count: int, _: float) -> Iterator[str]:
    """What is wrong with the numbers of images, or with what reading them gives."""
    with open_() as recording:
        for index in range(min(count, len(recording.episode_names))):
            for stream in recording.read_episode(index).streams.values():
                if stream.kind == "image" or stream.frames is not None:
                    yield from (f"{stream.name} of episode {index}: {what}" for what in _problems(stream))


def images_close(open_: Callable[[], Recording], *_: object) -> Iterator[str]:
    """Which streams can still be decoded when their recording is closed."""
    with open_() as recording:
        streams = [stream for stream in recording.read_episode(0).streams.values() if len(stream.times_ns)]
        read_first_images(streams)
    for stream in streams:
        if stream.frames is not None:
            try:
                stream.frames.read(stream.values[:1, 0].astype(np.int64))
            except ClosedError:
                continue
            yield f"reading {stream.name} after close raises no ClosedError"


def read_first_images(streams: list[RecordedStream]) -> None:
    """Decode an image of every stream that has some."""
    for stream in streams:
        if stream.frames is not None:
            stream.frames.read(stream.values[:1, 0].astype(np.int64))


def image_differences(one: RecordedStream, other: RecordedStream, numbers: Int64) -> Iterator[str]:
    """Where two streams that should be the same have other images.

    Args:
        one: A stream, with images or without.
        other: What it should be.
        numbers: [image] which to compare.
    """
    if one.frames is None or other.frames is None:
        if one.frames is not other.frames:
            yield "images in one reading only"
    elif (len(one.frames), one.frames.shape) != (len(other.frames), other.frames.shape):
        yield f"{len(one.frames)} images of {one.frames.shape}, then {len(other.frames)} of {other.frames.shape}"
    elif not np.array_equal(one.frames.read(numbers), other.frames.read(numbers)):
        yield "other images"


def _problems(stream: RecordedStream) -> Iterator[str]:
    frames, values = stream.frames, stream.values
    if frames is None or stream.kind != "image":
        yield f"is of the kind {stream.kind!r} and has {'no ' * (frames is None)}frames"
        return
    shape, last = frames.shape, len(frames) - 1
    if [*map(type, shape)] != [int] * 3 or min(shape) < 1 or shape[2] != 3:
        yield f"frames.shape must be (height, width, 3), got {shape!r}"
        return
    if values.dtype != np.int64 or values.shape[1:] != (1,):
        yield f"values is {values.dtype}{list(values.shape)}, not int64 [source, 1]"
    elif len(values) and not 0 <= int(values.min()) <= int(values.max()) <= last:
        yield f"values are {values.min()} to {values.max()}, and frames has 0 to {last}"
    else:
        rows = [-1, 0, len(values) // 2, -1] if len(values) else []
        yield from _readings(frames, values[rows, 0].astype(np.int64))
        for number in (-1, last + 1):
            try:
                frames.read(np.array([number]))
            except ArgumentError:
                continue
            yield f"image {number} of 0 to {last} raises no ArgumentError"


def _readings(frames: Frames, numbers: Int64) -> Iterator[str]:
    images = frames.read(numbers)
    for wanted, size, got in (
        (numbers, frames.shape[:2], images),
        (numbers, SMALL, frames.read(numbers, size=SMALL)),
        (numbers[:0], frames.shape[:2], frames.read(numbers[:0])),
    ):
        if got.dtype != np.uint8 or got.shape != (len(wanted), *size, 3):
            yield f"{len(wanted)} images of {size} are read as {got.dtype}{list(got.shape)}, not uint8"
            return
    for number, image in zip(numbers, images, strict=True):
        if not np.array_equal(frames.read(np.array([number]))[0], image):
            yield f"image {number}, asked for alone, is not what stands in its place among others"
    if not np.array_equal(frames.read(numbers), images):
        yield "the same numbers give other images the second time"
