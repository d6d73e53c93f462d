"""The short way of the PyTorch backend gives what its general way gives, to the bit, or nothing.

The general way is judged by numpy, scipy and the reference in the other files; all of them meet the short one too.
"""

from __future__ import annotations

import math

import pytest
import torch

import robocache as rc
from robocache.ops.fuse_multimodal import torch_backend as fuse_backend
from robocache.ops.fuse_multimodal.cases import Case as FuseCase
from robocache.ops.resample_trajectories import torch_backend, torch_linear
from robocache.policies import Linear, Previous

STREAMS = ((30, 9), (7, 4), (12, 1))
TIMES = (torch.float32, torch.float64, torch.int64)
by_times = pytest.mark.parametrize("times", TIMES, ids=str)
NAN, INF = math.nan, math.inf


@pytest.fixture
def general(monkeypatch):
    """A fuse that never takes the short way."""

    def fuse(data, times, targets):
        with monkeypatch.context() as patch:
            patch.setattr(torch_linear, "takes", lambda *_: False)
            return fuse_backend.fuse(data, times, targets, [Linear()] * len(data), [None] * len(data))

    return fuse


def inputs(dtype, times, batch=3):
    """Targets between, before, behind and exactly on stamps; samples that only a copy keeps."""
    data, stamps, targets = FuseCase("any", batch, STREAMS, 40, dtype, times).inputs("cpu")
    for index, (values, clock) in enumerate(zip(data, stamps, strict=True)):
        targets[:, 10 * index : 10 * index + 5] = clock[:, -5:]
        targets[:, 10 * index + 5] = clock[:, 0]
        values[:, 0, 0], values[:, -1, 0], values[:, -2, 0], values[:, -3, 0] = -0.0, INF, NAN, 5e-8
    return data, stamps, targets


@by_times
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_the_same_to_the_bit(general, dtype, times, assert_same_bits, monkeypatch):
    """It fails without the copy of single samples (`index_copy_`), or with one of a mixed `low`.

    And in pieces of samples: when one of them begins where the last one did, or is written over by the next.
    """
    for batch, piece in ((3, 1 << 19), (300, 1 << 19), (3, 1000), (3, 1)):
        monkeypatch.setattr(torch_linear, "_PIECE_BYTES", piece)
        data, stamps, targets = inputs(dtype, times, batch)
        expected, valid = general(data, stamps, targets)
        actual = torch_linear.fuse(data, stamps, targets)
        assert actual is not None
        assert_same_bits(actual[0], expected)
        assert torch.equal(actual[1], valid)
        for with_valid in (True, False):
            alone = torch_linear.fuse(data[:1], stamps[:1], targets, with_valid=with_valid)
            assert_same_bits(alone[0], expected[..., : STREAMS[0][1]])
            assert_same_bits(torch_linear.fuse(data, stamps, targets, with_valid=with_valid)[0], expected)


class TestLeftToTheGeneralWay:
    """Where the short way would be wrong it gives None, and the backend still gives the answer."""

    @staticmethod
    def check(general, data, stamps, targets):
        assert torch_linear.takes(data, stamps, targets, [Linear()] * 3, [None] * 3)
        assert torch_linear.fuse(data, stamps, targets) is None
        expected = general(data, stamps, targets)
        actual = fuse_backend.fuse(data, stamps, targets, [Linear()] * 3, [None] * 3)
        torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(actual[1], expected[1])

    @by_times
    @pytest.mark.parametrize("at", [0, 3, 10])
    def test_equal_stamps(self, general, times, at):
        """Behind a target the last of them counts, also behind one before all stamps."""
        data, stamps, targets = inputs(torch.float32, times)
        stamps[2][1, at + 1] = stamps[2][1, at]
        targets[:, :12] = stamps[2]
        targets[1, 14] = stamps[2][1, at] - (1 if times == torch.int64 else 1e-4)
        self.check(general, data, stamps, targets)

    def test_a_row_that_begins_where_the_last_one_ended(self, general):
        """An alarm for nothing: the stamp behind the last of a row is looked for in the next one."""
        data, stamps, targets = inputs(torch.float32, torch.int64)
        stamps[0][1] += stamps[0][0, -1] - stamps[0][1, 0]
        self.check(general, data, stamps, targets)

    @pytest.mark.parametrize("stamp", [INF, NAN])
    def test_padded_rows(self, general, stamp):
        data, stamps, targets = inputs(torch.float32, torch.float64)
        stamps[1][2, -1] = stamp
        self.check(general, data, stamps, targets)

    def test_a_row_padded_behind_all_targets(self, general):
        """Fails when only NaN is looked for: between a stamp and an infinite one nothing is NaN."""
        data, stamps, targets = inputs(torch.float32, torch.float64)
        stamps[1][2, -1] = INF
        targets[2] = stamps[1][2, -2] + 1e-3
        self.check(general, data, stamps, targets)

    @pytest.mark.parametrize("target", [INF, -INF, NAN])
    def test_targets_that_are_no_number(self, general, target):
        data, stamps, targets = inputs(torch.float32, torch.float64)
        targets[1, 3] = target
        self.check(general, data, stamps, targets)


def test_what_is_not_the_common_case():
    data, stamps, targets = inputs(torch.float32, torch.float64)
    common = [Linear()] * 3, [None] * 3
    assert torch_linear.takes(data, stamps, targets, *common)
    for policy in (Previous(), Linear(max_gap=1.0), Linear(outside="nan"), Linear(outside="extrapolate")):
        assert not torch_linear.takes(data, stamps, targets, [Linear(), policy, Linear()], common[1])
    assert not torch_linear.takes(data, stamps, targets, common[0], [None, None, torch.tensor([1, 2, 3])])
    assert not torch_linear.takes([data[0], data[1][:, :, ::2], data[2]], stamps, targets, *common)
    assert not torch_linear.takes([one.requires_grad_() for one in data], stamps, targets, *common)
    with torch.no_grad():
        assert torch_linear.takes(data, stamps, targets, *common)
    assert not torch_linear.takes(data, stamps, targets[:, :0], *common)


def test_it_is_the_way_that_users_go(monkeypatch):
    """Public calls of the common case must not reach the general search."""
    monkeypatch.setattr(torch_backend, "find_neighbours", None)
    data, stamps, targets = inputs(torch.float32, torch.float64)
    pairs = [tensor for pair in zip(data, stamps, strict=True) for tensor in pair]
    rc.fuse_multimodal(*pairs, targets, backend="pytorch")
    rc.resample_trajectories(data[0], stamps[0], targets, backend="pytorch")
    with pytest.raises(TypeError, match="NoneType"):
        rc.resample_trajectories(data[0], stamps[0], targets, policy=Previous(), backend="pytorch")
