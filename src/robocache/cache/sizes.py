"""Sizes as people write them."""

from __future__ import annotations

import re
from fractions import Fraction

from robocache.errors import ArgumentError

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate(("k", "M", "G", "T"), 1)
}


def size_bytes(size: str | int, name: str, *, at_least: int = 1) -> int:
    """Bytes of such as `"20GB"`, `"512 MiB"` or a whole number.

    Args:
        size: GB, MB, kB are powers of 1000; GiB, MiB, KiB of 1024.
        name: What the caller calls it, for the message.
        at_least: 1, or 0 where nothing is a size too.

    Raises:
        ArgumentError: It is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= at_least:
        return size
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", str(size), re.ASCII)
    unit = None if match is None else _UNITS.get(match[2].replace("K", "k"))
    found = -1 if not isinstance(size, str) or match is None or unit is None else int(Fraction(match[1]) * unit)
    if found < at_least:
        least = "512MiB or 0" if at_least == 0 else "512MiB, 1 byte or more"
        raise ArgumentError(f"{name} must be a size such as 20GB, {least}, got {size!r}")
    return found
