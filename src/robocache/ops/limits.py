"""What a policy means for the times at hand: the gap limit in their dtype, and the numbers a kernel takes."""

from __future__ import annotations

import math
import struct

import torch

from robocache.errors import ArgumentError
from robocache.policies import Angle, Linear, Nearest, Policy, Previous, Slerp, duration_ns

LINEAR, NEAREST, PREVIOUS, SLERP, ANGLE = range(5)
CLAMP, NAN, EXTRAPOLATE = range(3)
OUTSIDE = {"clamp": CLAMP, "nan": NAN, "extrapolate": EXTRAPOLATE}
KINDS: dict[type[Policy], int] = {
    Linear: LINEAR,
    Nearest: NEAREST,
    Previous: PREVIOUS,
    Slerp: SLERP,
    Angle: ANGLE,
}
_OUTSIDE_NAMES = tuple(OUTSIDE)
_NUMBERS_PER_POLICY = 4
RUNTIME_OFFSET = 1 << 38


def gap_limit(policy: Policy, times_dtype: torch.dtype) -> float | int | None:
    """The policy's `max_gap` as a number of the times' own kind; None where there is no limit.

    Raises:
        ArgumentError: A string such as "50ms" with times that are not int64 nanoseconds.
    """
    limit = policy.max_gap
    if limit is None:
        return None
    if isinstance(limit, str):
        if times_dtype != torch.int64:
            name = str(times_dtype).removeprefix("torch.")
            message = f"max_gap={limit!r} needs int64 nanosecond times, but the times are {name}; write it as a number"
            raise ArgumentError(message)
        return duration_ns(limit)
    if times_dtype != torch.int64:
        return limit
    # Differences of integers are integers: half a tick more admits nothing more.
    return 2**63 - 1 if limit >= 2**63 else math.floor(limit)


def number_bits(number: float, dtype: torch.dtype) -> int:
    """The bits of `number` in `dtype`, as the integer a kernel is passed.

    Triton rounds every Python float to float32; a float64 or int64 limit must arrive whole.
    """
    if dtype == torch.int64:
        return int(number)
    if dtype == torch.float64:
        return int(struct.unpack("<q", struct.pack("<d", number))[0])
    single = torch.tensor(number, dtype=torch.float32)  # rounds to nearest; beyond the range becomes inf
    return int(single.view(torch.int32).item())


def runtime_number(number: int) -> int:
    """An integer in the form that a kernel takes inside a tuple; `whole` in triton_search undoes it.

    Triton compiles anew for every tuple whose integers are 1, or multiples of 16, in other places. Shifted beyond
    32 bits and made odd, all integers look the same to it.
    """
    return ((number + RUNTIME_OFFSET) << 2) | 3


def runtime_halves(bits: int) -> tuple[int, int]:
    """All 64 bits of a number, low half first, as two runtime numbers."""
    return runtime_number(bits & 0xFFFFFFFF), runtime_number(bits >> 32)


def encode_policy(policy: Policy) -> list[float]:
    """A policy as the numbers that a `torch.library` schema can carry; see `decode_policy`."""
    limit = policy.max_gap
    gap = -1.0 if limit is None else float(duration_ns(limit) if isinstance(limit, str) else limit)
    period = policy.period if isinstance(policy, Angle) else 0.0
    return [float(KINDS[type(policy)]), float(OUTSIDE[policy.outside]), gap, period]


def decode_policy(numbers: list[float]) -> Policy:
    """The inverse of `encode_policy` (but for the order of a Slerp, which changes no value)."""
    kind, outside, gap, period = numbers
    policy = tuple(KINDS)[int(kind)]
    limit = None if gap < 0 else gap
    if policy is Angle:
        return Angle(max_gap=limit, outside=_OUTSIDE_NAMES[int(outside)], period=period)  # type: ignore[arg-type]
    return policy(max_gap=limit, outside=_OUTSIDE_NAMES[int(outside)])  # type: ignore[arg-type]


def encode_policies(policies: list[Policy]) -> list[float]:
    """All policies of a fuse, one after another."""
    return [number for policy in policies for number in encode_policy(policy)]


def decode_policies(numbers: list[float]) -> list[Policy]:
    """The inverse of `encode_policies`."""
    step = _NUMBERS_PER_POLICY
    return [decode_policy(list(numbers[at : at + step])) for at in range(0, len(numbers), step)]
