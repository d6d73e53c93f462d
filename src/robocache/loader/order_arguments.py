"""What a sample order can be made of; anything else is refused by the name its caller knows."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import SupportsFloat

import numpy as np

from robocache.errors import ArgumentError
from robocache.loader.mixture import largest_remainder_counts

MAX_SAMPLES = 2**48


def checked_integer(name: str, value: object, *, at_least: int | None = 0) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or (at_least is not None and number < at_least):
        wanted = "an integer" if at_least is None else f"an integer of {at_least} or more"
        raise ArgumentError(f"{name} must be {wanted}, got {value!r}")
    return number


def checked_switch(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):  # a text would be true, whatever it says
        raise ArgumentError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def checked_lengths(lengths: int | Sequence[int]) -> list[int]:
    given = list(lengths) if isinstance(lengths, Sequence | np.ndarray) else [lengths]
    checked = [checked_integer("lengths", length) for length in given]
    if not 1 <= sum(checked) <= MAX_SAMPLES:
        raise ArgumentError(f"lengths must sum to 1 to 2**48 samples, got {sum(checked)}")
    return checked


def checked_counts(weights: Sequence[SupportsFloat] | None, lengths: list[int]) -> list[int] | None:
    """How many samples of an epoch each dataset gives."""
    if weights is None:
        return None
    try:
        numbers = [float(weight) for weight in weights]
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentError(f"weights must be numbers, one for each dataset, got {weights!r}") from error
    if len(numbers) != len(lengths):
        raise ArgumentError(f"weights must be one for each of {len(lengths)} lengths, got {len(numbers)}")
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or not any(numbers):
        raise ArgumentError(f"weights must be finite, 0 or more, and not all 0, got {weights!r}")
    counts = largest_remainder_counts([Fraction(number) for number in numbers], sum(lengths))
    for place, (number, length, count) in enumerate(zip(numbers, lengths, counts, strict=True)):
        if number > 0 and length == 0:
            raise ArgumentError(f"weights[{place}] is {number}, but lengths[{place}] is 0")
        if number > 0 and count == 0:
            raise ArgumentError(f"weights[{place}] of {number} gives none of the {sum(lengths)} samples of an epoch")
    return counts
