"""The `--device` of a command, checked before anything runs on it."""

from __future__ import annotations

from robocache.errors import ArgumentError, BackendUnavailableError


def best_device() -> str:
    """The GPU where the kernels can run, else the CPU."""
    from robocache.ops.installation import cuda_problem

    return "cpu" if cuda_problem() else "cuda"


def checked_device(wanted: str) -> str:
    """The device that was asked for.

    Args:
        wanted: What stands behind `--device`.

    Raises:
        ArgumentError: It is neither cuda nor cpu.
        BackendUnavailableError: It is cuda, which cannot be used here; the message says why.
    """
    from robocache.ops.installation import cuda_problem

    if wanted not in ("cuda", "cpu"):
        raise ArgumentError(f"--device must be cuda or cpu, got {wanted!r}")
    problem = cuda_problem() if wanted == "cuda" else None
    if problem is not None:
        raise BackendUnavailableError(f"--device cuda cannot run: {problem}; or use --device cpu")
    return wanted
