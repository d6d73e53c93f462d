"""Operations that give wrong results, sometimes, or under conditions that only a stress test meets."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from robocache import ops
from robocache.errors import ArgumentError
from robocache.testing.faults.catalogue import ON_A_GPU, fault, wrapped

Operation = Callable[..., Any]
_RARE = 10_000
_WRONG_ELEMENTS = r"\d+ elements (?:of the results )?are wrong"


@fault(
    "shared_scratch_buffer",
    "two threads share the buffer in which results are made",
    scenario="concurrent-inference",
    reason=rf"thread \d: {_WRONG_ELEMENTS}",
)
def shared_scratch_buffer(_: str) -> Iterator[None]:
    """A result passes through a variable of the module."""
    shared: list[Tensor] = [torch.empty(0)]

    def around(fuse: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        shared[0] = fuse(*args, **kwargs)
        threading.Event().wait(0.002)  # as long as a larger call would work on it
        return shared[0]

    with wrapped(ops, "fuse_multimodal", around):
        yield


@fault(
    "aliased_outputs",
    "every call returns the same memory, and the next one overwrites it",
    scenario="burn-in",
    reason=_WRONG_ELEMENTS,
)
def aliased_outputs(_: str) -> Iterator[None]:
    """Right when it returns."""
    kept: list[Tensor] = []

    def around(voxelize: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        result: Tensor = voxelize(*args, **kwargs)
        if not kept or kept[0].shape != result.shape:
            kept[:] = [result.clone()]
        return kept[0].copy_(result)

    with wrapped(ops, "voxelize_pointcloud", around):
        yield


@fault(
    "state_corrupted_after_invalid_input",
    "the first good call after a refused one loses a voxel",
    scenario="exceptions",
    reason=r"iteration \d*9: 1 elements are wrong",
)
def state_corrupted_after_invalid_input(_: str) -> Iterator[None]:
    """Whatever was refused."""
    refused: list[bool] = []

    def fuse(original: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return original(*args, **kwargs)
        except ArgumentError:
            refused.append(True)
            raise

    def voxelize(original: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        grid: Tensor = original(*args, **kwargs)
        return _one_voxel_less(grid) if refused and refused.pop() else grid

    with wrapped(ops, "fuse_multimodal", fuse), wrapped(ops, "voxelize_pointcloud", voxelize):
        yield


@fault(
    "stale_cache_after_a_shape_change",
    "the plan of the first cloud serves clouds with more points",
    scenario="repeated-operation",
    reason=r"\d+ of \d+ results are wrong",
)
def stale_cache_after_a_shape_change(_: str) -> Iterator[None]:
    """Points beyond the first cloud's number are not looked at."""
    first: list[int] = []

    def around(voxelize: Operation, points: Tensor, features: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not first:
            first.append(len(points))
        return voxelize(points[: first[0]], None if features is None else features[: first[0]], *args, **kwargs)

    with wrapped(ops, "voxelize_pointcloud", around):
        yield


@fault(
    "errors_swallowed",
    "an invalid call gives zeros instead of an error",
    scenario="exceptions",
    reason="nothing was raised",
)
def errors_swallowed(_: str) -> Iterator[None]:
    """A broad `except` in front of everything."""

    def around(original: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return original(*args, **kwargs)
        except ArgumentError:
            return torch.zeros(1)

    with wrapped(ops, "voxelize_pointcloud", around), wrapped(ops, "fuse_multimodal", around):
        yield


@fault(
    "wrong_in_1_of_10000",
    "one call in ten thousand loses a voxel, without a word",
    scenario="many-calls",
    reason=r"[1-9]\d* of \d+ results are wrong",
)
def wrong_in_1_of_10000(_: str) -> Iterator[None]:
    """The first after half as many calls."""
    calls = itertools.count(_RARE // 2)

    def around(voxelize: Operation, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        grid: Tensor = voxelize(*args, **kwargs)
        return grid if next(calls) % _RARE else _one_voxel_less(grid)

    with wrapped(ops, "voxelize_pointcloud", around):
        yield


@fault(
    "missing_stream_dependency",
    "an operation launches on a stream of its own and does not wait for the caller's",
    scenario="multistream-inference",
    reason=rf"stream \d: {_WRONG_ELEMENTS}",
    devices=ON_A_GPU,
)
def missing_stream_dependency(device: str) -> Iterator[None]:
    """Its inputs may not have been written yet."""
    own = torch.cuda.Stream(torch.device(device))  # type: ignore[no-untyped-call]

    def around(voxelize: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with torch.cuda.stream(own):
            return voxelize(*args, **kwargs)

    with wrapped(ops, "voxelize_pointcloud", around):
        yield


@fault(
    "out_of_memory_not_recovered",
    "an operation that ran out of memory keeps what it had allocated until then",
    scenario="repeated-allocation",
    reason=r"bytes are kept after \d+ out-of-memory errors",
)
def out_of_memory_not_recovered(device: str) -> Iterator[None]:
    """A megabyte at each error."""
    kept: list[Tensor] = []

    def around(voxelize: Operation, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        try:
            return voxelize(*args, **kwargs)
        except (RuntimeError, MemoryError):
            kept.append(torch.zeros(1_000_000, dtype=torch.uint8, device=device))
            raise

    with wrapped(ops, "voxelize_pointcloud", around):
        yield


def _one_voxel_less(grid: Tensor) -> Tensor:
    flat = grid.view(-1)
    flat[flat.argmax()] -= 1
    return grid
