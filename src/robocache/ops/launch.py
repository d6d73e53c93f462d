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
_HOPPER, _GRAPHS_OVERLAP = (9, 0), (12, 3)
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


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: what it is, and 64 bytes for its value."""

    _fields_ = (("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15))


_OVERLAPS = _Attribute(id=6, value=1)  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: allowed
# CUlaunchConfig: grid, block and shared memory; a gap; stream, attributes and their number.
_SIZES = struct.Struct("<7I")
_STREAM_AT, _POINTERS_AT = 32, 56


class _DirectLaunch:
    """One compiled kernel, one grid, and its numbers in place.

    Argument buffers are taken from a pool for the time of a call, so that threads, and calls from within calls, never
    share one. A buffer is the driver's launch configuration, then the kernel's parameters.
    """

    def __init__(self, compiled: Any, grid: int, pointers: int, numbers: Sequence[int]) -> None:  # noqa: ANN401
        metadata = compiled.metadata
        self._compiled = compiled  # keeps the module loaded
        self._function = ctypes.c_void_p(compiled.function)
        self._sizes = (grid, 1, 1, metadata.num_warps * _WARP, 1, 1, metadata.shared)
        self._attributes = (ctypes.addressof(_OVERLAPS), 1) if metadata.launch_pdl else (0, 0)
        self._pack = struct.Struct(f"<{3 + pointers}Q").pack_into
        self._count = pointers
        self._numbers = tuple(numbers)
        self._slots = len(_parameters(compiled))
        self._pool: list[tuple[Any, Any, Any]] = []
        self._launch = _driver().cuLaunchKernelEx

    def _new_buffer(self) -> tuple[Any, Any, Any]:
        values = ctypes.create_string_buffer(_POINTERS_AT + 8 * self._slots)
        _SIZES.pack_into(values, 0, *self._sizes)
        struct.pack_into(f"<{len(self._numbers)}q", values, _POINTERS_AT + 8 * self._count, *self._numbers)
        start = ctypes.addressof(values)
        parameters = (start + _POINTERS_AT + 8 * slot for slot in range(self._slots))
        return values, ctypes.c_void_p(start), (ctypes.c_void_p * self._slots)(*parameters)

    def __call__(self, device: int, *pointers: int) -> None:
        """Enqueue the kernel on the current stream of the device, which must be the current one."""
        try:
            buffer = self._pool.pop()
        except IndexError:
            buffer = self._new_buffer()
        self._pack(buffer[0], _STREAM_AT, _current_stream(device), *self._attributes, *pointers)
        code = self._launch(buffer[1], self._function, buffer[2], None)
        if code == _INVALID_CONTEXT:  # this thread has not used the device yet
            torch.cuda.set_device(device)
            code = self._launch(buffer[1], self._function, buffer[2], None)
        self._pool.append(buffer)
        if code:
            raise RuntimeError(f"cuLaunchKernelEx failed with CUDA error {code}")


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
    if not hasattr(_driver(), "cuLaunchKernelEx"):
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
