"""Where the fields of a CDR message, or of a ROS 1 message, lie.

Neither has a table: a field's place depends on the lengths of the strings and sequences before it. So a layout is found
by walking one message, and holds for every message of the same size whose length words are the same; those are then
read together, as columns of one matrix of bytes. A sensor's messages nearly all share one layout. ROS 1 writes the
same fields without header and alignment, always little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from robocache.readers.ros2_schema import SEQUENCE, Definitions, Field

HEADER_BYTES = 4
MAX_FIELDS = 10_000
MAX_DEPTH = 16
Bytes = npt.NDArray[np.uint8]


class LayoutError(ValueError):
    """A message that does not fit its definition; the reader turns it into an error that names file and message."""


@dataclass(frozen=True)
class Place:
    """Where one field lies: byte offset in the message, NumPy dtype (with byte order), and how many values."""

    offset: int
    dtype: str
    count: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.count * np.dtype(self.dtype).itemsize


@dataclass
class Layout:
    """Places of all fields by path ("pose.position.x", "name[3]").

    Args:
        places: Numbers, and arrays of numbers.
        texts: Strings, without the final zero.
        fixed: Bytes that another message must share for the layout to hold: the length words, and the content of
            those fields that the caller wants constant.
        sizes: How many elements each sequence has, by path.
    """

    places: dict[str, Place] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    fixed: list[int] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def values(self, path: str, messages: Bytes) -> npt.NDArray[np.generic]:
        """The numbers at a path of every message: [messages, bytes] becomes [messages, count], native byte order."""
        place = self.places[path]
        block = np.ascontiguousarray(messages[:, place.offset : place.end])
        values = block.view(place.dtype) if place.count else np.empty((len(messages), 0), place.dtype)
        return values.astype(values.dtype.newbyteorder("="), copy=False)


def find_layout(
    definitions: Definitions, type_name: str, message: bytes, constant: Collection[str] = (), *, cdr: bool = True
) -> Layout:
    """Walk one message.

    Args:
        definitions: From `parse_definitions`.
        type_name: Which of them the message is.
        message: With its four bytes of CDR header, which ROS 1 does not have.
        constant: Names of top-level fields whose content, not only length, belongs to the layout.
        cdr: False for a message of ROS 1.

    Raises:
        LayoutError: The message is not plain CDR, is shorter than its fields, or has more than 10 000 of them.
    """
    if not cdr:
        walk = _Walk(definitions, message, frozenset(constant), header_bytes=0, order="<")
        walk.message(type_name, "", depth=0)
        return walk.layout
    if len(message) < HEADER_BYTES or message[0] != 0 or message[1] not in (0, 1):
        raise LayoutError(f"starts with {message[:HEADER_BYTES]!r}, which is not the header of plain CDR")
    order = "<" if message[1] == 1 else ">"
    walk = _Walk(definitions, message, frozenset(constant), header_bytes=HEADER_BYTES, order=order)
    # Byte order and encapsulation are the same for all messages of a layout.
    walk.layout.fixed.extend(range(2))
    walk.message(type_name, "", depth=0)
    return walk.layout


class _Walk:
    def __init__(
        self, definitions: Definitions, message: bytes, constant: frozenset[str], *, header_bytes: int, order: str
    ) -> None:
        self.definitions = definitions
        self.bytes = message
        self.constant = constant
        self.order = order
        self.is_aligned = header_bytes > 0
        self.at = header_bytes
        self.fields = 0
        self.layout = Layout()

    def message(self, type_name: str, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise LayoutError(f"nests messages more than {MAX_DEPTH} deep at {prefix}")
        for member in self.definitions[type_name]:
            start = self.at
            self.member(member, prefix + member.name, depth)
            if depth == 0 and member.name in self.constant:
                self.layout.fixed.extend(range(start, self.at))

    def member(self, member: Field, path: str, depth: int) -> None:
        count = 1 if member.length is None else member.length
        if count == SEQUENCE:
            count = self.length_word(path)
        if member.length is not None:
            self.layout.sizes[path] = count
        if not member.is_message and member.dtype != "string":
            self.numbers(path, member.dtype, count)
            return
        for index in range(count):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise LayoutError(f"has more than {MAX_FIELDS} fields at {path}")
            element = path if member.length is None else f"{path}[{index}]"
            if member.is_message:
                self.message(member.dtype, element + ".", depth + 1)
            else:
                self.text(element)

    def numbers(self, path: str, dtype: str, count: int) -> None:
        size = int(dtype[1])
        if count and self.is_aligned:
            # Alignment counts from the end of the CDR header; an empty sequence aligns nothing.
            self.at += -(self.at - HEADER_BYTES) % size
        self.fields += 1
        self.need(count * size, path)
        self.layout.places[path] = Place(self.at, self.order + dtype, count)
        self.at += count * size
        if self.fields > MAX_FIELDS:
            raise LayoutError(f"has more than {MAX_FIELDS} fields at {path}")

    def text(self, path: str) -> None:
        length = self.length_word(path)
        self.need(length, path)
        raw = self.bytes[self.at : self.at + length]
        self.layout.texts[path] = raw.rstrip(b"\0").decode("utf-8", errors="backslashreplace")
        self.at += length

    def length_word(self, path: str) -> int:
        if self.is_aligned:
            self.at += -(self.at - HEADER_BYTES) % 4
        self.need(4, path)
        (length,) = struct.unpack_from(self.order + "I", self.bytes, self.at)
        self.layout.fixed.extend(range(self.at, self.at + 4))
        self.at += 4
        return int(length)

    def need(self, size: int, path: str) -> None:
        if self.at + size > len(self.bytes):
            message = f"has {len(self.bytes)} bytes, but {path} needs {size} from byte {self.at} on"
            raise LayoutError(message)
