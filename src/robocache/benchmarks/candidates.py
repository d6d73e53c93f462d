"""What is timed: our backends and their peers, each a call without arguments and a way to read its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def _as_it_is(result: Any) -> Tensor:  # noqa: ANN401  whatever a peer returns
    if not isinstance(result, Tensor):
        raise TypeError(f"a tensor was expected, got {type(result).__name__}")
    return result


@dataclass(frozen=True)
class Candidate:
    """One way to compute a workload.

    Args:
        name: As it is in the tables: a backend, or a library.
        run: Computes the workload, from inputs already in the form that suits it.
        is_ours: A backend of RoboCache: held to bit-exact voxels, and to a right result.
        read: The result as a tensor of the shape that the operation promises; not timed.
        is_on_host: Works on the CPU, also where the workload lies on a GPU.
        is_capturable: Can be part of a CUDA graph.
    """

    name: str
    run: Callable[[], Any]
    is_ours: bool = False
    read: Callable[[Any], Tensor] = _as_it_is
    is_on_host: bool = False
    is_capturable: bool = True


@dataclass(frozen=True)
class Absent:
    """A peer that is not timed, and why.

    Args:
        name: As it is in the tables.
        reason: Not installed, no such function, too slow for the size.
        status: "absent" or "skipped".
    """

    name: str
    reason: str
    status: str = "absent"
