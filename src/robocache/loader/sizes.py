"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

from robocache.errors import ArgumentError

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BY_NAME = {unit.lower(): factor for unit, factor in _UNITS.items()}


def parse_size(name: str, value: int | str) -> int:
    """Bytes of 1 or more, from an integer or a text such as "4GiB", "512MB" or "1.5 GB".

    Args:
        name: The argument, for the message.
        value: What the caller wrote.
    """
    size: float = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = float(match[1]) * _BY_NAME.get(match[2].lower(), 0)
    if size < 1:
        raise ArgumentError(f'{name} must be a number of bytes, or a text such as "4GiB" or "512MB", got {value!r}')
    return int(size)
