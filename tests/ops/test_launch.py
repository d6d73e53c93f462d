"""A launch takes the direct way only past a Triton whose compiled kernels look as expected; else it says why not.

The compiled kernel is made up here, with what Triton 3.2 to 3.9 give it, and so are the driver and the GPU. Both ways
to the driver are tried: `_native/python/quick.c`, and the one in Python where that could not be built.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from robocache.ops import direct_launch, launch

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
    found = Configuration.from_address(configuration)
    parameters = (ctypes.c_void_p * 3).from_address(parameters)
    sizes = [getattr(found, name) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")]
    attributes = [(found.attributes[0], found.attributes[2])] if found.attribute_count else []
    values = [ctypes.c_uint64.from_address(parameters[at]).value for at in range(2)]
    values.append(ctypes.c_uint32.from_address(parameters[2]).value)
    assert extra is None
    return sizes, found.stream, attributes, function, values


class Driver:
    """A driver that notes its calls, and answers each with the next of `codes`, or 0."""

    def __init__(self):
        self.calls, self.codes, self.device = [], [], 0
        self.cuLaunchKernelEx = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(self._answer)

    def _answer(self, *arguments):
        code = self.codes.pop(0) if self.codes else 0
        if code == 0:
            self.calls.append(read(*arguments))
        return code


@pytest.fixture(params=["quick", "python"])
def driver(monkeypatch, request):
    """`cuLaunchKernelEx` on a GPU 0 that is not there."""
    pytest.importorskip("triton")
    made = Driver()
    for module in (launch, direct_launch):
        monkeypatch.setattr(module, "driver", lambda: made)
    monkeypatch.setattr(direct_launch, "_current_device", lambda: made.device)
    monkeypatch.setattr(direct_launch, "_current_stream", lambda device: 1 << 40)
    monkeypatch.setattr(launch, "_PROBLEMS", set())
    if request.param == "python":
        monkeypatch.setattr(direct_launch, "QUICK", None)
    elif direct_launch.QUICK is None:
        pytest.skip(direct_launch.QUICK_PROBLEM)
    return made


TENSORS = (torch.zeros(64), torch.ones(64))
POINTERS = [one.data_ptr() for one in TENSORS]


def prepare(result=None):
    """A kernel of two pointers and one number, and what it is made of."""
    kernel = Kernel(compiled() if result is None else result)
    return kernel, launch.PreparedKernel(kernel, 7, (0, 0), (5,), {})


def call(prepared, tensors=TENSORS):
    """As an operation does."""
    if not prepared.relaunch(tensors, 0):
        prepared.launch(tensors, 0)


def launched(result, times=3):
    """A kernel launched so often."""
    kernel, prepared = prepare(result)
    for _ in range(times):
        call(prepared)
    return kernel


def test_a_kernel_as_expected_is_handed_to_the_driver(driver):
    """The control of the tests below: once through Triton, then directly. Fails when a field lies elsewhere."""
    assert launched(compiled()).launches == 1
    assert driver.calls == [([7, 1, 1, 128, 1, 1, 0], 1 << 40, [], 4096, [*POINTERS, 5])] * 2
    assert launch.launch_problems() == []


def test_a_kernel_that_may_overlap_says_so_to_the_driver(driver):
    """Fails when the attribute is left out, is another one, or says no."""
    serialization = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    assert launched(compiled(launch_pdl=True)).launches == 1
    assert [one[2] for one in driver.calls] == [[(serialization, 1)]] * 2


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
    assert driver.calls == []
    (said,) = launch.launch_problems()
    assert said.startswith(problem)


def test_pointers_and_tensors_are_the_same(driver):
    """Fails when one stands for the other in the wrong place, or a tensor that comes twice is read once."""
    _, prepared = prepare()
    prepared.launch(TENSORS, 0)
    first, second = TENSORS
    for items in (TENSORS, tuple(POINTERS), (second, second), (POINTERS[1], first)):
        assert prepared.relaunch(items, 0)
    expected = [POINTERS, POINTERS, [POINTERS[1]] * 2, POINTERS[::-1]]
    assert [one[4][:2] for one in driver.calls] == expected


def test_a_kernel_is_compiled_anew_for_pointers_that_are_not_aligned(driver):
    """Fails when a kernel compiled for aligned pointers is handed others, as tensors or as numbers."""
    kernel, prepared = prepare()
    call(prepared)
    shifted = torch.zeros(65)[1:]
    call(prepared, (TENSORS[0], shifted))
    assert not prepared.relaunch((POINTERS[0], shifted.data_ptr()), 0)
    assert (kernel.launches, driver.calls) == (2, [])
    call(prepared)
    assert (kernel.launches, len(driver.calls)) == (2, 1)


def test_another_device_is_left_to_triton(driver):
    """Fails when a kernel is enqueued on the current device's stream for tensors of another."""
    _, prepared = prepare()
    call(prepared)
    driver.device = 1
    assert not prepared.relaunch(TENSORS, 0)
    assert driver.calls == []


def test_a_thread_that_has_not_used_the_device_begins_to(driver, monkeypatch):
    """Fails when the driver's answer "no context" becomes an error, or the kernel is not enqueued after all."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    kernel, prepared = prepare()
    call(prepared)
    driver.codes = [201]
    call(prepared)
    assert (chosen, kernel.launches, len(driver.calls)) == ([0], 1, 1)


def test_an_error_of_the_driver_is_raised(driver):
    """Fails when a launch that failed looks like one that did not."""
    _, prepared = prepare()
    call(prepared)
    driver.codes = [719]
    with pytest.raises(RuntimeError, match="cuLaunchKernelEx failed with CUDA error 719"):
        call(prepared)
    call(prepared)
    assert len(driver.calls) == 1


def test_threads_launch_with_pointers_of_their_own(driver):
    """Fails when launches share the room for their parameters: the interpreter is let go of in between."""
    _, prepared = prepare()
    call(prepared)

    def repeat(base):
        for at in range(200):
            assert prepared.relaunch((base + 32 * at, base + 32 * at + 16), 0)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(repeat, [1 << 30, 1 << 31, 1 << 32, 1 << 33]))
    pairs = [one[4] for one in driver.calls]
    assert len(pairs) == 800
    assert all(second == first + 16 and number == 5 for first, second, number in pairs)
    assert len({first for first, _, _ in pairs}) == 800
