"""An alignment as JSON: the same for two that mean the same, another one for any that could give other numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

from robocache.align.spec import Rate
from robocache.errors import ArgumentError
from robocache.policies import duration_ns

_DURATIONS = ("latency", "max_gap")


def described(value: object) -> object:
    """A description such as an `Align`, as JSON can say it.

    Every field of every dataclass counts, so that a new one is never forgotten; 50 Hz is 50.0 Hz, and "50ms" is
    50 000 000 ns. Mappings keep their order: it is the order of the columns.

    Args:
        value: The description, or a part of it.

    Raises:
        ArgumentError: A part that JSON has no words for.
    """
    if isinstance(value, Rate):
        return {"kind": "Rate", "hz": str(value.exact_hz)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _field(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return [[str(key), described(item)] for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, Fraction):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArgumentError(f"an alignment that is to be cached must be made of numbers and texts, but it holds {value!r}")


def _field(name: str, value: object) -> object:
    return duration_ns(value) if name in _DURATIONS and isinstance(value, str) else described(value)
