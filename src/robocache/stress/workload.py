"""The iteration that every scenario repeats: a fuse of three sensors and an occupancy grid, both verified.

An iteration makes its inputs afresh (new memory, known content), runs both operations and compares both results with
what the reference says about these inputs: the grid bit for bit, the fuse to one rounding of bfloat16. A result is
compared only after the following iteration has run, so that an operation which hands out memory it still writes to is
found too. On a GPU the comparison adds up on the device; nothing waits until `wrong_elements` is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robocache import ops
from robocache.ops.fuse_multimodal import reference as fuse_reference
from robocache.ops.voxelize_pointcloud import reference as voxel_reference
from robocache.policies import Linear

STREAMS = ((30, 512), (100, 64), (200, 12))  # (samples, columns) of vision, state and force, each at its own rate
TARGETS = 50
POINTS = 100_000
GRID = (128, 128, 128)
GRID_MIN = (-10.0, -10.0, -10.0)
VOXEL_SIZE = 0.1
SPAN_S = 1.0
INPUT_SETS = 3  # taken in turn, one for each dtype of times
_EPOCH_S = 1_760_000_000
_TIMES = (torch.int64, torch.float64, torch.float32)  # one after the other over the input sets


@dataclass(frozen=True)
class InputSet:
    """Inputs of one iteration and what must come out.

    Args:
        streams: data [batch, source, dim] bfloat16 and times [batch, source] of each stream, and the targets' times
            [batch, target] last: the positional arguments of `fuse_multimodal`.
        points: [point, 3] float32, some outside the grid, some on the planes between voxels, some NaN or infinite.
        lowest: [batch, target, sum of dims] bfloat16: the least that a right fuse may give.
        highest: The most.
        grid: [x, y, z] int32.
    """

    streams: tuple[Tensor, ...]
    points: Tensor
    lowest: Tensor
    highest: Tensor
    grid: Tensor

    @property
    def elements(self) -> int:
        """How many elements both results have together."""
        return self.lowest.numel() + self.grid.numel()

    def to(self, device: str | torch.device) -> InputSet:
        """The same on another device."""
        return InputSet(
            streams=tuple(each.to(device) for each in self.streams),
            points=self.points.to(device),
            lowest=self.lowest.to(device),
            highest=self.highest.to(device),
            grid=self.grid.to(device),
        )

    def fresh(self) -> tuple[list[Tensor], Tensor]:
        """The inputs in new memory."""
        return [stream.clone() for stream in self.streams], self.points.clone()


def make_input_set(seed: int, *, batch: int, device: str | torch.device = "cpu") -> InputSet:
    """Random sensors of one second and a random cloud; the dtype of the times follows from the seed.

    Args:
        seed: Different seeds give different inputs.
        batch: Episodes in the fuse.
        device: Where the inputs and the expectations lie. The reference runs on the host.
    """
    generator = torch.Generator().manual_seed(seed)
    times_dtype = _TIMES[seed % len(_TIMES)]
    data, times = [], []
    for source, dim in STREAMS:
        data.append(torch.randn(batch, source, dim, generator=generator).to(torch.bfloat16))
        jittered = torch.rand(batch, source, generator=generator, dtype=torch.float64).sort(dim=1).values
        times.append(_as_times(jittered * SPAN_S, times_dtype))
    targets = _as_times(torch.rand(batch, TARGETS, generator=generator, dtype=torch.float64) * SPAN_S, times_dtype)
    points = torch.rand(POINTS, 3, generator=generator) * 15 - 11  # the grid ends at 2.8
    points[:100] = torch.nan
    points[100:200, 1] = torch.inf
    points[200:20_000] = (points[200:20_000] / VOXEL_SIZE).round() * VOXEL_SIZE  # on the planes between voxels
    lowest, highest = _bounds(data, times, targets)
    grid = voxel_reference.voxelize_pointcloud(
        points, None, GRID_MIN, (VOXEL_SIZE,) * 3, GRID, "occupancy", None, "drop"
    )
    pairs = [each for pair in zip(data, times, strict=True) for each in pair]
    return InputSet((*pairs, targets), points, lowest, highest, grid).to(device)


def infer(streams: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
    """What the seed document calls inference: fused [batch, target, 588] bfloat16 and grid [128, 128, 128] int32."""
    fused = ops.fuse_multimodal(*streams)
    grid = ops.voxelize_pointcloud(points, grid_min=GRID_MIN, voxel_size=VOXEL_SIZE, grid_size=GRID, mode="occupancy")
    return fused, grid


class Workload:
    """Iterations over a few input sets, each result verified.

    Args:
        batch: Episodes in the fuse.
        device: Where to run.
        seed: Two workloads with different seeds have different inputs.
        is_bit_exact: After the operation's own first result has been verified, every later one must be the same to the
            bit. For a device on which the fuse is deterministic; else it may differ by one rounding.
        is_alone: No other thread of the process uses PyTorch meanwhile. Inputs are then made and results compared by
            one thread: PyTorch's own spin while they wait for each other, and on a busy machine an iteration takes
            five to ten times as long for it. The operations keep their threads.
    """

    def __init__(
        self,
        *,
        batch: int = 4,
        device: str | torch.device = "cpu",
        seed: int = 0,
        is_bit_exact: bool = False,
        is_alone: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self._is_alone = is_alone and self.device.type == "cpu"
        self._sets = [
            make_input_set(seed * INPUT_SETS + index, batch=batch, device=device) for index in range(INPUT_SETS)
        ]
        if is_bit_exact:
            self._sets = [_narrowed(inputs) for inputs in self._sets]
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._compared = 0
        self._held: tuple[Tensor, Tensor, InputSet] | None = None

    def run(self, iteration: int) -> None:
        """One iteration; the result of the one before it is verified."""
        inputs = self._sets[iteration % len(self._sets)]
        with self._one_thread():
            fresh = inputs.fresh()
        fused, grid = infer(*fresh)
        del fresh  # before the comparison makes memory of its own
        with self._one_thread():
            self._verify_held()
        self._held = (fused, grid, inputs)

    def wrong_elements(self) -> int:
        """How many elements of all results so far are not what they must be; waits for the device."""
        self._verify_held()
        return self._compared - int(self._right)

    @contextlib.contextmanager
    def _one_thread(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        if self._is_alone:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if self._is_alone:
                torch.set_num_threads(threads)

    def _verify_held(self) -> None:
        if self._held is not None:
            fused, grid, inputs = self._held
            self._held = None
            self._right += right_elements(fused, grid, inputs)
            self._compared += inputs.elements


def right_elements(fused: Tensor, grid: Tensor, inputs: InputSet) -> Tensor:
    """[] int64 on the device: how many of the `inputs.elements` elements of a result are right."""
    if _kind(fused) != _kind(inputs.lowest) or _kind(grid) != _kind(inputs.grid):
        return inputs.grid.new_zeros((), dtype=torch.int64)
    # Clamping into the bounds changes nothing that is right; a NaN is equal to nothing.
    right = (torch.clamp(fused, inputs.lowest, inputs.highest) == fused).sum()
    return right + (grid == inputs.grid).sum()


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


def _narrowed(inputs: InputSet) -> InputSet:
    """With the operation's own result as the only right one, if that is right."""
    fused, grid = infer(*inputs.fresh())
    if int(right_elements(fused, grid, inputs)) < inputs.elements:
        return inputs  # the run then finds the same and says so
    kept = fused.clone()
    return replace(inputs, lowest=kept, highest=kept)


def _as_times(seconds: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == torch.int64:
        return (seconds * 1e9).round().to(torch.int64) + _EPOCH_S * 1_000_000_000
    return (seconds + _EPOCH_S if dtype == torch.float64 else seconds).to(dtype)


def _bounds(data: list[Tensor], times: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
    """The bfloat16 numbers that arithmetic in float32 and one rounding can end at: mostly one, else two neighbours."""
    exact, _ = fuse_reference.fuse(
        [each.double() for each in data], times, targets, [Linear()] * len(data), [None] * len(data)
    )
    slack = 4 * torch.finfo(torch.float32).eps * max(float(each.abs().max()) for each in data)
    return (exact - slack).to(torch.bfloat16), (exact + slack).to(torch.bfloat16)
