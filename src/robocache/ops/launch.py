"""Launch a compiled Triton kernel again for what a launch costs, without its Python in between.

`kernel[grid](...)` binds, specialises and looks up its arguments anew at every call. Where they are known to be the
same but for pointers, the compiled function can be handed to the driver directly. That relies on how Triton lays out
its parameters, so the layout is read from the kernel's own PTX and compared; where it is not as expected, or a
profiler's hooks are installed, the public path is taken, and `check_installation()` says why.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from robocache.ops.direct_launch import DirectLaunch, direct_launch, driver

_ENTRY = re.compile(r"\.entry\s+\w+\s*\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+\.([usbf])(\d+)")
_ALIGNED = 16
_HOPPER, _GRAPHS_OVERLAP = (9, 0), (12, 3)
_PROBLEMS: set[str] = set()


def launch_problems() -> list[str]:
    """Why kernels launched so far could not take the direct path; empty when all could."""
    return sorted(_PROBLEMS)


@functools.cache
def can_overlap(device: torch.device) -> bool:
    """Whether a kernel may start while the one before it on the stream still runs, and wait for it where it must.

    That is programmatic dependent launch: of Hopper and later, and in graphs since CUDA 12.3.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _HOPPER:
        return False
    import triton.language as tl

    version = tuple(int(part) for part in (torch.version.cuda or "0.0").split(".")[:2])
    return version >= _GRAPHS_OVERLAP and hasattr(getattr(tl.extra, "cuda", None), "gdc_wait")


class PreparedKernel:
    """A kernel with all its arguments but the pointers, which come first and change with every call.

    Args:
        kernel: The `triton.jit` function.
        grid: Programs along its only axis, at least 1.
        groups: How the pointers are passed: 0 for one of its own, n for a tuple of n.
        numbers: The arguments after them, integers or tuples of integers.
        options: Constants to compile for, and `num_warps`.
    """

    def __init__(
        self,
        kernel: Any,  # noqa: ANN401
        grid: int,
        groups: tuple[int, ...],
        numbers: tuple[int | tuple[int, ...], ...],
        options: dict[str, Any],
    ) -> None:
        self._kernel, self._grid, self._groups = kernel, grid, groups
        self._numbers, self._options = numbers, options
        self._direct: DirectLaunch | None = None
        self._is_settled = False

    def __call__(self, *tensors: Tensor) -> None:
        """Enqueue on the current stream of the tensors' device, which need not be the current one."""
        device = tensors[-1].get_device()
        if not self.relaunch(tensors, device):
            self.launch(tensors, device)

    def relaunch(self, items: tuple[Tensor | int, ...], device: int) -> bool:
        """Enqueue directly what was launched before; False, and nothing done, where it cannot be.

        Args:
            items: The tensors that `launch` would take, in any dtype, or the pointers to them.
            device: The index of the device that they are on.
        """
        direct = self._direct
        if direct is None:
            return False
        is_enqueued = direct(device, items)
        if is_enqueued is None:  # this thread has not used the device yet
            torch.cuda.set_device(device)
            is_enqueued = direct(device, items)
        return is_enqueued is True

    def launch(self, tensors: Sequence[Tensor], device: int) -> None:
        """Enqueue as Triton does, and look at whether it can be done directly the next time.

        Args:
            tensors: All that the kernel points to.
            device: The index of the device that they are on, negative on a CPU.
        """
        with torch.cuda.device_of(tensors[-1]):  # type: ignore[no-untyped-call]  # Triton takes the current device
            compiled = self._kernel[(self._grid,)](*self._grouped(tensors), *self._numbers, **self._options)
        if device >= 0 and not self._is_settled and are_aligned(tensors):
            flat: list[int] = []
            for number in self._numbers:
                flat += number if isinstance(number, tuple) else (number,)
            self._direct = _direct_launch(compiled, self._grid, len(tensors), flat)
            self._is_settled = True

    def _grouped(self, tensors: Sequence[Tensor]) -> list[Tensor | tuple[Tensor, ...]]:
        # Triton knows no bool tensors in memory; a byte is the same.
        typed = [tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor for tensor in tensors]
        arguments: list[Tensor | tuple[Tensor, ...]] = []
        at = 0
        for size in self._groups:
            arguments.append(tuple(typed[at : at + size]) if size else typed[at])
            at += size or 1
        return arguments


def are_aligned(tensors: Sequence[Tensor]) -> bool:
    """Whether Triton compiles for such pointers as for any that are multiples of 16 bytes."""
    return all(tensor.data_ptr() % _ALIGNED == 0 for tensor in tensors)


def _direct_launch(compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> DirectLaunch | None:  # noqa: ANN401
    """A direct launch of what `kernel[grid](...)` returned, or None where the public path must be kept."""
    problem = _problem(compiled, grid, pointers, numbers)
    if problem is not None:
        _PROBLEMS.add(problem)
        return None
    return direct_launch(compiled, grid, (pointers, len(_parameters(compiled))), numbers)


def _parameters(compiled: Any) -> list[int]:  # noqa: ANN401
    """Bytes of each parameter, from the PTX."""
    entry = _ENTRY.search(compiled.asm["ptx"])
    return [] if entry is None else [int(bits) // 8 for _, bits in _PARAMETER.findall(entry[1])]


def _problem(compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> str | None:  # noqa: ANN401
    try:
        metadata, sizes = compiled.metadata, _parameters(compiled)
        is_plain = (metadata.num_ctas, metadata.launch_cooperative_grid) == (1, False) and metadata.launch_pdl in (0, 1)
        scratch = metadata.global_scratch_size + getattr(metadata, "profile_scratch_size", 0)
        function = compiled.function
    except (AttributeError, KeyError) as error:
        return f"this Triton keeps its compiled kernels in another way: {error}"
    if not is_plain or scratch or not isinstance(function, int):
        return "this Triton launches its kernels in another way"
    extra = sizes[pointers + len(numbers) :]
    takes_numbers = all(
        -(2 ** (8 * size - 1)) <= number < 2 ** (8 * size - 1)
        for size, number in zip(sizes[pointers:], numbers, strict=False)
    )
    if sizes[:pointers] != [8] * pointers or not takes_numbers or len(extra) > 2 or any(size != 8 for size in extra):
        return "this Triton lays out kernel parameters in another way"
    if grid >= 2**31:
        return "a grid of 2**31 programs or more"
    if not hasattr(driver(), "cuLaunchKernelEx"):
        return "the driver is older than CUDA 11.8"
    return _hooks()


def _hooks() -> str | None:
    import triton

    runtime = getattr(getattr(triton, "knobs", None), "runtime", None)
    hooks = (getattr(runtime, "launch_enter_hook", None), getattr(runtime, "launch_exit_hook", None))
    for hook in hooks:
        if hook is not None and getattr(hook, "calls", True):
            return "a profiler's launch hooks are installed in Triton"
    return None
