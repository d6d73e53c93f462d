"""`gather_windows` against its definition, numpy's indexing, and what it must refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.errors import ArgumentError, BackendUnavailableError, DeviceError, DTypeError, ShapeError
from robocache.ops.gather_windows import gather_windows, reference
from robocache.ops.gather_windows.cases import EDGE_CASES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def by_kernel(packed, starts, window, ends=None):
    """The kernel itself: on a GPU, or in Triton's interpreter."""
    from robocache.ops.gather_windows.triton_kernel import WindowPlan

    plan = WindowPlan(packed, len(starts), window, with_ends=ends is not None)
    return plan((packed, starts) if ends is None else (packed, starts, ends))


def by_numpy(packed, starts, window, ends=None):
    rows = starts.numpy()[:, None] + np.arange(window)
    last = len(packed) - 1 if ends is None else np.minimum(ends.numpy()[:, None], len(packed)) - 1
    rows = np.maximum(np.minimum(rows, last), 0)
    return packed[torch.from_numpy(rows)]


RUNS = {
    "reference": reference.gather_windows,
    "pytorch": lambda *given: gather_windows(*given[:3], ends=given[3], backend="pytorch"),
    "best": lambda *given: gather_windows(*given[:3], ends=given[3]),
    "kernel": by_kernel,
}


@pytest.mark.parametrize("case", EDGE_CASES, ids=str)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("with_ends", [True, False])
def test_every_backend_is_numpys_indexing(case, run, with_ends):
    """Fails when a backend takes the wrong row near an episode's end (tried: `end` instead of `end - 1`)."""
    packed, starts, ends = case.inputs("cpu")
    ends = ends if with_ends else None
    wanted = by_numpy(packed, starts, case.window, ends)
    here = [None if one is None else one.to(DEVICE) for one in (packed, starts, ends)]
    actual = run(here[0], here[1], case.window, here[2])
    assert actual.shape == (case.batch, case.window, *case.shape)
    assert actual.dtype == case.dtype
    assert torch.equal(actual.cpu(), wanted)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_rows_outside_are_the_nearest(run):
    """No memory but that of `packed` is read, whatever the starts are."""
    packed = torch.arange(12.0, device=DEVICE).reshape(6, 2)
    starts = torch.tensor([-3, 5, 100, 2], device=DEVICE)
    ends = torch.tensor([6, 99, 6, 1], device=DEVICE)
    rows = torch.tensor([[0, 0], [5, 5], [5, 5], [0, 0]])
    assert torch.equal(run(packed, starts, 2, ends).cpu(), packed.cpu()[rows])


def test_it_is_compiled_and_differentiated():
    """`torch.compile` traces it whole, and a row's gradient is the number of windows that hold it."""
    packed = torch.arange(10.0, dtype=torch.float64, device=DEVICE, requires_grad=True)
    starts, ends = torch.tensor([3, 8], device=DEVICE), torch.tensor([5, 10], device=DEVICE)
    gather_windows(packed, starts, 3, ends=ends).sum().backward()
    assert packed.grad.tolist() == [0, 0, 0, 1, 2, 0, 0, 0, 1, 2]
    compiled = torch.compile(lambda *given: gather_windows(*given, 3), fullgraph=True, backend="eager")
    assert compiled(packed, starts).tolist() == [[3, 4, 5], [8, 9, 9]]


PACKED, STARTS = torch.zeros(5, 2), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (([1.0], STARTS, 2), ArgumentError, "packed must be a torch.Tensor, got list"),
        ((torch.tensor(1.0), STARTS, 2), ShapeError, "packed must be"),
        ((torch.zeros(2, 5).T, STARTS, 2), ShapeError, "contiguous"),
        ((torch.zeros(0, 2), STARTS, 2), ShapeError, "packed has no rows"),
        ((PACKED, STARTS.int(), 2), DTypeError, "starts is int32"),
        ((PACKED, STARTS[None], 2), ShapeError, "starts must be"),
        ((PACKED, STARTS, -1), ArgumentError, "window must be an integer of 0 or more, got -1"),
        ((PACKED, STARTS, 1.5), ArgumentError, "window must be an integer"),
        ((PACKED, STARTS, 2, STARTS[:2]), ShapeError, "ends has batch=2, but starts has batch=3"),
        ((PACKED, STARTS.to("meta"), 2), DeviceError, "starts is on meta, but packed is on cpu"),
    ],
)
def test_it_refuses(given, error, words):
    """The message names the argument, and the next call is right."""
    ends = given[3] if len(given) > 3 else None
    with pytest.raises(error, match=words):
        gather_windows(*given[:3], ends=ends)
    assert gather_windows(PACKED, STARTS, 2).shape == (3, 2, 2)


def test_there_is_no_native_backend():
    """Asking for one says so."""
    with pytest.raises(BackendUnavailableError, match="gather_windows has none"):
        gather_windows(PACKED, STARTS, 2, backend="native")
    assert rc.ops.gather_windows is not None


@pytest.mark.gpu
def test_a_result_beyond_two_billion_elements():
    """Offsets are 64 bits wide: fails with int32 ones."""
    packed = torch.arange(2**20, dtype=torch.int32, device="cuda").to(torch.uint8).reshape(-1, 1).repeat(1, 64)
    starts = torch.arange(2**15, device="cuda") * 31
    out = gather_windows(packed, starts, 1100)
    assert out.numel() > 2**31
    for number in (0, 2**14, 2**15 - 1):
        assert torch.equal(out[number], packed[31 * number : 31 * number + 1100])
