"""A launch takes the direct way only past a Triton whose compiled kernels look as expected; else it says why not.

The compiled kernel is made up here, with what Triton 3.2 to 3.9 give it, and so are the driver and the GPU.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from robocache.ops import launch

PTX = """
.visible .entry _kernel(
    .param .u64 .ptr .global .align 1 _kernel_param_0,
    .param .u64 .ptr .global .align 1 _kernel_param_1,
    .param .u32 _kernel_param_2
)
"""
METADATA = {
    "num_warps": 4,
    "num_ctas": 1,
    "shared": 0,
    "launch_cooperative_grid": False,
    "launch_pdl": False,
    "global_scratch_size": 0,
    "profile_scratch_size": 0,
}


def compiled(*, without=(), **changes):
    metadata = {name: value for name, value in METADATA.items() if name not in without}
    metadata |= {name: value for name, value in changes.items() if name in METADATA}
    parts = {"function": 4096, "asm": {"ptx": PTX}} | {k: v for k, v in changes.items() if k not in METADATA}
    return SimpleNamespace(metadata=SimpleNamespace(**metadata), **parts)


class Kernel:
    """A `triton.jit` function to look at: counts its launches and gives back what it was compiled to."""

    def __init__(self, result):
        self.result, self.launches = result, 0

    def __getitem__(self, grid):
        return self

    def __call__(self, *arguments, **options):
        self.launches += 1
        return self.result


class Configuration(ctypes.Structure):
    """CUlaunchConfig, as cuda.h has it."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(ctypes.c_int)),
        ("attribute_count", ctypes.c_uint),
    )


def read(configuration, function, parameters, extra):
    """Grid, block, shared memory, stream, attributes, function, and two pointers and a number."""
    found = Configuration.from_address(configuration.value)
    sizes = [getattr(found, name) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")]
    attributes = [(found.attributes[0], found.attributes[2])] if found.attribute_count else []
    values = [ctypes.c_uint64.from_address(parameters[at]).value for at in range(2)]
    values.append(ctypes.c_uint32.from_address(parameters[2]).value)
    assert extra is None
    return sizes, found.stream, attributes, function.value, values


@pytest.fixture
def driver(monkeypatch):
    """Calls of `cuLaunchKernelEx` as the driver would read them, on a GPU 0 that is not there."""
    calls = []
    library = SimpleNamespace(cuLaunchKernelEx=lambda *arguments: calls.append(read(*arguments)) or 0)
    monkeypatch.setattr(launch, "_driver", lambda: library)
    monkeypatch.setattr(launch, "_current_device", lambda: 0)
    monkeypatch.setattr(launch, "_current_stream", lambda device: 1 << 40)
    monkeypatch.setattr(launch, "_PROBLEMS", set())
    pytest.importorskip("triton")
    return calls


def launched(result, times=3):
    """A kernel of two pointers and one number, launched so often."""
    kernel = Kernel(result)
    prepared = launch.PreparedKernel(kernel, 7, (0, 0), (5,), {})
    tensor = torch.zeros(64)
    for _ in range(times):
        prepared.launch((tensor, tensor), [1 << 20, 1 << 21], 0)
    return kernel


def test_a_kernel_as_expected_is_handed_to_the_driver(driver):
    """The control of the tests below: once through Triton, then directly. Fails when a field lies elsewhere."""
    assert launched(compiled()).launches == 1
    assert driver == [([7, 1, 1, 128, 1, 1, 0], 1 << 40, [], 4096, [1 << 20, 1 << 21, 5])] * 2
    assert launch.launch_problems() == []


def test_a_kernel_that_may_overlap_says_so_to_the_driver(driver):
    """Fails when the attribute is left out, is another one, or says no."""
    serialization = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    assert launched(compiled(launch_pdl=True)).launches == 1
    assert [call[2] for call in driver] == [[(serialization, 1)]] * 2


IN_ANOTHER_WAY = {
    "no PTX": (compiled(asm={}), "this Triton keeps its compiled kernels in another way: 'ptx'"),
    "no such metadata": (compiled(without=("launch_pdl",)), "this Triton keeps its compiled kernels in another way: "),
    "a lazy function": (compiled(function=None), "this Triton launches its kernels in another way"),
    "scratch memory": (compiled(global_scratch_size=64), "this Triton launches its kernels in another way"),
    "a cluster": (compiled(num_ctas=2), "this Triton launches its kernels in another way"),
    "narrow pointers": (
        compiled(asm={"ptx": PTX.replace("u64", "u32")}),
        "this Triton lays out kernel parameters in another way",
    ),
    "a parameter more": (
        compiled(asm={"ptx": PTX.replace("u32 _kernel_param_2", "u32 a, .param .u32 b")}),
        "this Triton lays out kernel parameters in another way",
    ),
}


@pytest.mark.parametrize("name", IN_ANOTHER_WAY)
def test_another_triton_is_launched_its_own_way_and_that_is_said(driver, name):
    """Fails when a launch is handed to the driver with parameters laid out otherwise, or the reason is kept back."""
    result, problem = IN_ANOTHER_WAY[name]
    assert launched(result).launches == 3
    assert driver == []
    (said,) = launch.launch_problems()
    assert said.startswith(problem)
