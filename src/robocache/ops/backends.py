"""Which backend serves a call, and why: chosen here, said by `check_installation()` and `robocache doctor`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import torch
from torch.autograd import forward_ad

from robocache.errors import ArgumentError, BackendUnavailableError
from robocache.ops import native_library

BACKENDS = ("cuda", "native", "pytorch")
OPERATIONS = ("resample_trajectories", "fuse_multimodal", "voxelize_pointcloud")

# There is no public way to ask. Looked up once, since they are asked at every call.
_is_compiling = torch.compiler.is_compiling
_interpreters = torch._C._functorch.peek_interpreter_stack  # noqa: SLF001
_modes = torch._C._len_torch_dispatch_stack  # noqa: SLF001

# Looked for, not imported: choosing a backend must stay something that `torch.compile` can trace.
TRITON_MISSING = (
    "Triton is not installed: it comes with CUDA builds of PyTorch, or `pip install triton`"
    if importlib.util.find_spec("triton") is None
    else None
)


@functools.cache
def triton_problem() -> str | None:
    """Why the GPU kernels cannot be loaded, or None when they can; imports Triton."""
    if TRITON_MISSING is not None:
        return TRITON_MISSING
    try:
        importlib.import_module("triton")
    except Exception as error:  # noqa: BLE001  a broken Triton fails in many ways; the reason is kept and shown
        return f"Triton does not import: {type(error).__name__}: {error}"
    return None


def _kernel_problem() -> str | None:
    # An import is nothing that `torch.compile` can trace.
    return TRITON_MISSING if torch.compiler.is_compiling() else triton_problem()


def native_problem() -> str | None:
    """Why the compiled CPU library cannot be used, or None when it can."""
    return native_library.PROBLEM


def choose_backend(backend: str | None, device_type: str) -> str:
    """The backend for tensors on a device.

    Args:
        backend: What the caller asked for; None takes the best there is: the kernels on a GPU, the compiled library on
            a CPU, PyTorch elsewhere, where those are not there, and inside `torch.func` and its like.
        device_type: "cuda", "cpu", ….

    Raises:
        BackendUnavailableError: The backend cannot run on this device or this machine; says why and what to do.
        ArgumentError: There is no backend of that name.
    """
    if backend is None:
        return "pytorch" if is_transformed() else _best(device_type)
    if backend == "pytorch":
        return backend
    if backend == "cuda":
        _refuse_other_device(backend, "cuda", "a GPU", device_type)
        _refuse_problem(backend, _kernel_problem())
        return backend
    if backend == "native":
        _refuse_other_device(backend, "cpu", "the CPU", device_type)
        _refuse_problem(backend, native_problem())
        return backend
    raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)} or None, got {backend!r}")


def is_transformed() -> bool:
    """Whether tensors stand for something else just now, so that only PyTorch's own functions mean the right thing.

    That is so in `torch.func` (vmap, grad, jvp), in forward-mode differentiation, and under a mode that watches or
    replaces every operation, such as the tracing of `make_fx`. Compilation is another matter: it has the operators.
    """
    return not (torch.compiler.is_compiling() or is_ordinary())


def is_ordinary() -> bool:
    """Whether nothing is compiled just now, and no tensor stands for something else."""
    if _is_compiling():
        return False
    return _interpreters() is None and forward_ad._current_level < 0 and _modes() == 0  # noqa: SLF001


def _best(device_type: str) -> str:
    if device_type == "cuda" and _kernel_problem() is None:
        return "cuda"
    if device_type == "cpu" and native_problem() is None:
        return "native"
    return "pytorch"


def _refuse_other_device(backend: str, wanted: str, where: str, device_type: str) -> None:
    if device_type != wanted:
        message = f"backend={backend!r} needs tensors on {where}, but they are on {device_type}"
        raise BackendUnavailableError(f"{message}; move them or use 'pytorch'")


def _refuse_problem(backend: str, problem: str | None) -> None:
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:  # noqa: SLF001
        problem = "it has no forward-mode derivative; use 'pytorch', or None"
    if problem is not None:
        raise BackendUnavailableError(f"backend={backend!r} cannot run: {problem}")


def kernels(operation: str, file: str = "triton_kernel") -> ModuleType:
    """The Triton kernels of an operation, imported on first use so that `import robocache` stays quick."""
    return importlib.import_module(f"robocache.ops.{operation}.{file}")


def interprets_kernels() -> bool:
    """Whether Triton runs kernels in its interpreter, on the CPU (`TRITON_INTERPRET=1`)."""
    return os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
