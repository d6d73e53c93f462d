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


def size_bytes(size: str | int, name: str) -> int:
    """Bytes of such as `"20GB"`, `"512 MiB"` or a whole number.

    Args:
        size: GB, MB, kB are powers of 1000; GiB, MiB, KiB of 1024.
        name: What the caller calls it, for the message.

    Raises:
        ArgumentError: It is no size.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", str(size), re.ASCII)
    unit = None if match is None else _UNITS.get(match[2].replace("K", "k"))
    if not isinstance(size, str) or match is None or unit is None:
        raise ArgumentError(f"{name} must be a size such as 20GB, 512MiB or 0, got {size!r}")
    return int(Fraction(match[1]) * unit)
