"""Topics of images: where each message lies is kept, and it is read and decoded again when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from robocache.readers.images import ImageError, Uint8, check_pixels, check_sides, decoded, image_shape
from robocache.readers.recording import image_stream
from robocache.readers.ros2_layout import Layout, LayoutError, find_layout
from robocache.readers.ros2_schema import Definitions, short_name
from robocache.readers.ros2_topic import with_header
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
# Reads messages again: [messages, 3] int64 (block, start in it, bytes) become the bytes of each.
Payloads = Callable[[Int64], Iterator[bytes]]


class ImageTopic:
    """Collects where the messages of one topic of images lie.

    Args:
        name: The topic.
        type_name: "sensor_msgs/msg/Image" or "sensor_msgs/msg/CompressedImage".
        definitions: From `parse_definitions`.
        cdr: Whether messages are CDR (ROS 2), not the packed bytes of ROS 1.
    """

    def __init__(self, name: str, type_name: str, definitions: Definitions, *, cdr: bool) -> None:
        self.name = name
        self.type_name = short_name(type_name)
        self.definitions = definitions
        self.cdr = cdr
        self.why_skipped: str | None = None
        self._shape: tuple[int, int, int] | None = None
        self._is_published = True
        self._stamps: list[Int64] = []
        self._places: list[tuple[int, int, int]] = []
        self.is_whole = False
        self.held_bytes = 0  # of messages taken since `forget`

    @property
    def nbytes(self) -> int:
        """Host bytes held."""
        return 200 * len(self._places)

    def emptied(self) -> ImageTopic:
        """The same topic with all that it has noted; messages that are read a second time add nothing."""
        topic = copy(self)
        topic.is_whole = True
        topic.held_bytes = 0
        return topic

    def forget(self) -> None:
        """Count from nothing again; where each message lies stays, for its image is read by that in every span."""
        self.held_bytes = 0

    def reach(self) -> Iterator[tuple[bool, int, int]]:
        """No stamps: no message need be read again to know them."""
        return iter(())

    def clocks_used(self) -> set[bool]:
        """None, for the same reason."""
        return set()

    def add(self, payload: bytes, log_ns: int, publish_ns: int | None, place: tuple[int, int]) -> None:
        """Take note of one message.

        Args:
            payload: Its bytes.
            log_ns: When it was recorded.
            publish_ns: When it was sent; None where the format does not say.
            place: Block, and start in it, where `Payloads` finds it again.

        Raises:
            LayoutError: It does not fit its definition.
        """
        if self.is_whole:
            return
        layout = find_layout(self.definitions, self.type_name, payload, cdr=self.cdr)
        if self._shape is None and self.why_skipped is None:
            try:
                self._shape = self._declared(layout, payload)
            except ImageError as error:
                self.why_skipped = f"its first image {error}"
        self._is_published = self._is_published and publish_ns is not None
        stamps = np.array([[log_ns, log_ns if publish_ns is None else publish_ns]], np.int64)
        self._stamps.append(with_header(layout, np.frombuffer(payload, np.uint8)[None], stamps))
        self._places.append((*place, len(payload)))
        self.held_bytes += len(payload)

    def streams(self, path: str, limits: Limits, payloads: Payloads) -> Iterator[RecordedStream]:
        """The stream "topic.image", unless its images are none that can be decoded."""
        if self._shape is None or self.why_skipped is not None:
            return
        places, stamps = np.array(self._places, np.int64), np.concatenate(self._stamps)

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            for payload in payloads(places[numbers]):
                yield self._decoded(payload, limits)

        frames = StillFrames(path, f"topic {self.name}, message", len(places), self._shape, fetch)
        clocks = {"log": stamps[:, 0]}
        if self._is_published:
            clocks["publish"] = stamps[:, 1]
        if np.all(stamps[:, 2] != 0):
            clocks = {"header": stamps[:, 2], **clocks}
        yield image_stream(f"{self.name}.image", frames, clocks, next(iter(clocks)))

    def _declared(self, layout: Layout, payload: bytes) -> tuple[int, int, int]:
        if self.type_name == COMPRESSED:
            return image_shape(bytes(_data(layout, payload)))
        encoding = layout.texts.get("encoding", "")
        if encoding not in ENCODINGS:
            raise ImageError(f"is encoded as {encoding[:40]!r}, and {', '.join(ENCODINGS)} are read")
        height, width = (_number(layout, name, payload) for name in ("height", "width"))
        check_sides(height, width)
        return height, width, 3

    def _decoded(self, payload: bytes, limits: Limits) -> Uint8:
        try:
            layout = find_layout(self.definitions, self.type_name, payload, cdr=self.cdr)
            height, width, _ = self._declared(layout, payload)
            data = _data(layout, payload)
            if self.type_name == COMPRESSED:
                return decoded(bytes(data), limits)
            check_pixels(height, width, limits)
            order, channels = ENCODINGS[layout.texts["encoding"]]
            step = _number(layout, "step", payload)
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


def _number(layout: Layout, name: str, payload: bytes) -> int:
    place = layout.places.get(name)
    if place is None or place.count != 1 or place.dtype[1] not in "iu":
        raise LayoutError(f"has no single number {name}")
    return int(layout.values(name, np.frombuffer(payload, np.uint8)[None])[0, 0].item())
