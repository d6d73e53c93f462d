"""Which backend serves a call, and why: chosen here, said by `check_installation()` and `robocache doctor`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from robocache.errors import ArgumentError, BackendUnavailableError

BACKENDS = ("cuda", "native", "pytorch")
_NATIVE_PROBLEM = "the compiled CPU backend is not part of this version; use 'pytorch'"


@functools.cache
def triton_problem() -> str | None:
    """Why the GPU kernels cannot be loaded, or None when they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: it comes with CUDA builds of PyTorch, or `pip install triton`"
    try:
        importlib.import_module("triton")
    except Exception as error:  # noqa: BLE001  a broken Triton fails in many ways; the reason is kept and shown
        return f"Triton does not import: {type(error).__name__}: {error}"
    return None


def choose_backend(backend: str | None, device_type: str) -> str:
    """The backend for tensors on a device.

    Args:
        backend: What the caller asked for; None takes the best there is: the kernels on a GPU, PyTorch elsewhere.
        device_type: "cuda", "cpu", ….

    Raises:
        BackendUnavailableError: The backend cannot run on this device or this machine; says why and what to do.
        ArgumentError: There is no backend of that name.
    """
    if backend is None:
        return "cuda" if device_type == "cuda" and triton_problem() is None else "pytorch"
    if backend == "pytorch":
        return backend
    if backend == "cuda":
        if device_type != "cuda":
            message = (
                f"backend='cuda' needs tensors on a GPU, but they are on {device_type}; move them or use 'pytorch'"
            )
            raise BackendUnavailableError(message)
        problem = triton_problem()
        if problem is not None:
            raise BackendUnavailableError(f"backend='cuda' cannot run: {problem}")
        return backend
    if backend == "native":
        raise BackendUnavailableError(f"backend='native' cannot run: {_NATIVE_PROBLEM}")
    raise ArgumentError(f"backend must be one of {', '.join(BACKENDS)} or None, got {backend!r}")


def kernels(operation: str) -> ModuleType:
    """The Triton kernels of an operation, imported on first use so that `import robocache` stays quick."""
    return importlib.import_module(f"robocache.ops.{operation}.triton_kernel")


def interprets_kernels() -> bool:
    """Whether Triton runs kernels in its interpreter, on the CPU (`TRITON_INTERPRET=1`)."""
    return os.environ.get("TRITON_INTERPRET", "") not in ("", "0")
