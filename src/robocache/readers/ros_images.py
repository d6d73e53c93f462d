"""Topics of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from robocache.readers.images import ImageError, Uint8, check_pixels, check_sides, decoded, image_shape
from robocache.readers.recording import image_stream
from robocache.readers.ros2_layout import Layout, LayoutError
from robocache.readers.ros_places import Payloads, PlacedTopic, one_number
from robocache.readers.stills import StillFrames
from robocache.records import Int64, RecordedStream

if TYPE_CHECKING:
    from robocache.readers.limits import Limits

IMAGE, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"
# Which of a pixel's bytes are red, green and blue, and how many there are.
ENCODINGS = {
    "rgb8": ((0, 1, 2), 3),
    "bgr8": ((2, 1, 0), 3),
    "8UC3": ((2, 1, 0), 3),  # OpenCV's order, which is what writes it
    "rgba8": ((0, 1, 2), 4),
    "bgra8": ((2, 1, 0), 4),
    "mono8": ((0, 0, 0), 1),
    "8UC1": ((0, 0, 0), 1),
}


class ImageTopic(PlacedTopic):
    """Collects where the messages of one topic of images lie; see `PlacedTopic`."""

    _shape: tuple[int, int, int] | None = None

    def streams(self, path: str, limits: Limits, payloads: Payloads) -> Iterator[RecordedStream]:
        """The stream "topic.image", unless its images are none that can be decoded."""
        if self._shape is None or self.why_skipped is not None:
            return
        places, stamps = np.array(self._places, np.int64), np.concatenate(self._stamps)

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            for payload in payloads(places[numbers]):
                yield self._decoded(payload, limits)

        frames = StillFrames(path, f"topic {self.name}, message", len(places), self._shape, fetch)
        clocks = self._clocks(stamps)
        yield image_stream(f"{self.name}.image", frames, clocks, next(iter(clocks)))

    def _note(self, layout: Layout, payload: bytes) -> None:
        if self._shape is None and self.why_skipped is None:
            try:
                self._shape = self._declared(layout, payload)
            except ImageError as error:
                self.why_skipped = f"its first image {error}"

    def _declared(self, layout: Layout, payload: bytes) -> tuple[int, int, int]:
        if self.type_name == COMPRESSED:
            return image_shape(bytes(_data(layout, payload)))
        encoding = layout.texts.get("encoding", "")
        if encoding not in ENCODINGS:
            raise ImageError(f"is encoded as {encoding[:40]!r}, and {', '.join(ENCODINGS)} are read")
        height, width = (one_number(layout, name, payload) for name in ("height", "width"))
        check_sides(height, width)
        return height, width, 3

    def _decoded(self, payload: bytes, limits: Limits) -> Uint8:
        try:
            layout = self._layout(payload)
            height, width, _ = self._declared(layout, payload)
            data = _data(layout, payload)
            if self.type_name == COMPRESSED:
                return decoded(bytes(data), limits)
            check_pixels(height, width, limits)
            order, channels = ENCODINGS[layout.texts["encoding"]]
            step = one_number(layout, "step", payload)
        except LayoutError as error:
            raise ImageError(str(error)) from error
        if width * channels > step or height * step > len(data):
            raise ImageError(f"has {len(data)} bytes, not {height} rows of {width} pixels of {channels}")
        rows = np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, : width * channels]
        stored, pixels = rows.reshape(height, width, channels), np.empty((height, width, 3), np.uint8)
        for channel, source in enumerate(order):  # indexed by a list, it would be held twice
            pixels[:, :, channel] = stored[:, :, source]
        return pixels


def _data(layout: Layout, payload: bytes) -> memoryview:
    place = layout.places.get("data")
    if place is None or place.dtype[1:] != "u1":
        raise LayoutError("has no sequence of bytes called data")
    return memoryview(payload)[place.offset : place.end]
