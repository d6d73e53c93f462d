"""Message definitions, as MCAP files and bags carry them: concatenated .msg texts ("ros2msg"; of ROS 1 alike)."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRIMITIVES = {
    "bool": "u1",
    "byte": "u1",
    "char": "u1",
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
    "float32": "f4",
    "float64": "f8",
    "string": "string",
}
SEQUENCE = -1
_TIME = "int32 sec\nuint32 nanosec"
_BUILT_IN = {"builtin_interfaces/Time": _TIME, "builtin_interfaces/Duration": _TIME}
# In ROS 1 they are primitives; as messages with these fields they read like those of ROS 2.
_BUILT_IN_ROS1 = {"time": "uint32 sec\nuint32 nanosec", "duration": _TIME}
_SEPARATOR = re.compile(r"^=+\s*$", re.MULTILINE)
_FIELD = re.compile(r"(?P<type>[\w/]+)(?P<bound><=\d+)?(?P<array>\[(?:<=)?\d*\])?\s+(?P<name>\w+)\b\s*(?P<rest>.*)")


class SchemaError(ValueError):
    """A definition that cannot be understood; the reader turns it into an error that names the file."""


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Args:
        name: As the definition spells it.
        dtype: NumPy code of a primitive without byte order, "string", or the name of another message.
        length: None for one value, `SEQUENCE` for a sequence, otherwise the size of a fixed array.
        is_message: Whether `dtype` names another message.
    """

    name: str
    dtype: str
    length: int | None
    is_message: bool


Definitions = dict[str, tuple[Field, ...]]


def short_name(type_name: str) -> str:
    """`sensor_msgs/Imu` of `sensor_msgs/msg/Imu`, the same message under either spelling."""
    parts = type_name.split("/")
    return f"{parts[0]}/{parts[-1]}" if len(parts) == 3 and parts[1] == "msg" else type_name


def parse_definitions(type_name: str, text: str, *, ros1: bool = False) -> Definitions:
    """The fields of a message and of every message in it, by short name.

    Args:
        type_name: The message.
        text: Its definition, and those of the messages in it.
        ros1: Whether the text is one of ROS 1: `time` is a primitive, and an empty message has no bytes.

    Raises:
        SchemaError: The text is not a message definition, or refers to a message that it does not define.
    """
    main = short_name(type_name)
    built_in = _BUILT_IN_ROS1 if ros1 else _BUILT_IN
    definitions = {name: _fields(name, body, ros1=ros1) for name, body in built_in.items()}
    first, *others = _SEPARATOR.split(text)
    definitions[main] = _fields(main, first, ros1=ros1)
    for part in others:
        heading, _, body = part.strip().partition("\n")
        if not heading.startswith("MSG:"):
            raise SchemaError(f"a part of the definition of {main} starts with {heading[:40]!r}, not with 'MSG: '")
        name = short_name(heading.removeprefix("MSG:").strip())
        definitions[name] = _fields(name, body, ros1=ros1)
    _check_references(definitions)
    return definitions


def _fields(owner: str, text: str, *, ros1: bool) -> tuple[Field, ...]:
    fields = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line:
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            raise SchemaError(f"{owner} has a line that is no field: {line[:60]!r}")
        if match["rest"].startswith("="):  # a constant
            continue
        fields.append(_field(owner, match, ros1=ros1))
    if ros1:
        return tuple(fields)
    # IDL has no empty structures: ROS 2 puts one byte in their place.
    return tuple(fields) or (Field("structure_needs_at_least_one_member", "u1", None, is_message=False),)


def _field(owner: str, match: re.Match[str], *, ros1: bool) -> Field:
    kind, array = match["type"], match["array"]
    digits = "" if array is None else array.strip("[]")
    length = None if array is None else int(digits) if digits.isdigit() else SEQUENCE
    if kind in PRIMITIVES:
        kind = "int8" if ros1 and kind == "byte" else kind  # which ROS 2 made unsigned
        return Field(match["name"], PRIMITIVES[kind], length, is_message=False)
    if kind == "wstring":
        raise SchemaError(f"{owner}.{match['name']} is a wstring, which is not supported")
    if ros1 and kind in _BUILT_IN_ROS1:
        return Field(match["name"], kind, length, is_message=True)
    if kind == "Header":
        kind = "std_msgs/Header"
    elif "/" not in kind:
        kind = f"{owner.split('/')[0]}/{kind}"
    return Field(match["name"], short_name(kind), length, is_message=True)


def _check_references(definitions: Definitions) -> None:
    for owner, fields in definitions.items():
        for field in fields:
            if field.is_message and field.dtype not in definitions:
                raise SchemaError(f"{owner}.{field.name} is a {field.dtype}, which the schema does not define")
