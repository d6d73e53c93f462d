"""Which samples lie in the window before each target: two searches, no loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robocache.align.aligned import NO_SAMPLE_NS
from robocache.policies import Window, duration_ns
from robocache.records import Int64


@dataclass(frozen=True)
class WindowPlaces:
    """The places of every target's window, oldest first, right-aligned.

    Args:
        index: [target, samples] int64, which sample; 0 where a place is not used.
        is_used: [target, samples] bool, whether a sample is there.
        is_valid: [target, samples] bool, whether it is there and the window is not older than `max_gap`.
        age_ns: [target, samples] int64, target minus sample; -1 where a place is not used.
    """

    index: Int64
    is_used: npt.NDArray[np.bool_]
    is_valid: npt.NDArray[np.bool_]
    age_ns: Int64


def window_places(times_ns: Int64, targets_ns: Int64, window: Window) -> WindowPlaces:
    """Find the samples in (target - span, target], at most `window.samples` of them, the latest.

    Args:
        times_ns: [sample] int64, ascending, at least one.
        targets_ns: [target] int64, in any order.
        window: Which span, how many.
    """
    end = np.searchsorted(times_ns, targets_ns, side="right")
    begin = np.searchsorted(times_ns, targets_ns - window.span_ns, side="right")
    index = end[:, None] + np.arange(-window.samples, 0)
    is_used = index >= begin[:, None]
    index = np.where(is_used, index, 0).astype(np.int64, copy=False)
    age_ns = np.where(is_used, targets_ns[:, None] - times_ns[index], NO_SAMPLE_NS)
    is_valid = is_used
    if window.max_gap is not None:
        max_gap = duration_ns(window.max_gap) if isinstance(window.max_gap, str) else window.max_gap
        is_valid = is_used & (age_ns[:, -1:] <= max_gap)
    return WindowPlaces(index, is_used, is_valid, age_ns)
