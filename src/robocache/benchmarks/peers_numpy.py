"""Peers in NumPy and SciPy, on the CPU: float32 copies of the inputs, made beforehand."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.benchmarks.candidates import Absent, Candidate
from robocache.benchmarks.clock_problem import ClockProblem
from robocache.benchmarks.voxel_problem import VoxelProblem
from robocache.benchmarks.workloads import Problem

Numbers = npt.NDArray[Any]
LIMIT_BYTES = 110_000_000  # beyond, a loop over rows takes many seconds a call
HISTOGRAM_POINTS = 3_000_000


def numpy_peers(problem: Problem) -> list[Candidate | Absent]:
    """What NumPy and SciPy offer for the problem.

    Args:
        problem: The inputs.
    """
    names = ("numpy", "scipy") if isinstance(problem, ClockProblem) else ("numpy", "numpy.histogramdd")
    if problem.output_bytes() > LIMIT_BYTES:
        return [Absent(name, f"the result has more than {LIMIT_BYTES} bytes", "skipped") for name in names]
    if isinstance(problem, VoxelProblem):
        return _voxel_peers(problem)
    streams = [(_array(data), _array(times)) for data, times in zip(problem.data, problem.times, strict=True)]
    targets, dtype = _array(problem.targets), problem.data[0].dtype
    peers: list[Candidate | Absent] = [_host("numpy", partial(_interp, streams, targets), dtype)]
    if find_spec("scipy") is None:
        return [*peers, Absent("scipy", "not installed: pip install scipy")]
    interp1d = importlib.import_module("scipy.interpolate").interp1d
    return [*peers, _host("scipy", partial(_interp1d, interp1d, streams, targets), dtype)]


def _interp(streams: list[tuple[Numbers, Numbers]], targets: Numbers) -> Numbers:
    out = np.empty((*targets.shape, sum(data.shape[2] for data, _ in streams)), np.float32)
    for row, wanted in enumerate(targets):
        column = 0
        for data, times in streams:
            stamps = times[row]
            for values in data[row].T:
                out[row, :, column] = np.interp(wanted, stamps, values)
                column += 1
    return out


def _interp1d(interp1d: Any, streams: list[tuple[Numbers, Numbers]], targets: Numbers) -> Numbers:  # noqa: ANN401
    out = np.empty((*targets.shape, sum(data.shape[2] for data, _ in streams)), np.float32)
    for row, wanted in enumerate(targets):
        column = 0
        for data, times in streams:
            values = data[row]
            edges = (values[0], values[-1])
            between = interp1d(times[row], values, axis=0, bounds_error=False, fill_value=edges, assume_sorted=True)
            out[row, :, column : column + values.shape[1]] = between(wanted)
            column += values.shape[1]
    return out


def _voxel_peers(problem: VoxelProblem) -> list[Candidate | Absent]:
    points = problem.points.cpu().numpy()
    if problem.features is None:
        loop = _host("numpy", partial(_bincount, points, problem), torch.int32)
        if len(points) > HISTOGRAM_POINTS:
            return [loop, Absent("numpy.histogramdd", f"more than {HISTOGRAM_POINTS} points", "skipped")]
        return [loop, _host("numpy.histogramdd", partial(_histogram, points, problem), torch.int32)]
    features = problem.features.cpu().numpy()
    return [
        _host("numpy", partial(_reduce, points, features, problem), torch.float32),
        Absent("numpy.histogramdd", "counts only, no features"),
    ]


def _cells(points: Numbers, problem: VoxelProblem) -> tuple[Numbers, Numbers]:
    """The numbers of the points inside, and which those are."""
    case = problem.case
    steps = np.floor((points - np.asarray(case.grid_min, np.float32)) / np.float32(case.voxel_size))
    is_inside = np.all((steps >= 0) & (steps < case.grid_size), axis=1)
    x, y, z = steps[is_inside].astype(np.int64).T
    return (x * case.grid_size[1] + y) * case.grid_size[2] + z, is_inside


def _bincount(points: Numbers, problem: VoxelProblem) -> Numbers:
    cells, _ = _cells(points, problem)
    size = problem.case.grid_size
    if problem.case.mode == "occupancy":
        grid = np.zeros(np.prod(size), np.int32)
        grid[cells] = 1
        return grid.reshape(size)
    return np.bincount(cells, minlength=int(np.prod(size))).reshape(size)


def _histogram(points: Numbers, problem: VoxelProblem) -> Numbers:
    case = problem.case
    bounds = [(low, low + n * case.voxel_size) for low, n in zip(case.grid_min, case.grid_size, strict=True)]
    counts, _ = np.histogramdd(points, bins=case.grid_size, range=bounds)
    return counts if case.mode == "count" else counts > 0


def _reduce(points: Numbers, features: Numbers, problem: VoxelProblem) -> Numbers:
    cells, is_inside = _cells(points, problem)
    kept = features[is_inside]
    shape = (int(np.prod(problem.case.grid_size)), features.shape[1])
    if problem.case.mode == "max":
        grid = np.full(shape, -np.inf, np.float32)
        np.maximum.at(grid, cells, kept)
        grid[np.isneginf(grid)] = 0
    else:
        grid = np.zeros(shape, np.float32)
        np.add.at(grid, cells, kept)
        grid /= np.maximum(np.bincount(cells, minlength=shape[0]), 1)[:, None]
    return grid.reshape(*problem.case.grid_size, -1)


def _array(tensor: Tensor) -> Numbers:
    is_half = tensor.dtype in (torch.bfloat16, torch.float16)
    array: Numbers = (tensor.float() if is_half else tensor).cpu().numpy()
    return array


def _host(name: str, run: Callable[[], Numbers], dtype: torch.dtype) -> Candidate:
    return Candidate(name, run, read=lambda result: torch.from_numpy(result).to(dtype), is_on_host=True)
