"""Leaks of what only a GPU has: its memory, memory pinned for it, streams, events."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import torch

from robocache.testing.faults.catalogue import ON_A_GPU, after_every_call, fault
from robocache.testing.faults.leaking import SIZES

_SCENARIO = "repeated-operation"


def _add_leaks(size_name: str, size_bytes: int) -> None:
    @fault(
        f"gpu_blocks_{size_name}",
        f"every call loses {size_bytes} bytes of the GPU's memory, without a tensor",
        scenario=_SCENARIO,
        reason="FAIL gpu_allocated_bytes",
        devices=ON_A_GPU,
    )
    def gpu_blocks(_: str) -> Iterator[None]:
        lost: list[int] = []
        with after_every_call(lambda: lost.append(torch.cuda.caching_allocator_alloc(size_bytes))):
            yield
        for address in lost:
            torch.cuda.caching_allocator_delete(address)  # type: ignore[no-untyped-call]

    @fault(
        f"pinned_memory_{size_name}",
        f"every call keeps {size_bytes} bytes of pinned memory",
        scenario=_SCENARIO,
        reason="FAIL pinned_bytes",
        devices=ON_A_GPU,
    )
    def pinned_memory(_: str) -> Iterator[None]:
        kept: list[torch.Tensor] = []
        with after_every_call(lambda: kept.append(torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True))):
            yield


for _name, _bytes in SIZES.items():
    _add_leaks(_name, _bytes)


@fault(
    "cuda_streams",
    "every call makes a CUDA stream that nobody destroys",
    scenario=_SCENARIO,
    reason="FAIL (?:driver_bytes|heap_bytes)",
    devices=ON_A_GPU,
)
def cuda_streams(_: str) -> Iterator[None]:
    """Raw ones: PyTorch's own come from a pool."""
    lost: list[int] = []
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]

    def create() -> None:
        stream = ctypes.c_void_p()
        runtime.cudaStreamCreate(ctypes.addressof(stream))
        lost.append(stream.value or 0)

    with after_every_call(create):
        yield
    for stream in lost:
        runtime.cudaStreamDestroy(stream)


@fault(
    "cuda_events",
    "every call records a CUDA event that stays",
    scenario=_SCENARIO,
    reason="FAIL (?:python_blocks|heap_bytes)",
    devices=ON_A_GPU,
)
def cuda_events(_: str) -> Iterator[None]:
    """No counter of the device shows them; the host's do."""
    kept: list[torch.cuda.Event] = []

    def record() -> None:
        kept.append(torch.cuda.Event())  # type: ignore[no-untyped-call]
        kept[-1].record()

    with after_every_call(record):
        yield
