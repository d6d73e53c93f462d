"""Invalid input in the middle of good: each kind gets its own exact error, and the next result is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robocache import ops
from robocache.errors import ArgumentError, DTypeError, RoboCacheError, ShapeError
from robocache.policies import Linear, Slerp
from robocache.stress.monitor import Monitor
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import QuietCollections, device_counters, host_counters
from robocache.stress.settings import Settings
from robocache.stress.workload import InputSet, infer, make_input_set, right_elements

ITERATIONS = 1_000
INVALID_EVERY = 10  # 10 %
_WARM_UP = 100
_ITERATIONS_PER_READING = 4


@dataclass(frozen=True)
class InvalidCall:
    """One kind of invalid input and the error it must raise.

    Args:
        call: Makes the call from good inputs (fuse arguments, points).
        error: The exact type.
        message: The exact text.
    """

    call: Callable[[list[Tensor], Tensor], object]
    error: type[RoboCacheError]
    message: str


def invalid_calls(batch: int) -> Mapping[str, InvalidCall]:
    """Every kind that the scenario tries, by name."""
    wrong = batch + 1
    return {
        "rank": InvalidCall(
            lambda streams, _: _fuse(streams, 0, streams[0][0]),
            ShapeError,
            "stream1_data must be [batch, source, dim], got shape (30, 512)",
        ),
        "source_count": InvalidCall(
            lambda streams, _: _fuse(streams, 1, streams[1][:, 1:]),
            ShapeError,
            "stream1_times has source=29, but stream1_data has source=30",
        ),
        "batch_count": InvalidCall(
            lambda streams, _: _fuse(streams, -1, streams[-1].repeat(2, 1)[:wrong]),
            ShapeError,
            f"target_times has batch={wrong}, but stream1_data has batch={batch}",
        ),
        "no_samples": InvalidCall(
            lambda streams, _: ops.resample_trajectories(streams[0][:, :0], streams[1][:, :0], streams[-1]),
            ShapeError,
            "source_data must hold at least one sample, got source=0; lengths says which rows are empty",
        ),
        "data_dtypes": InvalidCall(
            lambda streams, _: _fuse(streams, 2, streams[2].float()),
            DTypeError,
            "stream2_data is float32, but stream1_data is bfloat16; convert one of them",
        ),
        "times_dtype": InvalidCall(
            lambda streams, _: ops.resample_trajectories(streams[0], streams[1].to(torch.int32), streams[-1]),
            DTypeError,
            "source_times is int32, but must be one of float32, float64, int64",
        ),
        "integers_interpolated": InvalidCall(
            lambda streams, _: ops.resample_trajectories(streams[0].to(torch.int32), streams[1], streams[-1]),
            DTypeError,
            "source_data is int32, but Linear needs floating data; use Nearest or Previous",
        ),
        "quaternion_width": InvalidCall(
            lambda streams, _: ops.resample_trajectories(streams[0][..., :7], streams[1], streams[-1], policy=Slerp()),
            ShapeError,
            "Slerp needs dim a multiple of 4 (quaternions), but source_data has dim=7",
        ),
        "policy_count": InvalidCall(
            lambda streams, _: ops.fuse_multimodal(*streams, policies=[Linear(), Linear()]),
            ArgumentError,
            "policies must hold one entry for each of the 3 streams, got 2",
        ),
        "not_a_tensor": InvalidCall(
            lambda streams, _: ops.resample_trajectories(None, streams[1], streams[-1]),  # type: ignore[call-overload]
            ArgumentError,
            "source_data must be a torch.Tensor, got NoneType",
        ),
        "point_width": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points[:, :2]),
            ShapeError,
            "points must be [point, 3], got shape (100000, 2)",
        ),
        "point_dtype": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points.to(torch.int32)),
            DTypeError,
            "points is int32, but must be one of bfloat16, float16, float32, float64",
        ),
        "voxel_size": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points, voxel_size=0.0),
            ArgumentError,
            "voxel_size must be greater than 0, got 0.0",
        ),
        "grid_size": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points, grid_size=(128, 0, 128)),
            ArgumentError,
            "grid_size must be at least 1 along each axis, got (128, 0, 128)",
        ),
        "mode": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points, mode="median"),
            ArgumentError,
            "mode must be one of occupancy, count, mean, max, min, sum, got 'median'",
        ),
        "features_missing": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points, mode="mean"),
            ArgumentError,
            "mode='mean' needs features [point, feature], got None",
        ),
        "features_count": InvalidCall(
            lambda _, points: ops.voxelize_pointcloud(points, points[1:], mode="max"),
            ShapeError,
            "features has point=99999, but points has point=100000",
        ),
    }


def exceptions(
    settings: Settings,
    lines: Lines = silent,
    *,
    iterations: int = ITERATIONS,
    heartbeat: Callable[[], object] = int,
) -> Report:
    """`iterations`, every tenth invalid, the kinds in turn; after each invalid call a good one is verified at once.

    A failure of the report is an invalid call that raises nothing, another type or another text, and a wrong result.
    """
    run = _Run(settings)
    monitor = Monitor((*host_counters(), *device_counters(settings.device)), readings=iterations)
    started = time.monotonic()
    with QuietCollections():
        for iteration in range(iterations):
            if iteration % INVALID_EVERY == INVALID_EVERY - 1:
                run.try_invalid(iteration // INVALID_EVERY, iteration)
            run.verify(iteration)
            heartbeat()
            if iteration >= _WARM_UP and iteration % _ITERATIONS_PER_READING == 0:
                monitor.read(iteration)
    seconds = time.monotonic() - started
    lines(f"{iterations} iterations, {run.invalid} invalid of {len(run.tried)} kinds, {len(run.failures)} failures")
    report = Report(
        "exceptions",
        settings.device,
        iterations=iterations,
        seconds=seconds,
        failures=tuple(run.failures),
        verdicts=monitor.verdicts(),
        series=monitor.series(),
        measured={"invalid": run.invalid, "kinds": len(run.tried), "canaries": iterations},
    )
    for verdict in report.undecided:
        lines(verdict)
    return report


def _fuse(streams: list[Tensor], at: int, other: Tensor) -> Tensor:
    """A fuse with one argument exchanged."""
    arguments = [*streams]
    arguments[at] = other
    return ops.fuse_multimodal(*arguments)


class _Run:
    def __init__(self, settings: Settings) -> None:
        self._inputs: list[InputSet] = [
            make_input_set(settings.seed + index, batch=settings.batch_size, device=settings.device)
            for index in range(3)
        ]
        self._invalid_calls = list(invalid_calls(settings.batch_size).items())
        self.failures: list[str] = []
        self.tried: set[str] = set()
        self.invalid = 0

    def try_invalid(self, turn: int, iteration: int) -> None:
        """One invalid call; what it raises must be exactly what the table says."""
        name, invalid = self._invalid_calls[turn % len(self._invalid_calls)]
        self.tried.add(name)
        self.invalid += 1
        streams, points = self._inputs[turn % len(self._inputs)].fresh()
        try:
            invalid.call(streams, points)
        except RoboCacheError as error:
            if type(error) is not invalid.error or str(error) != invalid.message:
                wanted = f"{invalid.error.__name__}: {invalid.message}"
                self.failures.append(
                    f"iteration {iteration}, {name}: raised {type(error).__name__}: {error}, not {wanted}"
                )
        else:
            self.failures.append(f"iteration {iteration}, {name}: nothing was raised")

    def verify(self, iteration: int) -> None:
        """One good call, verified before anything else happens."""
        inputs = self._inputs[iteration % len(self._inputs)]
        streams, points = inputs.fresh()
        wrong = inputs.elements - int(right_elements(*infer(streams, points), inputs))
        if wrong:
            self.failures.append(f"iteration {iteration}: {wrong} elements are wrong")
