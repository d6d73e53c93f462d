"""Values around a frame, for a whole batch at once: `delta_timestamps`, on the frame grid and off it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robocache.errors import ArgumentError
from robocache.integrations.lerobot_columns import Columns
from robocache.ops import resample_trajectories
from robocache.policies import Linear, Nearest, Policy, Previous

Deltas = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Window:
    """Where the values of one feature lie, seen from a frame.

    Args:
        offsets: [delta] int64, in frames: those of the frame to take, or where values are made, the frame before.
        span: [2, delta] int64: the frames before and after each delta; both must be of the episode.
        deltas_ns: [delta] int64.
        is_on_grid: [delta] bool: within the tolerance of a frame.
        reach: How many frames before and after may be needed.
        policy: How to make values between two frames. None: each delta takes the value of one frame.
    """

    offsets: Tensor
    span: Tensor
    deltas_ns: Tensor
    is_on_grid: Tensor
    reach: tuple[int, int]
    policy: Policy | None

    def rows(self, columns: Columns, index: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """The rows that the deltas name.

        Args:
            columns: The rows there are.
            index: [batch] int64, the rows looked from.
            bounds: [2, batch] int64, where their episodes start and end.

        Returns:
            [batch, delta] int64 rows, held at the episode's edges, and [batch, delta] bool: not a row of the episode,
            or for a policy: not valid.
        """
        if self.policy is None:
            return _held(index[:, None] + self.offsets, bounds), self._is_outside(index, bounds)
        numbers, is_pad = self.values(columns, torch.arange(len(columns.times_ns)), index, bounds)
        return numbers, is_pad

    def values(self, columns: Columns, column: Tensor, index: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """The values at the deltas, [batch, delta, *shape], and which are padding, [batch, delta] bool.

        Args:
            columns: The rows there are.
            column: [row, *shape] values.
            index: [batch] int64, the rows looked from.
            bounds: [2, batch] int64, where their episodes start and end.
        """
        if self.policy is None:
            rows = _held(index[:, None] + self.offsets, bounds)
            return _taken(column, rows), self._is_outside(index, bounds)
        first, last = self.reach
        source = _held(index[:, None] + torch.arange(first, last + 1), bounds)
        exact = _held(index[:, None] + self.offsets, bounds)
        is_outside = exact != index[:, None] + self.offsets
        # A delta on the grid means that frame's own stamp: sums of rounded periods would miss it by a nanosecond.
        is_exact = self.is_on_grid & ~is_outside
        targets = torch.where(is_exact, columns.times_ns[exact], columns.times_ns[index][:, None] + self.deltas_ns)
        data = _taken(column, source)
        flat = data.reshape(*source.shape, math.prod(column.shape[1:]))
        made, valid = resample_trajectories(
            flat, columns.times_ns[source], targets, policy=self.policy, return_valid=True
        )
        return made.reshape(*targets.shape, *column.shape[1:]), ~valid

    def _is_outside(self, index: Tensor, bounds: Tensor) -> Tensor:
        before, after = index[:, None] + self.span[0], index[:, None] + self.span[1]
        return (before < bounds[0][:, None]) | (after >= bounds[1][:, None])


def windows(
    deltas: Deltas,
    policies: Mapping[str, Policy],
    features: Mapping[str, Mapping[str, object]],
    columns: Columns,
    *,
    fps: float,
    tolerance_s: float,
) -> dict[str, Window]:
    """A window for each feature of `delta_timestamps`.

    Args:
        deltas: Seconds from the frame, by feature.
        policies: For features with a delta between two frames; those missing get `Linear`, or `Nearest` where a value
            between two has no meaning (images, integers, bools).
        features: Of info.json.
        columns: The rows.
        fps: Frames a second.
        tolerance_s: How near to a frame is on it.

    Raises:
        ArgumentError: A feature that is not there, deltas that are no numbers, or a policy that does not fit.
    """
    for what, names in (("delta_timestamps", deltas), ("policies", policies)):
        unknown = [name for name in names if name not in features or name in columns.texts]
        if unknown:
            message = f"{what} names {unknown[0]!r}; features of numbers or images are {', '.join(features)}"
            raise ArgumentError(message)
    made = {}
    for name, seconds in deltas.items():
        numbers = [float(second) for second in seconds]
        if not numbers or not all(math.isfinite(number) and abs(number) < 2**31 for number in numbers):
            raise ArgumentError(f"delta_timestamps[{name!r}] must be finite seconds, one or more, got {seconds!r}")
        frames = [number * fps for number in numbers]
        on_grid = [abs(frame - round(frame)) / fps <= tolerance_s for frame in frames]
        span = [_span(frame, on) for frame, on in zip(frames, on_grid, strict=True)]
        policy = None if all(on_grid) else _policy(name, policies, columns)
        offsets = [before for before, _ in span]
        if policy in (Nearest(), Previous()):
            # Frames are evenly spaced, so the choice is the same everywhere; of two equally near, the earlier.
            is_later = [
                policy == Nearest() and frame - before > 0.5 + 1e-6
                for frame, (before, _) in zip(frames, span, strict=True)
            ]
            offsets = [after if late else before for (before, after), late in zip(span, is_later, strict=True)]
            policy = None
        made[name] = Window(
            torch.tensor(offsets),
            torch.tensor(span).T.contiguous(),
            torch.tensor([round(number * 1e9) for number in numbers]),
            torch.tensor(on_grid),
            (min(0, *offsets) - 1, max(0, *offsets) + 1),
            policy,
        )
    return made


def _span(frame: float, is_on_grid: bool) -> tuple[int, int]:  # noqa: FBT001
    """The whole frames before and after a delta; the same one twice on the grid."""
    return (round(frame),) * 2 if is_on_grid else (math.floor(frame), math.ceil(frame))


def _policy(name: str, policies: Mapping[str, Policy], columns: Columns) -> Policy:
    is_continuous = name in columns.numbers and columns.numbers[name].is_floating_point()
    policy = policies.get(name, Linear() if is_continuous else Nearest())
    if not is_continuous and not isinstance(policy, Nearest | Previous):
        message = f"policies[{name!r}] is {policy}: between two images or integers there is only Nearest or Previous"
        raise ArgumentError(message)
    if name not in columns.numbers and policy.outside != "clamp":
        raise ArgumentError(f"policies[{name!r}] is {policy}: there is no image for outside={policy.outside!r}")
    return policy


def _held(rows: Tensor, bounds: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(rows, bounds[0][:, None]), bounds[1][:, None] - 1)


def _taken(column: Tensor, rows: Tensor) -> Tensor:
    return column.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *column.shape[1:])
