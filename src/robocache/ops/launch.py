"""Launch a compiled Triton kernel again for what a launch costs, without its Python in between.

`kernel[grid](...)` binds, specialises and looks up its arguments anew at every call. Where they are known to be the
same but for pointers, the compiled function can be handed to the driver directly. That relies on how Triton lays out
its parameters, so the layout is read from the kernel's own PTX and compared; where it is not as expected, or a
profiler's hooks are installed, the public path is taken, and `check_installation()` says why.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_ENTRY = re.compile(r"\.entry\s+\w+\s*\((.*?)\)", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+\.([usbf])(\d+)")
_INVALID_CONTEXT = 201
_ALIGNED = 15  # Triton compiles for pointers that are multiples of 16 bytes, or not
_WARP = 32
_PROBLEMS: set[str] = set()
_pointer = Tensor.data_ptr
# PyTorch's own, without the wrappers around them: they are called at every launch. Absent from builds without CUDA.
_current_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", lambda: -1)  # noqa: SLF001
_current_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", lambda _: 0)  # noqa: SLF001


def launch_problems() -> list[str]:
    """Why kernels launched so far could not take the direct path; empty when all could."""
    return sorted(_PROBLEMS)


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


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
        self._direct: _DirectLaunch | None = None
        self._is_settled = False

    def __call__(self, *tensors: Tensor) -> None:
        """Enqueue on the current stream of the tensors' device, which need not be the current one."""
        self.launch(tensors, [*map(_pointer, tensors)], tensors[-1].get_device())

    def launch(self, tensors: Sequence[Tensor], pointers: Sequence[int], device: int) -> None:
        """The same, for a caller that knows the tensors' pointers and the index of their device already."""
        is_aligned = are_aligned(pointers)
        if is_aligned and self.relaunch(pointers, device):
            return
        with torch.cuda.device_of(tensors[-1]):  # type: ignore[no-untyped-call]  # Triton takes the current device
            compiled = self._kernel[(self._grid,)](*self._grouped(tensors), *self._numbers, **self._options)
        if is_aligned and device >= 0 and not self._is_settled:
            flat: list[int] = []
            for number in self._numbers:
                flat += number if isinstance(number, tuple) else (number,)
            self._direct = _direct_launch(compiled, self._grid, len(pointers), flat)
            self._is_settled = True

    def relaunch(self, pointers: Sequence[int], device: int) -> bool:
        """Enqueue directly what was launched before, with other pointers; False, and nothing done, where it cannot be.

        Args:
            pointers: Those of the tensors that `launch` would take, all of them aligned.
            device: The index of the device that they are on.
        """
        direct = self._direct
        # 0.1 us to ask for the current device; a guard that sets and restores it takes 1 us.
        if direct is None or _current_device() != device:
            return False
        direct(device, *pointers)
        return True

    def _grouped(self, tensors: Sequence[Tensor]) -> list[Tensor | tuple[Tensor, ...]]:
        # Triton knows no bool tensors in memory; a byte is the same.
        typed = [tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor for tensor in tensors]
        arguments: list[Tensor | tuple[Tensor, ...]] = []
        at = 0
        for size in self._groups:
            arguments.append(tuple(typed[at : at + size]) if size else typed[at])
            at += size or 1
        return arguments


def are_aligned(pointers: Sequence[int]) -> bool:
    """Whether a kernel that was compiled for aligned pointers may be launched with these."""
    together = 0
    for pointer in pointers:
        together |= pointer
    return not together & _ALIGNED


class _DirectLaunch:
    """One compiled kernel, one grid, and its numbers in place.

    Argument buffers are taken from a pool for the time of a call, so that threads, and calls from within calls, never
    share one.
    """

    def __init__(self, compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> None:  # noqa: ANN401
        self._compiled = compiled  # keeps the module loaded
        self._function = ctypes.c_void_p(compiled.function)
        self._grid = ctypes.c_uint(grid)
        self._block = ctypes.c_uint(compiled.metadata.num_warps * _WARP)
        self._shared = ctypes.c_uint(compiled.metadata.shared)
        self._pack = struct.Struct(f"<{pointers}Q").pack_into
        self._count = pointers
        self._numbers = tuple(numbers)
        self._scratch = len(_parameters(compiled)) - pointers - len(self._numbers)
        self._pool: list[tuple[Any, Any]] = []
        self._launch = _driver().cuLaunchKernel

    def _new_buffer(self) -> tuple[Any, Any]:
        slots = self._count + len(self._numbers) + self._scratch
        values = ctypes.create_string_buffer(8 * slots)
        struct.pack_into(f"<{len(self._numbers)}q", values, 8 * self._count, *self._numbers)
        start = ctypes.addressof(values)
        return values, (ctypes.c_void_p * slots)(*(start + 8 * slot for slot in range(slots)))

    def __call__(self, device: int, *pointers: int) -> None:
        """Enqueue the kernel on the current stream of the device, which must be the current one."""
        try:
            buffer = self._pool.pop()
        except IndexError:
            buffer = self._new_buffer()
        self._pack(buffer[0], 0, *pointers)
        stream = ctypes.c_void_p(_current_stream(device))
        arguments = (
            self._function, self._grid, _ONE, _ONE, self._block, _ONE, _ONE, self._shared, stream, buffer[1], None,
        )  # fmt: skip
        code = self._launch(*arguments)
        if code == _INVALID_CONTEXT:  # this thread has not used the device yet
            torch.cuda.set_device(device)
            code = self._launch(*arguments)
        self._pool.append(buffer)
        if code:
            raise RuntimeError(f"cuLaunchKernel failed with CUDA error {code}")


_ONE = ctypes.c_uint(1)


def fill_zero(tensor: Tensor) -> None:
    """Enqueue zeros for a contiguous tensor on the current stream of its device."""
    device = tensor.get_device()
    if device < 0 or _current_device() != device:
        tensor.zero_()
        return
    stream = ctypes.c_void_p(_current_stream(device))
    arguments = (ctypes.c_uint64(tensor.data_ptr()), ctypes.c_ubyte(0), ctypes.c_size_t(tensor.nbytes), stream)
    code = _driver().cuMemsetD8Async(*arguments)
    if code == _INVALID_CONTEXT:  # this thread has not used the device yet
        torch.cuda.set_device(device)
        code = _driver().cuMemsetD8Async(*arguments)
    if code:
        raise RuntimeError(f"cuMemsetD8Async failed with CUDA error {code}")


def _direct_launch(compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> _DirectLaunch | None:  # noqa: ANN401
    """A direct launch of what `kernel[grid](...)` returned, or None where the public path must be kept."""
    problem = _problem(compiled, grid, pointers, numbers)
    if problem is not None:
        _PROBLEMS.add(problem)
        return None
    return _DirectLaunch(compiled, grid, pointers, numbers)


def _parameters(compiled: Any) -> list[int]:  # noqa: ANN401
    """Bytes of each parameter, from the PTX."""
    entry = _ENTRY.search(compiled.asm["ptx"])
    return [] if entry is None else [int(bits) // 8 for _, bits in _PARAMETER.findall(entry[1])]


def _problem(compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> str | None:  # noqa: ANN401
    try:
        metadata, sizes = compiled.metadata, _parameters(compiled)
        is_plain = (metadata.num_ctas, metadata.launch_cooperative_grid, metadata.launch_pdl) == (1, False, False)
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
    return _hooks()


def _hooks() -> str | None:
    import triton

    runtime = getattr(getattr(triton, "knobs", None), "runtime", None)
    hooks = (getattr(runtime, "launch_enter_hook", None), getattr(runtime, "launch_exit_hook", None))
    for hook in hooks:
        if hook is not None and getattr(hook, "calls", True):
            return "a profiler's launch hooks are installed in Triton"
    return None
