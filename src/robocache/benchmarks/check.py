"""Is a result right? Judged by the float64 reference, and in full by the portable backend that agreed with it."""

from __future__ import annotations

import torch
from torch import Tensor

from robocache.benchmarks.workloads import Problem

# One step of the output's dtype: its rounding may fall to either side.
RELATIVE = {torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10, torch.float32: 1e-5, torch.float64: 1e-12}
ABSOLUTE = 1e-5
# Libraries that divide by multiplying with a reciprocal put points that lie on a boundary into the next voxel.
PEER_SHARE = 1e-4


class Judge:
    """Knows what the results of one problem must be.

    Args:
        problem: The inputs.
    """

    def __init__(self, problem: Problem) -> None:
        self._device = problem.device
        self._part, self._wanted_part = problem.reference_part()
        portable = problem.call("pytorch")()
        is_right = difference(self._part(portable), self._wanted_part, share=0.0) is None
        self._wanted = portable if is_right else None

    def fault(self, result: Tensor, *, is_ours: bool) -> str | None:
        """What is wrong with a result, or None.

        Args:
            result: What a candidate computed.
            is_ours: Hold it to the operation's own promises: the dtype, and every voxel.
        """
        wanted, result = self._wanted, result.to(self._device)
        if wanted is not None and result.shape != wanted.shape:
            return f"has shape {tuple(result.shape)}, the pytorch backend {tuple(wanted.shape)}"
        if is_ours and result.dtype != self._wanted_part.dtype:
            return f"has dtype {result.dtype}, the reference {self._wanted_part.dtype}"
        share = 0.0 if is_ours else PEER_SHARE
        fault = difference(self._part(result), self._wanted_part, share=share)
        if fault is None and wanted is not None:
            return _beside("the pytorch backend", difference(result, wanted, share=share))
        return _beside("the reference", fault)


def difference(got: Tensor, wanted: Tensor, *, share: float) -> str | None:
    """How two results differ by more than one rounding, or None.

    Args:
        got: What is judged.
        wanted: What it should be; its dtype gives the tolerance, integers have none.
        share: Which part of all numbers may differ.
    """
    got = got.to(wanted.device)
    if wanted.is_floating_point():
        is_wrong = ~torch.isclose(
            got.double(), wanted.double(), rtol=RELATIVE[wanted.dtype], atol=ABSOLUTE, equal_nan=True
        )
    else:
        is_wrong = got != wanted
    count = int(is_wrong.sum())
    if count <= share * wanted.numel():
        return None
    first = int(is_wrong.flatten().int().argmax())
    there, here = got.flatten()[first].item(), wanted.flatten()[first].item()
    return f"{count} of {wanted.numel()} numbers differ, first number {first}: {there!r}, wanted {here!r}"


def _beside(judge: str, fault: str | None) -> str | None:
    return None if fault is None else f"against {judge} {fault}"
