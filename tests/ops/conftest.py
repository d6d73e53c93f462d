"""One test body, every backend: the reference, portable torch, the compiled CPU library, the GPU kernels."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, so before robocache is

import robocache as rc  # noqa: E402
from robocache.ops import direct_launch, native_library, recent_calls  # noqa: E402
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp  # noqa: E402

from .backends import Backend  # noqa: E402, TID252 -- tests are not an installed package

MUST_HAVE_GPU = os.environ.get("ROBOCACHE_REQUIRE_GPU") == "1"
NO_GPU = "needs a GPU, and torch.cuda.is_available() is False"
MUST_HAVE_NATIVE = os.environ.get("ROBOCACHE_REQUIRE_NATIVE") == "1"
MANY_CASES, KEPT_OF = 3, 3
BACKENDS = ("reference", "pytorch", "native", "kernel")

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
POLICIES = (Linear(), Linear(outside="extrapolate"), Nearest(), Previous(), Slerp(), Angle())
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{type(p).__name__}-{p.outside}")
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
MODES = ("occupancy", "count", "mean", "max", "min", "sum")


def needs_native():
    """Skip where the library was not built, or fail where it must have been."""
    if native_library.PROBLEM is not None:
        (pytest.fail if MUST_HAVE_NATIVE else pytest.skip)(native_library.PROBLEM)


def pytest_collection_modifyitems(config, items):
    """Of many cases of one test that Triton's interpreter runs, take every third: all on a GPU, and every night."""
    if HAS_GPU or os.environ.get("ROBOCACHE_NIGHTLY") == "1":
        return
    cases = defaultdict(list)
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and is_interpreted(item):
            cases[item.path, item.originalname].append(item)
    spared = {
        item for found in cases.values() if len(found) > MANY_CASES for at, item in enumerate(found) if at % KEPT_OF
    }
    if spared:
        config.hook.pytest_deselected(items=list(spared))
        items[:] = [item for item in items if item not in spared]


def is_interpreted(item):
    """Whether a kernel is run, as far as that can be told: by a backend's name, or the device of kernels alone."""
    if "native" in (found := item.callspec.params.values() if hasattr(item, "callspec") else ()):
        return False
    return "kernel" in found or ("kernel_device" in item.fixturenames and "backend" not in " ".join(item.fixturenames))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not HAS_GPU:
        (pytest.fail if MUST_HAVE_GPU else pytest.skip)(NO_GPU)


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan():
    """Make torch fill every `empty` tensor with NaN, so that a kernel that skips an element shows."""
    torch.use_deterministic_algorithms(mode=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def ordinary_algorithms(_unwritten_memory_is_nan):
    """What users run unless they ask for determinism; the deterministic sums are another code path."""
    torch.use_deterministic_algorithms(mode=False)


@pytest.fixture
def small_tiles(monkeypatch):
    """Voxelize features by tiles however small the grid, and by tiles so small that the interpreter is quick.

    A tile has at most 16 voxels; 9 points crowd it, 17 are more than its bin holds.
    """
    plan = pytest.importorskip("robocache.ops.voxelize_pointcloud.tile_plan")
    sizes = {"TILE_BYTES": 256, "LEAST_TILE_BYTES": 64, "MEAN_POINTS": 8, "BLOCK": 8, "BLOCK_FULL": 16}
    programs = {
        "BLOCK_LIST": 8,
        "ELEMENTS_PER_WARP": 16,
        "POINTS_PER_PROGRAM": 64,
        "ZEROS_PER_STORE": 64,
        "PROGRAMS": 1,
    }
    always = dict.fromkeys(("LEAST_BYTES", "LEAST_POINTS", "LEAST_ROOM"), 0)
    for name, value in (sizes | programs | always).items():
        monkeypatch.setattr(plan, name, value)
    return plan


@pytest.fixture(scope="session")
def kernel_device():
    """Where kernels run: the GPU, or the CPU under Triton's interpreter."""
    if MUST_HAVE_GPU and not HAS_GPU:
        pytest.fail("ROBOCACHE_REQUIRE_GPU=1, but " + NO_GPU)
    return "cuda" if HAS_GPU else "cpu"


@pytest.fixture(scope="session", autouse=True)
def _interpreter_rounds_like_a_gpu():
    """Triton's interpreter cuts float32 off to bfloat16, where a GPU rounds to nearest even."""
    if HAS_GPU or importlib.util.find_spec("triton") is None:
        yield
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    cut_off = interpreter._convert_float

    def convert(values, source, target, rounding):
        if not (source.is_fp32() and target.is_bf16()):
            return cut_off(values, source, target, rounding)
        rounded = torch.from_numpy(np.array(values, dtype=np.float32)).to(torch.bfloat16)
        return rounded.view(torch.int16).numpy().view(np.uint16)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_convert_float", convert)
        yield


def implementation(name, kernel_device):
    """The implementation of a name, where it runs."""
    if name == "native":
        needs_native()
    return Backend(name, "cpu" if name in ("reference", "native") else kernel_device)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request, kernel_device):
    """Each implementation in turn."""
    return implementation(request.param, kernel_device)


@pytest.fixture(scope="session", params=BACKENDS[1:])
def fast_backend(request, kernel_device):
    """Each implementation that the reference judges."""
    return implementation(request.param, kernel_device)


@pytest.fixture(params=("pytorch", "native", "kernel"))
def make_grid(request, kernel_device):
    """`VoxelGrid` on each backend in turn; without a GPU its kernels run in Triton's interpreter."""
    name = implementation(request.param, kernel_device).name
    if name != "kernel":
        yield functools.partial(rc.VoxelGrid, device=kernel_device if name == "pytorch" else "cpu", backend=name)
        return
    pytest.importorskip("triton")
    operation = importlib.import_module("robocache.ops.voxelize_pointcloud")
    contract = importlib.import_module("robocache.ops.voxelize_pointcloud.grid")
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        if not HAS_GPU:  # what the public names refuse: kernels on a CPU
            for module in (operation, contract):
                patch.setattr(module, "choose_backend", lambda backend, device: backend or "native")
        yield functools.partial(rc.VoxelGrid, device=kernel_device, backend="cuda")
    operation._PLANS.clear()


@pytest.fixture
def native():
    """The compiled CPU library."""
    needs_native()
    return native_library.library()


@pytest.fixture
def library(native):
    """The loaded library, back on the best instructions afterwards."""
    yield native
    native.robocache_limit_instructions(99)


@pytest.fixture(scope="session")
def reference():
    """The definition, itself judged by numpy, scipy and pandas; on the CPU, where a loop over targets is quick."""
    return Backend("reference", "cpu")


@pytest.fixture(scope="session")
def assert_one_rounding():
    """Assert that a result is the exact value, computed in float32 (or float64), rounded once to its dtype."""

    def check(actual, exact, scale, operations=8):
        """`exact` is float64, `scale` bounds the values that went in; `operations` roundings in between."""
        assert exact.dtype == torch.float64
        assert actual.shape == exact.shape
        compute = torch.float64 if actual.dtype == torch.float64 else torch.float32
        unit = torch.finfo(compute).eps / 2
        # 1.0e-15 covers the float64 arithmetic of the exact value itself.
        slack = scale * (operations * unit + 1.0e-15)
        half_ulp = (exact.abs() + slack) * (torch.finfo(actual.dtype).eps / 2)
        half_ulp = half_ulp.clamp(min=torch.finfo(actual.dtype).smallest_normal * torch.finfo(actual.dtype).eps)
        assert torch.equal(actual.isnan(), exact.isnan()), "NaN in other places"
        error = (actual.double() - exact).abs()
        same = (actual.double() == exact) | exact.isnan()
        excess = torch.where(same, 0.0, error - half_ulp - slack)
        wrong = (excess > 0).nonzero()
        at = tuple(wrong[0].tolist()) if len(wrong) else None
        assert at is None, f"{actual[at]} at {at} and {len(wrong) - 1} more are not {exact[at]} rounded once"

    return check


@pytest.fixture(scope="session")
def assert_same_bits():
    """Assert equality to the bit: NaN equals NaN, and 0.0 is not -0.0."""

    def check(actual, expected):
        assert actual.dtype == expected.dtype
        assert actual.shape == expected.shape
        if actual.dtype == torch.bool:
            assert torch.equal(actual, expected)
            return
        as_int = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[actual.element_size()]
        left, right = actual.contiguous().view(as_int), expected.contiguous().view(as_int)
        different = (left != right) & ~(actual.isnan() & expected.isnan())
        assert not different.any(), f"{actual[different]} is not {expected[different]}"

    return check


@pytest.fixture(params=["quick", "python"])
def both_ways_to_recall(request, monkeypatch):
    """Calls are known again by `_native/python/quick.c`, and by the Python that stands in where that was not built."""
    if request.param == "python":
        monkeypatch.setattr(recent_calls, "recall", recent_calls.recall_in_python)
    elif direct_launch.QUICK is None:
        pytest.skip(direct_launch.QUICK_PROBLEM)
