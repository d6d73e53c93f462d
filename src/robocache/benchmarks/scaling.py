"""Does cost grow as the work grows? Time per byte of output, from results of 16 MB to results of 16 GB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch

from robocache.benchmarks.check import difference
from robocache.benchmarks.clock_problem import ClockProblem

SIZES_BYTES = tuple((16 << 20) * 4**step for step in range(6))
ALLOWED_SPREAD = 1.5
SHAPES = {  # (source, dim) of each stream, and targets
    "fuse_multimodal": (((30, 512), (100, 64), (200, 12)), 50),
    "resample_trajectories": (((500, 256),), 250),
}
ITEM_BYTES = 2  # bfloat16
TimeUs = Callable[[Callable[[], Any]], float]


def measure(time_us: TimeUs, backend: str, device: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One entry an operation: its points, the spread of time per byte, and whether it is within bounds.

    Args:
        time_us: Microseconds of one call.
        backend: Which backend runs.
        device: Where.
        sizes: Bytes of output to aim for; those that do not fit the free memory are left out, and named.
    """
    entries = []
    for operation, (streams, target) in SHAPES.items():
        points: list[dict[str, Any]] = []
        left_out, faults = [], []
        row_bytes = target * sum(dim for _, dim in streams) * ITEM_BYTES
        for wanted in sizes:
            batch = max(round(wanted / row_bytes), 1)
            if batch * (row_bytes + _input_bytes(streams, target)) > 0.8 * free_bytes(device):
                left_out.append(wanted)
                continue
            if device == "cuda":
                torch.cuda.empty_cache()
            point, fault = _point(_problem(streams, target, batch, device), backend, time_us)
            if fault is None:
                points.append({"wanted_bytes": wanted, "batch": batch, **point})
            else:
                faults.append(f"{batch} rows: {fault}")
        costs = [point["ps_a_byte"] for point in points]
        spread = max(costs) / min(costs) if costs else None
        entries.append(
            {
                "operation": operation,
                "backend": backend,
                "points": points,
                "left_out_bytes": left_out,
                "faults": faults,
                "spread": spread,
                "within_bounds": spread is not None and spread <= ALLOWED_SPREAD and not faults,
            }
        )
    return entries


def free_bytes(device: str) -> int:
    """What may still be allocated.

    Args:
        device: "cuda", or "cpu".
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return int(psutil.virtual_memory().available)


def _input_bytes(streams: Sequence[tuple[int, int]], target: int) -> int:
    return sum(source * (dim * ITEM_BYTES + 4) for source, dim in streams) + target * 4


def _problem(streams: Sequence[tuple[int, int]], target: int, batch: int, device: str) -> ClockProblem:
    """Random inputs, made on the device: gigabytes take the CPU too long."""
    data, times = [], []
    for source, dim in streams:
        data.append(torch.randn(batch, source, dim, dtype=torch.bfloat16, device=device))
        jitter = torch.rand(batch, source, device=device) * 0.3
        times.append((torch.arange(source, device=device) + jitter) / source)
    return ClockProblem(tuple(data), tuple(times), torch.rand(batch, target, device=device))


def _point(problem: ClockProblem, backend: str, time_us: TimeUs) -> tuple[dict[str, float], str | None]:
    call = problem.call(backend)
    fault = _fault(problem, call())
    if fault is not None:
        return {}, fault
    microseconds, size = time_us(call), problem.output_bytes()
    return {"output_bytes": size, "time_us": microseconds, "ps_a_byte": microseconds * 1e6 / size}, None


def _fault(problem: ClockProblem, result: torch.Tensor) -> str | None:
    """The first, middle and last rows against the reference: beyond 2**31 numbers too."""
    part, wanted = problem.reference_part()
    return difference(part(result), wanted, share=0.0)
