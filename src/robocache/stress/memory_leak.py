"""Each operation ten thousand times: the host and the device hold what they held before, and every result is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robocache import ops
from robocache.ops.fuse_multimodal import reference as fuse_reference
from robocache.ops.resample_trajectories import reference as resample_reference
from robocache.ops.voxelize_pointcloud import reference as voxel_reference
from robocache.policies import Linear, Slerp
from robocache.records import Stream
from robocache.stress.monitor import Monitor
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import QuietCollections, device_counters, host_counters
from robocache.stress.settings import Settings

ITERATIONS = 10_000
_WARM_UP = 100
_READINGS = 250
_GRID = (16, 16, 16)


@dataclass(frozen=True)
class Call:
    """One operation on one set of inputs, and what it must give.

    Args:
        run: Calls the operation on inputs made afresh.
        expected: By the reference.
        tolerance: Absolute and relative difference allowed; 0: equal.
    """

    run: Callable[[], Tensor]
    expected: Tensor
    tolerance: float


def repeated_operation(
    name: str,
    settings: Settings,
    lines: Lines = silent,
    *,
    iterations: int = ITERATIONS,
    after_iteration: Callable[[], object] = int,
) -> Report:
    """Call operation `name` (a key of `OPERATIONS`) `iterations` times on small inputs of changing shapes.

    The report's verdicts cover host and device counters, its failures wrong results.

    Args:
        name: Which operation.
        settings: Device and seed.
        lines: Gets one line at the end, and one for each counter without a verdict.
        iterations: How often.
        after_iteration: Called after each iteration; a test makes it leak.
    """
    calls = [OPERATIONS[name](seed, settings.device) for seed in range(settings.seed, settings.seed + 3)]
    wrong = torch.zeros((), dtype=torch.int64, device=settings.device)
    counters = (*host_counters(), *device_counters(settings.device))
    monitor = Monitor(counters, readings=_READINGS)
    pause = max(1, (iterations - _WARM_UP) // _READINGS)
    started = time.monotonic()
    with QuietCollections():
        for iteration in range(iterations):
            call = calls[iteration % len(calls)]
            wrong += _is_wrong(call.run(), call)
            after_iteration()
            if iteration >= _WARM_UP and (iteration - _WARM_UP) % pause == 0:
                monitor.read(iteration)
    seconds = time.monotonic() - started
    wrong_results = int(wrong)
    lines(f"{name}: {iterations} iterations in {seconds:.1f} s, {wrong_results} wrong results")
    report = Report(
        f"repeated {name}",
        settings.device,
        iterations=iterations,
        seconds=seconds,
        failures=(f"{wrong_results} of {iterations} results are wrong",) if wrong_results else (),
        verdicts=monitor.verdicts(),
        series=monitor.series(),
        measured={
            "microseconds_per_iteration": seconds / iterations * 1e6,
            "milliseconds_per_reading": monitor.milliseconds_per_reading,
            "reading_share": monitor.cost_share,
        },
    )
    for verdict in report.undecided:
        lines(verdict)
    return report


def _is_wrong(result: Tensor, call: Call) -> Tensor:
    """[] bool on the device; nothing waits for it."""
    if result.shape != call.expected.shape or result.dtype != call.expected.dtype:
        return torch.ones((), dtype=torch.bool, device=call.expected.device)
    if call.tolerance == 0:
        return (result != call.expected).any()
    return ~torch.isclose(result, call.expected, rtol=call.tolerance, atol=call.tolerance).all()


def _stream(generator: torch.Generator, shape: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor]:
    batch, source, dim = shape
    data = torch.randn(batch, source, dim, generator=generator)
    times = torch.rand(batch, source, generator=generator, dtype=torch.float64).sort(dim=1).values
    return data.to(device), times.to(device)


def _targets(generator: torch.Generator, device: str) -> Tensor:
    return torch.rand(2, 7, generator=generator, dtype=torch.float64).to(device)


def _resample(seed: int, device: str) -> Call:
    generator = torch.Generator().manual_seed(seed)
    data, times = _stream(generator, (2, 9 + seed % 3, 8), device)
    targets, policy = _targets(generator, device), (Linear(), Slerp(), Linear(max_gap=0.2))[seed % 3]
    expected, _ = resample_reference.resample_trajectories(data, times, targets, policy, None)
    return Call(
        lambda: ops.resample_trajectories(data.clone(), times.clone(), targets.clone(), policy=policy), expected, 1e-5
    )


def _fuse(seed: int, device: str) -> Call:
    arguments, targets, expected = _three_streams(seed, device)
    return Call(lambda: ops.fuse_multimodal(*[each.clone() for each in (*arguments, targets)]), expected, 1e-5)


def _fuse_streams(seed: int, device: str) -> Call:
    arguments, targets, expected = _three_streams(seed, device)

    def run() -> Tensor:
        names = zip(("vision", "state", "force"), arguments[::2], arguments[1::2], strict=True)
        return ops.fuse_streams(
            {name: Stream(data.clone(), times.clone()) for name, data, times in names}, targets
        ).data

    return Call(run, expected, 1e-5)


def _three_streams(seed: int, device: str) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 3 + seed % 3, 16), (2, 10, 8), (2, 20, 3))
    streams = [_stream(generator, shape, device) for shape in shapes]
    targets = _targets(generator, device)
    data, times = [list(each) for each in zip(*streams, strict=True)]
    expected, _ = fuse_reference.fuse(data, times, targets, [Linear()] * 3, [None] * 3)
    return [each for pair in streams for each in pair], targets, expected


def _voxelize(seed: int, device: str) -> Call:
    points, features = _cloud(seed, device)
    mode = ("occupancy", "count", "mean")[seed % 3]
    used = features if mode == "mean" else None
    expected = voxel_reference.voxelize_pointcloud(points, used, (0.0,) * 3, (0.1,) * 3, _GRID, mode, None, "drop")

    def run() -> Tensor:
        fresh = None if used is None else used.clone()
        return ops.voxelize_pointcloud(points.clone(), fresh, (0.0, 0.0, 0.0), 0.1, _GRID, mode)

    return Call(run, expected, 1e-5 if mode == "mean" else 0)


def _cloud(seed: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = 200 + seed % 3
    points = torch.rand(count, 3, generator=generator) * 2 - 0.2
    return points.to(device), torch.randn(count, 4, generator=generator).to(device)


OPERATIONS: Mapping[str, Callable[[int, str], Call]] = {
    "resample_trajectories": _resample,
    "fuse_multimodal": _fuse,
    "fuse_streams": _fuse_streams,
    "voxelize_pointcloud": _voxelize,
}
