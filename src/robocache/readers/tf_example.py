"""The protobuf message `tf.train.Example`: lists of bytes, float32 or int64 by name. No protobuf library."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

MAX_FIELDS = 100_000  # numbers are packed into one: this is 10 cameras and texts in 10 000 steps
_VARINT_BYTES = 10
_CHUNK_BYTES = 128 * 1024
_VARINT, _FIXED64, _BLOCK, _FIXED32 = 0, 1, 2, 5
_KINDS: dict[int, Literal["bytes", "float32", "int64"]] = {1: "bytes", 2: "float32", 3: "int64"}


class ExampleError(ValueError):
    """The message is malformed; `offset` is where in it."""

    def __init__(self, offset: int, problem: str) -> None:
        self.offset = offset
        self.problem = problem
        super().__init__(problem)


@dataclass
class Feature:
    """One named list of an Example, not yet decoded.

    Args:
        name: Such as "steps/observation/state".
        kind: Of what the list is; None for one that says nothing.
        offset: Where in the message it lies.
        count: How many values it has.
        packed: The values of numbers, one after the other.
        bounds: Start and end, in the message, of every byte string.
    """

    name: str
    kind: Literal["bytes", "float32", "int64"] | None
    offset: int
    count: int = 0
    packed: bytearray = field(default_factory=bytearray)
    bounds: array[int] = field(default_factory=lambda: array("q"))

    def numbers(self) -> npt.NDArray[np.generic]:
        """The values, float32 or int64."""
        if self.kind == "float32":
            return np.frombuffer(self.packed, "<f4")
        return _decoded_varints(self.packed)


def read_features(data: bytes) -> dict[str, Feature]:
    """Every feature of an Example; of two with one name the last one counts, as protobuf has it.

    Raises:
        ExampleError: The bytes are no such message, or it has more fields than `MAX_FIELDS`.
    """
    return _Message(data).features()


class _Message:
    """One serialized Example, with a budget for its fields: some take two bytes, and a thousand times the work."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.fields_left = MAX_FIELDS

    def features(self) -> dict[str, Feature]:
        found: dict[str, Feature] = {}
        for number, wire, start, end in self._fields(0, len(self.data)):
            if number != 1 or wire != _BLOCK:
                continue
            for entry_number, entry_wire, entry_start, entry_end in self._fields(start, end):
                if entry_number == 1 and entry_wire == _BLOCK:
                    feature = self._entry(entry_start, entry_end)
                    found[feature.name] = feature
        return found

    def _entry(self, start: int, end: int) -> Feature:
        name, lists = "", (start, start)
        for number, wire, value_start, value_end in self._fields(start, end):
            if wire == _BLOCK and number == 1:
                try:
                    name = self.data[value_start:value_end].decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ExampleError(value_start, f"a feature's name is not UTF-8 ({error.reason})") from error
            elif wire == _BLOCK and number == 2:
                lists = (value_start, value_end)
        feature = Feature(name, None, lists[0])
        for number, wire, value_start, value_end in self._fields(*lists):
            kind = _KINDS.get(number)
            if wire == _BLOCK and kind is not None:
                feature = Feature(name, kind, value_start)
                self._fill(feature, value_start, value_end)
        return feature

    def _fill(self, feature: Feature, start: int, end: int) -> None:
        scalar = {"bytes": _BLOCK, "float32": _FIXED32, "int64": _VARINT}[feature.kind or "bytes"]
        for number, wire, value_start, value_end in self._fields(start, end):
            if number != 1:
                continue
            if wire not in (scalar, _BLOCK):
                raise ExampleError(value_start, f"a value of {feature.kind} has the wire type {wire}")
            if feature.kind == "bytes":
                feature.bounds.extend((value_start, value_end))
            else:
                feature.packed += self.data[value_start:value_end]
        if feature.kind == "bytes":
            feature.count = len(feature.bounds) // 2
        elif feature.kind == "float32":
            feature.count, rest = divmod(len(feature.packed), 4)
            if rest:
                raise ExampleError(start, f"{len(feature.packed)} bytes are no whole number of float32")
        else:
            feature.count = _varint_count(feature.packed, start)

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type and the place of the value of every field in a stretch of the message."""
        at = start
        while at < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise ExampleError(at, f"has more than {MAX_FIELDS} fields")
            tag, value = _varint(self.data, at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _BLOCK:
                length, value = _varint(self.data, value, end)
                at = value + length
            elif wire == _VARINT:
                _, at = _varint(self.data, value, end)
            elif wire in (_FIXED32, _FIXED64):
                at = value + (4 if wire == _FIXED32 else 8)
            else:
                raise ExampleError(value, f"a field has the wire type {wire}, which is none")
            if number == 0:
                raise ExampleError(value, "a field has the number 0")
            if at > end:
                raise ExampleError(value, f"a field declares {at - value} bytes, but {end - value} are left")
            yield number, wire, value, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where the next thing starts."""
    number = shift = 0
    for place in range(at, min(end, at + _VARINT_BYTES)):
        byte = data[place]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + 1
        shift += 7
    raise ExampleError(at, "a number does not end")


def _varint_count(packed: bytearray, start: int) -> int:
    """How many numbers there are, each seen to end within its ten bytes."""
    count, longest, since = 0, 0, 0
    for at in range(0, len(packed), _CHUNK_BYTES):
        block = np.frombuffer(packed, np.uint8, min(_CHUNK_BYTES, len(packed) - at), at)
        ends = np.flatnonzero(block < 128)
        if len(ends):
            lengths = np.diff(ends, prepend=-1 - since)
            longest, since = max(longest, int(lengths.max())), len(block) - 1 - int(ends[-1])
        else:
            since += len(block)
        count += len(ends)
    if since or longest > _VARINT_BYTES:
        raise ExampleError(start, "an int64 does not end")
    return count


def _decoded_varints(packed: bytearray) -> npt.NDArray[np.int64]:
    """Every number, a chunk of bytes at a time; all of them are known to end."""
    decoded: list[npt.NDArray[np.uint64]] = []
    at = 0
    while at < len(packed):
        block = np.frombuffer(packed, np.uint8, min(_CHUNK_BYTES, len(packed) - at), at)
        ends = np.flatnonzero(block < 128)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
        numbers = np.zeros(len(ends), np.uint64)
        for place in range(int((ends - starts).max()) + 1):
            has = np.flatnonzero(starts + place <= ends)
            part = (block[starts[has] + place] & 127).astype(np.uint64)
            numbers[has] |= part << np.uint64(7 * place)
        decoded.append(numbers)
        at += int(ends[-1]) + 1
    joined = np.concatenate(decoded) if decoded else np.zeros(0, np.uint64)
    return joined.view(np.int64)
