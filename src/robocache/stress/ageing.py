"""The last calls are as quick as the first: what slows down by a little with each call would stand still in a day."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from robocache import ops
from robocache.stress.report import Lines, Report, silent
from robocache.stress.series import Floats, series_of
from robocache.stress.settings import Settings
from robocache.stress.statistics import is_settling, largest_step, theil_sen

SECONDS = 6.0
LEAST_SLOWDOWN = 0.02  # over the run: below it, a processor's own moods look the same
_CALLS = 50  # between two looks at the clock
_LEAST_ROUNDS = 1_200  # however busy the machine is
_WARM_UP = 0.1
_WINDOWS = 24
_SIGNIFICANCE = 0.01


def ageing(settings: Settings, lines: Lines = silent, *, seconds: float = SECONDS) -> Report:
    """Tiny calls for `seconds`, in turn with as many of a plain PyTorch operation, both in CPU time of this thread.

    A processor that slows down slows down both; their ratio shows what RoboCache does. A failure of the report is a
    ratio that rises steadily, by 2 % or more over the run even at the low end of the 99 % confidence interval.
    """
    call, control = _calls(settings.device)
    settle = torch.cuda.synchronize if torch.device(settings.device).type == "cuda" else _nothing
    started = time.monotonic()
    ratios: list[float] = []
    rounds: list[float] = []
    _timed(call, settle), _timed(control, settle)
    while time.monotonic() - started < seconds or len(ratios) < _LEAST_ROUNDS:
        ratios.append(_timed(call, settle) / _timed(control, settle))
        rounds.append(time.monotonic() - started)
    calls = np.arange(len(ratios), dtype=np.float64) * _CALLS
    least, likely = _slowdown(calls, np.array(ratios))
    lines(f"{len(ratios) * _CALLS} calls: {likely:+.2%} CPU time over the run, at least {least:+.2%}")
    failures: tuple[str, ...] = ()
    if least > LEAST_SLOWDOWN:
        failures = (f"calls take at least {100 * least:.1f} % more CPU time at the end than at the start",)
    return Report(
        "ageing",
        settings.device,
        iterations=len(ratios) * _CALLS,
        seconds=time.monotonic() - started,
        failures=failures,
        measured={"slowdown": likely, "least_slowdown": least, "ratio_to_control": float(np.median(ratios))},
        series=(series_of("cpu_time_ratio", calls, np.array(rounds), np.array(ratios)),),
    )


def _slowdown(calls: Floats, ratios: Floats) -> tuple[float, float]:
    """Over the run, as a share of the level: the least that is sure (0: nothing is), and the most likely.

    Of medians: a ratio's noise has two sides, so that the lowest of a window says nothing.
    """
    windows = np.array_split(np.arange(int(_WARM_UP * len(calls)), len(calls)), _WINDOWS)
    times = np.array([float(np.median(calls[window])) for window in windows])
    levels = np.array([float(np.median(ratios[window])) for window in windows])
    trend = theil_sen(times, levels, is_correlated=True)
    span = float(calls[-1] - calls[0]) / float(np.median(levels))
    is_sure = trend.p_value < _SIGNIFICANCE and not largest_step(times, levels) and not is_settling(times, levels)
    return (trend.lower * span if is_sure else 0.0), trend.slope * span


def _nothing() -> None:
    pass


def _timed(call: Callable[[], object], settle: Callable[[], object]) -> int:
    settle()  # before: where a GPU's queue is full, a call waits for it, and that counts as CPU time
    before = time.thread_time_ns()
    for _ in range(_CALLS):
        call()
    return time.thread_time_ns() - before


def _calls(device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    data, times = torch.randn(1, 8, 4, device=device), torch.arange(8.0, device=device)[None]
    targets = torch.tensor([[0.5, 3.25]], device=device)

    repeats = 1 if torch.device(device).type == "cuda" else 4  # so that it takes about as long as the call

    def control() -> None:
        for _ in range(repeats):
            torch.lerp(data, data, 0.5).sum(dim=1)

    return lambda: ops.resample_trajectories(data, times, targets), control
