"""Topics of large messages: where each lies is kept, and it is read and decoded again when it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from copy import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from robocache.readers.ros2_layout import Layout, LayoutError, find_layout
from robocache.readers.ros2_schema import Definitions, short_name
from robocache.readers.ros2_topic import with_header
from robocache.records import Int64, RecordedStream

if TYPE_CHECKING:
    from robocache.readers.limits import Limits

# Reads messages again: [messages, 3] int64 (block, start in it, bytes) become the bytes of each.
Payloads = Callable[[Int64], Iterator[bytes]]
_Self = TypeVar("_Self", bound="PlacedTopic")


class PlacedTopic(ABC):
    """Collects where the messages of one topic lie.

    Args:
        name: The topic.
        type_name: Its message type, "package/msg/Name" or "package/Name".
        definitions: From `parse_definitions`.
        cdr: Whether messages are CDR (ROS 2), not the packed bytes of ROS 1.
    """

    def __init__(self, name: str, type_name: str, definitions: Definitions, *, cdr: bool = True) -> None:
        self.name = name
        self.type_name = short_name(type_name)
        self.definitions = definitions
        self.cdr = cdr
        self.why_skipped: str | None = None
        self._is_published = True
        self._stamps: list[Int64] = []
        self._places: list[tuple[int, int, int]] = []
        self.is_whole = False
        self.held_bytes = 0  # of messages taken since `forget`

    @property
    def nbytes(self) -> int:
        """Host bytes held."""
        return 200 * len(self._places)

    def emptied(self: _Self) -> _Self:
        """The same topic with all that it has noted; messages that are read a second time add nothing."""
        topic = copy(self)
        topic.is_whole = True
        topic.held_bytes = 0
        return topic

    def forget(self) -> None:
        """Count from nothing again; where each message lies stays, for it is read by that in every span."""
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
        layout = self._layout(payload)
        self._note(layout, payload)
        self._is_published = self._is_published and publish_ns is not None
        stamps = np.array([[log_ns, log_ns if publish_ns is None else publish_ns]], np.int64)
        self._stamps.append(with_header(layout, np.frombuffer(payload, np.uint8)[None], stamps))
        self._places.append((*place, len(payload)))
        self.held_bytes += len(payload)

    @abstractmethod
    def streams(self, path: str, limits: Limits, payloads: Payloads) -> Iterator[RecordedStream]:
        """The streams of all messages.

        Args:
            path: The file, for errors.
            limits: How much may be decoded at once.
            payloads: Reads messages again.
        """

    @abstractmethod
    def _note(self, layout: Layout, payload: bytes) -> None:
        """Keep what has to be known of a message before it is read again."""

    def _layout(self, payload: bytes) -> Layout:
        return find_layout(self.definitions, self.type_name, payload, cdr=self.cdr)

    def _clocks(self, stamps: Int64) -> dict[str, Int64]:
        """The clocks of some messages by name; the first is the one to use."""
        clocks = {"log": stamps[:, 0]}
        if self._is_published:
            clocks["publish"] = stamps[:, 1]
        return {"header": stamps[:, 2], **clocks} if np.all(stamps[:, 2] != 0) else clocks


def one_number(layout: Layout, name: str, payload: bytes) -> int:
    """A field that is a single integer.

    Raises:
        LayoutError: There is none of that name.
    """
    place = layout.places.get(name)
    if place is None or place.count != 1 or place.dtype[1] not in "iu":
        raise LayoutError(f"has no single number {name}")
    return int(layout.values(name, np.frombuffer(payload, np.uint8)[None])[0, 0].item())
