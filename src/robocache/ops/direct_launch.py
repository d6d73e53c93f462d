"""Hand a kernel that Triton has compiled to the driver, with other pointers than the last time.

There are two ways that do the same: `_native/python/quick.c`, and Python with ctypes where that could not be built, or
where a kernel takes more parameters than it holds.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

QUICK_VERSION = 2
_INVALID_CONTEXT = 201
_ALIGNED = 15  # Triton compiles for pointers that are multiples of 16 bytes, or not
_WARP = 32
_pointer = Tensor.data_ptr
# PyTorch's own, without the wrappers around them: they are called at every launch. Absent from builds without CUDA.
_current_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", lambda: -1)  # noqa: SLF001
_current_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", lambda _: 0)  # noqa: SLF001

# From a device, and tensors or their pointers, to whether the kernel was enqueued.
DirectLaunch = Callable[[int, tuple[Tensor | int, ...]], bool | None]


def _find_quick() -> tuple[Any, str | None]:
    try:
        found = importlib.import_module("robocache._native.quick")
    except ImportError as error:
        way = "install a C compiler and Python's headers, then RoboCache again"
        return None, f"the quick launcher was not built for this Python ({error}); {way}"
    if found.VERSION != QUICK_VERSION:
        return None, f"the quick launcher is of version {found.VERSION}, not {QUICK_VERSION}: install RoboCache again"
    return found, None


# `_native/python/quick.c`, or None and the reason.
QUICK, QUICK_PROBLEM = _find_quick()


@functools.cache
def driver() -> ctypes.CDLL:
    """The CUDA driver's library."""
    return ctypes.CDLL("libcuda.so.1")


def direct_launch(compiled: Any, grid: int, sizes: tuple[int, int], numbers: Sequence[int]) -> DirectLaunch:  # noqa: ANN401
    """A launch of what `kernel[grid](...)` returned, on the current stream of a device.

    It does nothing and returns False where the device is not the current one, or a pointer not aligned as the kernel
    was compiled for; None where this thread has not used the device yet.

    Args:
        compiled: The kernel, as Triton gives it back.
        grid: Programs along its only axis.
        sizes: How many pointers the kernel takes, and how many parameters in all.
        numbers: The parameters after the pointers.
    """
    metadata = compiled.metadata
    shape = (grid, metadata.num_warps * _WARP, metadata.shared, bool(metadata.launch_pdl))
    launch = driver().cuLaunchKernelEx
    if QUICK is None or sizes[1] > QUICK.MOST_SLOTS:
        return _PythonLaunch(compiled, launch, shape, sizes, numbers)
    address = ctypes.cast(launch, ctypes.c_void_p).value
    asked = (_current_device, _current_stream, _pointer)
    made: DirectLaunch = QUICK.Launcher(compiled, (address, compiled.function), shape, sizes, tuple(numbers), asked)
    return made


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: what it is, and 64 bytes for its value."""

    _fields_ = (("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_int * 15))


_OVERLAPS = _Attribute(id=6, value=1)  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: allowed
# CUlaunchConfig: grid, block and shared memory; a gap; stream, attributes and their number.
_SIZES = struct.Struct("<7I")
_STREAM_AT, _POINTERS_AT = 32, 56


class _PythonLaunch:
    """One compiled kernel, one grid, and its numbers in place.

    Argument buffers are taken from a pool for the time of a call, so that threads, and calls from within calls, never
    share one. A buffer is the driver's launch configuration, then the kernel's parameters.
    """

    def __init__(
        self,
        compiled: Any,  # noqa: ANN401
        launch: Callable[..., int],
        shape: tuple[int, int, int, bool],
        sizes: tuple[int, int],
        numbers: Sequence[int],
    ) -> None:
        grid, threads, shared, overlaps = shape
        self._compiled = compiled  # keeps the module loaded
        self._function = ctypes.c_void_p(compiled.function)
        self._sizes = (grid, 1, 1, threads, 1, 1, shared)
        self._attributes = (ctypes.addressof(_OVERLAPS), 1) if overlaps else (0, 0)
        self._count, self._slots = sizes
        self._pack = struct.Struct(f"<{3 + self._count}Q").pack_into
        self._numbers = tuple(numbers)
        self._pool: list[tuple[Any, Any, Any]] = []
        self._launch = launch

    def _new_buffer(self) -> tuple[Any, Any, Any]:
        values = ctypes.create_string_buffer(_POINTERS_AT + 8 * self._slots)
        _SIZES.pack_into(values, 0, *self._sizes)
        struct.pack_into(f"<{len(self._numbers)}q", values, _POINTERS_AT + 8 * self._count, *self._numbers)
        start = ctypes.addressof(values)
        parameters = (start + _POINTERS_AT + 8 * slot for slot in range(self._slots))
        return values, ctypes.c_void_p(start), (ctypes.c_void_p * self._slots)(*parameters)

    def __call__(self, device: int, items: tuple[Tensor | int, ...]) -> bool | None:
        """Enqueue the kernel; True when that is done, else what `direct_launch` says."""
        if _current_device() != device:
            return False
        pointers = [one if isinstance(one, int) else _pointer(one) for one in items]
        together = 0
        for pointer in pointers:
            together |= pointer
        if together & _ALIGNED:
            return False
        try:
            buffer = self._pool.pop()
        except IndexError:
            buffer = self._new_buffer()
        self._pack(buffer[0], _STREAM_AT, _current_stream(device), *self._attributes, *pointers)
        code = self._launch(buffer[1], self._function, buffer[2], None)
        self._pool.append(buffer)
        if code not in (0, _INVALID_CONTEXT):
            raise RuntimeError(f"cuLaunchKernelEx failed with CUDA error {code}")
        return None if code else True


def fill_zero(tensor: Tensor) -> None:
    """Enqueue zeros for a contiguous tensor on the current stream of its device."""
    device = tensor.get_device()
    if device < 0 or _current_device() != device:
        tensor.zero_()
        return
    stream = ctypes.c_void_p(_current_stream(device))
    arguments = (ctypes.c_uint64(tensor.data_ptr()), ctypes.c_ubyte(0), ctypes.c_size_t(tensor.nbytes), stream)
    code = driver().cuMemsetD8Async(*arguments)
    if code == _INVALID_CONTEXT:  # this thread has not used the device yet
        torch.cuda.set_device(device)
        code = driver().cuMemsetD8Async(*arguments)
    if code:
        raise RuntimeError(f"cuMemsetD8Async failed with CUDA error {code}")
