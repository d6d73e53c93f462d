"""The compiled CPU library: where it is, why it may not be, and how tensors are handed to it.

Functions of the library take the address of one struct, whose fields are all 8 bytes (`_native/robocache_native.h`).
ctypes lets go of the GIL for the time of a call. The library starts threads within a call only, so it may be used
before and after a fork, and from any number of threads.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

PATH = Path(__file__).resolve().parents[1] / "_native" / "librobocache.so"
ABI_VERSION = 7
DTYPES: dict[torch.dtype, int] = {
    torch.float16: 0,
    torch.bfloat16: 1,
    torch.float32: 2,
    torch.float64: 3,
    torch.bool: 4,
    torch.uint8: 4,
    torch.int8: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
}
TIME_DTYPES: dict[torch.dtype, int] = {torch.float32: 0, torch.float64: 1, torch.int64: 2}
INSTRUCTIONS = ("any processor's instructions", "AVX2", "AVX-512", "AVX-512 with bfloat16")
_REINSTALL = (
    "install a C compiler such as gcc and then RoboCache again (`pip install --no-cache-dir --force-reinstall`)"
)


class Found(NamedTuple):
    """The library, or why there is none."""

    library: ctypes.CDLL | None
    problem: str | None


def find(path: Path) -> Found:
    """Load the library at a path."""
    if not path.is_file():
        message = f"the compiled CPU library is not there, since no C compiler was when RoboCache was installed: {path}"
        return Found(None, f"{message}; {_REINSTALL}, or use 'pytorch'")
    try:
        loaded = ctypes.CDLL(str(path))
        version = loaded.robocache_abi_version
    except (OSError, AttributeError) as error:
        return Found(None, f"the compiled CPU library does not load: {error}; {_REINSTALL}, or use 'pytorch'")
    version.argtypes, version.restype = [], ctypes.c_int64
    if version() != ABI_VERSION:
        message = f"{path} is of version {version()}, but this RoboCache needs {ABI_VERSION}"
        return Found(None, f"{message}; {_REINSTALL}, or use 'pytorch'")
    calls = ("resample", "voxelize", "update", "gather", "read", "take")
    for function in (getattr(loaded, f"robocache_{call}") for call in calls):
        function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int64
    loaded.robocache_instructions.argtypes, loaded.robocache_instructions.restype = [], ctypes.c_int64
    loaded.robocache_limit_instructions.argtypes = [ctypes.c_int64]
    loaded.robocache_limit_instructions.restype = None
    return Found(loaded, None)


# Loaded with the module, not on first use: choosing a backend must stay something that `torch.compile` can trace.
_LIBRARY, PROBLEM = find(PATH)


def library() -> ctypes.CDLL:
    """The loaded library; where `PROBLEM` is not None there is none."""
    if _LIBRARY is None:
        raise RuntimeError(PROBLEM)
    return _LIBRARY


def instructions() -> str:
    """The instruction set that the inner loops use on this processor."""
    return INSTRUCTIONS[library().robocache_instructions()]


def is_readable(tensor: Tensor) -> bool:
    """Whether the library can read the tensor where it lies: the last axis contiguous, items aligned, not negated."""
    if tensor.data_ptr() % tensor.element_size() or tensor.is_neg():
        return False
    return tensor.is_contiguous() or tensor.stride(-1) == 1 or tensor.shape[-1] <= 1


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself where the library can read it, else a copy."""
    if is_readable(tensor):
        return tensor
    return tensor.resolve_neg().clone(memory_format=torch.contiguous_format)
