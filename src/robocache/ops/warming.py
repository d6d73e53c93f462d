"""Compile GPU kernels before they are needed, so that no step in the middle of an epoch waits for a compiler.

Kernels are compiled for dtypes, policies, widths and such, never for a batch, a length or a number of points; but
features of a few points are voxelized by other kernels than those of many. Nothing here knows more of what they are
compiled for: an example is run, with one row, or as it is and with few points and many.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robocache.errors import ArgumentError
from robocache.ops.backends import OPERATIONS, choose_backend
from robocache.ops.fuse_multimodal import fuse_multimodal, fuse_streams
from robocache.ops.resample_trajectories import resample_trajectories
from robocache.ops.voxelize_pointcloud import voxelize_pointcloud
from robocache.ops.voxelize_pointcloud.grid import TRACKED_SHARE, VoxelGrid
from robocache.records import Stream

_BY_ROWS = (resample_trajectories, fuse_multimodal, fuse_streams)

Example = functools.partial[Any]


@dataclass(frozen=True)
class WarmupReport:
    """What `warmup` did.

    Args:
        backends: For each operation the backend that will serve it.
        kernels: How many kernels were compiled, or found in Triton's cache on disk, that this process had not yet.
        seconds: What it took.
        reason: Why there was nothing to compile; None where there was something to run.
    """

    backends: Mapping[str, str]
    kernels: int
    seconds: float
    reason: str | None = None


def warmup(
    *examples: Example,
    device: str | torch.device | None = None,
    operations: Sequence[str] = OPERATIONS,
    widths: Sequence[int] = (512, 64, 12),
    dtypes: Sequence[torch.dtype] = (torch.bfloat16, torch.float32),
    times: Sequence[torch.dtype] = (torch.float32, torch.int64),
) -> WarmupReport:
    """Compile the GPU kernels that a training loop will launch, so that no later step pays for it.

    Give the calls that the loop will make, as `functools.partial` with tensors of its dtypes and widths: their kernels
    are then there for every batch size, every length and every number of points. Without examples, the kernels of
    usual calls are compiled: `Linear()` streams of the widths given, fused and one by one, and grids of points; that
    takes up to half a minute. Triton keeps what it compiled on disk, so that a later process only loads it. Where
    kernels do not serve an operation, on a CPU above all, nothing is run. Tensors are taken to begin at multiples of 16
    bytes, as PyTorch allocates them.

        warmup(partial(fuse_streams, streams, target_times), partial(voxelize_pointcloud, points, mode="count"))

    Args:
        examples: `functools.partial` of `resample_trajectories`, `fuse_multimodal`, `fuse_streams`,
            `voxelize_pointcloud` or a `VoxelGrid`'s `update`, which is left cleared. Data that requires a gradient is
            run as it will be.
        device: Where, without examples; None takes the GPU if there is one, else the CPU.
        operations: Which, without examples.
        widths: Columns of the streams, without examples: one stream a width, and one fuse of all.
        dtypes: Of the streams' data, without examples.
        times: Dtypes of their times, without examples.

    Returns:
        A `WarmupReport`: the backend of each operation, how many kernels were compiled, the seconds it took, and, where
        there was nothing to compile, the reason.

    Raises:
        ArgumentError: An example is no partial of an operation, or an operation has another name.
        RoboCacheError: Whatever an example itself would raise.
    """
    unknown = sorted(set(operations) - set(OPERATIONS))
    if unknown:
        raise ArgumentError(f"operations must be of {', '.join(OPERATIONS)}, got {unknown[0]!r}")
    start = time.perf_counter()
    calls = [_Call(example) for example in examples]
    if not examples:
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        calls = [_Call(usual) for usual in _usual(where, operations, widths, (dtypes, times))]
    backends = {call.operation: call.backend for call in calls}
    served = [call for call in calls if call.backend == "cuda"]
    if not served:
        names = " and ".join(sorted(set(backends.values()))) or "nothing"
        return WarmupReport(backends, 0, time.perf_counter() - start, f"there is nothing to compile for {names}")
    before = compiled_kernels()
    for call in served:
        call.run()
    return WarmupReport(backends, compiled_kernels() - before, time.perf_counter() - start)


def compiled_kernels() -> int:
    """How many variants of RoboCache's kernels Triton holds in this process."""
    count = 0
    for name, module in list(sys.modules.items()):
        if not (name.startswith("robocache.ops.") and name.rpartition(".")[2].startswith("triton_")):
            continue
        for kernel in (value for title, value in vars(module).items() if title.endswith("_kernel")):
            # By device: a tuple that begins with the variants, or in older Tritons the variants themselves.
            caches = getattr(kernel, "device_caches", None) or getattr(kernel, "cache", {})
            count += sum(len(one[0] if isinstance(one, tuple) else one) for one in caches.values())
    return count


class _Call:
    """One example: what it calls, who will serve it, and how to have all of its kernels."""

    def __init__(self, example: Example) -> None:
        if not isinstance(example, functools.partial):
            raise ArgumentError(f"examples must be functools.partial of an operation, got {type(example).__name__}")
        self._function, grid = example.func, getattr(example.func, "__self__", None)
        is_update = isinstance(grid, VoxelGrid) and example.func.__name__ == "update"
        if not is_update and example.func not in (*_BY_ROWS, voxelize_pointcloud):
            message = f"examples must be of {', '.join(OPERATIONS)}, fuse_streams or VoxelGrid.update"
            raise ArgumentError(f"{message}, got {getattr(example.func, '__name__', example.func)!r}")
        try:
            arguments = inspect.signature(example.func).bind(*example.args, **example.keywords).arguments
        except TypeError as error:
            raise ArgumentError(f"an example of {example.func.__name__} is not a whole call: {error}") from error
        self._arguments: dict[str, Any] = dict(arguments)
        self._grid: VoxelGrid | None = grid if is_update else None
        self.operation = "VoxelGrid" if is_update else example.func.__name__
        self.backend = self._find_backend()

    def run(self) -> None:
        """Launch every kernel of the call, whatever its sizes will be."""
        if self._grid is not None:
            self._run_updates(self._grid)
        elif self._function in _BY_ROWS:
            self._function(**{name: _first_row(value) for name, value in self._arguments.items()})
        else:
            tiles = importlib.import_module("robocache.ops.voxelize_pointcloud.tile_plan")  # it imports Triton
            given = {name: value for name, value in self._arguments.items() if name != "out"}
            self._function(**given)
            clouds = {name: given[name] for name in ("points", "features") if given.get(name) is not None}
            for points in (1, tiles.LEAST_POINTS):
                self._function(**given | {name: _zeros(value, points) for name, value in clouds.items()})

    def _find_backend(self) -> str:
        if self._grid is not None:
            return self._grid.backend
        tensor = next(_tensors(self._arguments), None)
        if tensor is None:
            raise ArgumentError(f"an example of {self.operation} must hold tensors, got none")
        return choose_backend(self._arguments.get("backend"), tensor.device.type)

    def _run_updates(self, grid: VoxelGrid) -> None:
        # Twice, since the second clears what the first touched; then a cloud so large that the grid is written whole.
        whole = grid.values.shape[:3].numel() // TRACKED_SHARE + 1
        for points in (1, 1, whole):
            self._function(**{name: _zeros(value, points) for name, value in self._arguments.items()})
        grid.clear()


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Stream):
        yield value.data
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)


def _first_row(value: Any) -> Any:  # noqa: ANN401  whatever an operation takes
    """The first row of every tensor in it."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or len(value) == 0:
            raise ArgumentError(f"an example needs a row at least, got a tensor of shape {tuple(value.shape)}")
        return value[:1]
    if isinstance(value, Stream):
        return replace(value, **{name: _first_row(getattr(value, name)) for name in ("data", "times", "lengths")})
    if isinstance(value, Mapping):
        return {name: _first_row(one) for name, one in value.items()}
    return [_first_row(one) for one in value] if isinstance(value, list | tuple) else value


def _zeros(like: Tensor, rows: int) -> Tensor:
    """Zeros in as many rows, which lie as far apart."""
    width, stride = like.shape[1], like.stride(0)
    is_readable = like.stride(1) == 1 and stride >= width
    return like.new_zeros(rows, stride if is_readable else width)[:, :width]


def _usual(
    device: torch.device,
    operations: Sequence[str],
    widths: Sequence[int],
    of: tuple[Sequence[torch.dtype], Sequence[torch.dtype]],
) -> Iterator[Example]:
    for dtype in of[0]:
        for times in of[1]:
            stamps = torch.arange(8, device=device).to(times)[None]
            streams = {
                str(index): Stream(torch.zeros(1, 8, width, dtype=dtype, device=device), stamps)
                for index, width in enumerate(widths)
            }
            if "fuse_multimodal" in operations and streams:
                yield functools.partial(fuse_streams, streams, stamps)
                if len(widths) == 3:
                    pairs = [part for one in streams.values() for part in (one.data, one.times)]
                    yield functools.partial(fuse_multimodal, *pairs, stamps)
            if "resample_trajectories" in operations:
                for one in streams.values():
                    yield functools.partial(resample_trajectories, one.data, one.times, stamps)
    if "voxelize_pointcloud" in operations:
        points = torch.zeros(1, 3, device=device)
        for mode in ("occupancy", "count"):
            yield functools.partial(voxelize_pointcloud, points, grid_size=(8, 8, 8), mode=mode)
