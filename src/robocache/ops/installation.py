"""What runs where, and why: for people, for `robocache doctor`, and for bug reports."""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable
from importlib import metadata, util
from typing import Any

import torch

from robocache.errors import RoboCacheError
from robocache.ops import backends
from robocache.ops.allocation import allocation_problems
from robocache.ops.backends import OPERATIONS
from robocache.ops.direct_launch import QUICK_PROBLEM
from robocache.ops.fuse_multimodal import cases as fuse_cases
from robocache.ops.fuse_multimodal import fuse_multimodal
from robocache.ops.fuse_multimodal import reference as fuse_reference
from robocache.ops.launch import launch_problems
from robocache.ops.recent_calls import guard_problem
from robocache.ops.resample_trajectories import cases as resample_cases
from robocache.ops.resample_trajectories import reference as resample_reference
from robocache.ops.resample_trajectories import resample_trajectories
from robocache.ops.voxelize_pointcloud import cases as voxelize_cases
from robocache.ops.voxelize_pointcloud import reference as voxelize_reference
from robocache.ops.voxelize_pointcloud import voxelize_pointcloud
from robocache.policies import Linear
from robocache.version import __version__


def is_cuda_available() -> bool:
    """Whether the GPU kernels can run: there is a CUDA device, and Triton imports. Makes no CUDA context."""
    return cuda_problem() is None


def cuda_problem() -> str | None:
    """Why the GPU kernels cannot run here, with the remedy; None when they can."""
    if torch.version.cuda is None:
        return "this PyTorch is a CPU build; install a CUDA build from https://pytorch.org/get-started"
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device; check `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    return backends.triton_problem()


def check_installation() -> dict[str, Any]:
    """What is installed, and which backend serves each operation on each device.

    Returns:
        A JSON-able dict: versions, the GPU, and under "operations" for each operation and device the backend that
        `backend=None` chooses and the reason. "launch_problems" holds why kernels launched so far in this process could
        not be handed to the driver directly, and "call_problems" why calls could not be recognised or their results
        allocated the quick way; empty when all could.
    """
    problem = cuda_problem()
    without = "pytorch" if torch.cuda.is_available() else None
    on_gpu = {"backend": "cuda" if problem is None else without, "reason": problem or "Triton kernels"}
    on_cpu = {
        "backend": backends.choose_backend(None, "cpu"),
        "reason": backends.native_problem() or "the compiled CPU library",
    }
    return {
        "robocache": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "cuda": torch.version.cuda,
        "cuda_available": problem is None,
        "cuda_problem": problem,
        "launch_problems": launch_problems(),
        "call_problems": call_problems(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "operations": {operation: {"cuda": on_gpu, "cpu": on_cpu} for operation in OPERATIONS},
        "readers": {
            name: util.find_spec(module) is not None
            for name, module in (("mcap", "mcap"), ("rosbag", "rosbags"), ("hdf5", "h5py"), ("lerobot", "pyarrow"))
        },
    }


def call_problems() -> list[str]:
    """Why a call costs more than it could on another PyTorch or installation; empty when it does not."""
    problems = [problem for problem in (guard_problem(), QUICK_PROBLEM) if problem is not None]
    return problems + allocation_problems()


def try_launches() -> dict[str, str]:
    """Launch a small kernel of each operation on the GPU, so that `check_installation` has seen how launches go.

    Returns:
        For each operation "launched", or why not: there is no GPU, or what failed.
    """
    problem = cuda_problem()
    if problem is not None:
        return dict.fromkeys(OPERATIONS, f"not launched: {problem}")
    outcomes = {}
    for operation in OPERATIONS:
        try:
            call = _small_call(operation)
            call()
            call()  # only a kernel that was launched before is handed to the driver directly
            torch.cuda.synchronize()
        except Exception as error:  # noqa: BLE001  a broken compiler or driver fails in many ways; the reason is shown
            outcomes[operation] = f"failed: {type(error).__name__}: {error}"
        else:
            outcomes[operation] = "launched"
    return outcomes


def _small_call(operation: str) -> Callable[[], object]:
    data = torch.zeros(1, 2, 8, device="cuda")
    times = torch.arange(2.0, device="cuda")[None]
    if operation == "resample_trajectories":
        return functools.partial(resample_trajectories, data, times, times)
    if operation == "fuse_multimodal":
        return functools.partial(fuse_multimodal, data, times, data, times, data, times, times)
    return functools.partial(voxelize_pointcloud, data[0, :, :3], grid_size=(2, 2, 2))


def print_installation_info() -> None:
    """Print `check_installation()` for people."""
    found = check_installation()
    lines = [
        f"RoboCache {found['robocache']}, Python {found['python']}, {found['platform']}",
        f"PyTorch {found['torch']}, CUDA {found['cuda']}, Triton {found['triton']}",
        f"GPU: {found['gpu'] or found['cuda_problem']}",
    ]
    for operation, devices in found["operations"].items():
        lines += [f"{operation} on {on}: {how['backend']} ({how['reason']})" for on, how in devices.items()]
    lines += [f"slower launches so far in this process: {problem}" for problem in found["launch_problems"]]
    lines += [f"slower calls: {problem}" for problem in found["call_problems"]]
    sys.stdout.write("\n".join(lines) + "\n")


def self_test(device: str | torch.device | None = None) -> dict[str, str]:
    """Run every operation on small inputs and compare with the reference.

    Args:
        device: Where to run; None takes the GPU if there is one, else the CPU.

    Returns:
        For each operation the backend that ran it.

    Raises:
        RoboCacheError: An operation differs from its reference; names it and the case.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    for resample_case in resample_cases.EDGE_CASES:
        data, times, targets = resample_case.inputs(where)
        wanted, wanted_valid = resample_reference.resample_trajectories(data, times, targets, Linear(), None)
        got, valid = resample_trajectories(data, times, targets, return_valid=True)
        _compare("resample_trajectories", str(resample_case), (got, wanted), (valid, wanted_valid))
    case = fuse_cases.EDGE_CASES[1]
    streams, stamps, targets = case.inputs(where)
    wanted, wanted_valid = fuse_reference.fuse(streams, stamps, targets, [Linear()] * 3, [None] * 3)
    pairs = [tensor for pair in zip(streams, stamps, strict=True) for tensor in pair]
    got, valid = fuse_multimodal(*pairs, targets, return_valid=True)  # type: ignore[call-overload]
    _compare("fuse_multimodal", str(case), (got, wanted), (valid, wanted_valid))
    for voxel_case in voxelize_cases.EDGE_CASES:
        points, features = voxel_case.inputs(where)
        grid = (voxel_case.grid_min, (voxel_case.voxel_size,) * 3, voxel_case.grid_size, voxel_case.mode)
        wanted = voxelize_reference.voxelize_pointcloud(points, features, *grid, None, "drop")
        _compare("voxelize_pointcloud", str(voxel_case), (voxelize_pointcloud(points, features, *grid), wanted))
    return dict.fromkeys(OPERATIONS, backends.choose_backend(None, where.type))


def _compare(operation: str, case: str, *pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    for got, wanted in pairs:
        try:
            torch.testing.assert_close(got, wanted, equal_nan=True)
        except AssertionError as error:
            raise RoboCacheError(f"{operation} differs from its reference in case {case!r}: {error}") from error


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
