"""Ranges for nsys around every batch where they are asked for; where they are not, the very same functions."""

import pytest
import torch

import robocache as rc
from robocache.errors import BackendUnavailableError
from robocache.loader.nvtx import in_ranges, items_in_ranges

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def ranges(monkeypatch):
    """Ranges are on, and every push and pop is written down."""
    seen = []
    monkeypatch.setenv("ROBOCACHE_NVTX", "1")
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", seen.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: seen.append("end"))
    return seen


def opened(seen, name):
    assert seen.count("end") == len(seen) / 2  # each is closed
    return seen.count(name)


@pytest.mark.parametrize("value", [None, "", "0"])
def test_off_costs_nothing(value, monkeypatch):
    """Catches a wrapper that is there all the time and asks at each call."""
    monkeypatch.delenv("ROBOCACHE_NVTX", raising=False)
    if value is not None:
        monkeypatch.setenv("ROBOCACHE_NVTX", value)
    items = iter(range(3))
    assert in_ranges("x", opened) is opened
    assert items_in_ranges("x", items) is items


def test_a_range_ends_also_after_an_exception(ranges):
    with pytest.raises(ZeroDivisionError):
        in_ranges("x", lambda: 1 / 0)()
    assert opened(ranges, "x") == 1


@pytest.mark.parametrize("prefetch", [0, 2])
def test_every_batch_is_made_in_a_range(prefetch, make_dataset, ranges):
    """Catches a range around the consumer's loop instead of the making, and batches that are lost on the way."""
    with rc.Loader(make_dataset(), batch_size=2, memory="1MiB", prefetch=prefetch) as loader:
        batches = sum(1 for _ in loader)
    assert opened(ranges, "robocache: make a batch") == batches + 1  # the last one finds that the epoch is over


def test_the_generator_within_is_closed_with_its_ranges(ranges):
    """Catches a generator that is left to the garbage collector, with what it holds."""
    ended = []

    def numbers():
        try:
            yield from range(10)
        finally:
            ended.append(True)

    ranged = items_in_ranges("x", numbers())
    assert next(ranged) == 0
    ranged.close()
    assert ended == [True]


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch can make ranges")
def test_a_pytorch_without_nvtx_says_so(monkeypatch):
    monkeypatch.setenv("ROBOCACHE_NVTX", "1")
    with pytest.raises(
        BackendUnavailableError, match=r"^ROBOCACHE_NVTX=1 asks for NVTX ranges, which need a CUDA build"
    ):
        in_ranges("x", len)


@pytest.mark.gpu
def test_a_cuda_build_makes_real_ranges(monkeypatch):
    """Strict: no stand-in; a PyTorch that cannot make ranges on a GPU fails."""
    monkeypatch.setenv("ROBOCACHE_NVTX", "1")
    assert in_ranges("robocache: test", len) is not len
    assert in_ranges("robocache: test", len)([1, 2]) == 2
    assert list(items_in_ranges("robocache: test", iter("ab"))) == ["a", "b"]
