"""The compiled way from a call to its kernel: it is there where it can be, says where it is not, and is safe."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import robocache as rc
from robocache.ops import direct_launch, installation
from robocache.ops.resample_trajectories import native

TENSOR = torch.zeros(64)


def test_the_quick_way_is_there_where_it_can_be_built():
    """Fails when an installation loses it unseen."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if os.environ.get("ROBOCACHE_REQUIRE_NATIVE") != "1" or not headers.is_file():
        pytest.skip("no C compiler, or no headers of Python")
    assert direct_launch.QUICK_PROBLEM is None


def test_an_installation_without_the_quick_way_says_so(monkeypatch, capsys):
    """Fails when calls become slower and nobody is told why."""
    monkeypatch.setitem(sys.modules, "robocache._native.quick", None)  # as where it was not built
    found, problem = direct_launch._find_quick()
    assert found is None
    monkeypatch.setattr(installation, "QUICK_PROBLEM", problem)
    rc.print_installation_info()
    assert "slower calls: the quick launcher was not built for this Python" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "robocache._native.quick", SimpleNamespace(VERSION=0))
    assert "is of version 0, not 2: install RoboCache again" in direct_launch._find_quick()[1]


@pytest.mark.skipif(direct_launch.QUICK is None, reason=str(direct_launch.QUICK_PROBLEM))
class TestQuick:
    """What only the compiled way can get wrong."""

    def test_it_refuses_what_it_could_not_hold(self):
        """Fails when it writes past its own memory."""
        most, make = direct_launch.QUICK.MOST_SLOTS, direct_launch.QUICK.Launcher
        asked = (int, abs, torch.Tensor.data_ptr)
        for sizes, numbers in (((0, 3), ()), ((2, 2), (1,)), ((2, most + 1), ()), ((-1, 3), ())):
            with pytest.raises(ValueError, match="do not fit"):
                make(None, (1, 1), (1, 1, 0, False), sizes, numbers, asked)

    def test_it_refuses_what_is_not_a_call(self):
        """Fails when it reads arguments that are not there."""
        made = direct_launch.QUICK.Launcher(
            None, (1, 1), (1, 1, 0, False), (2, 2), (), (lambda: 0, lambda _: 0, torch.Tensor.data_ptr)
        )
        wrong = [(), (0,), (0, [1, 2]), (0, (16,)), (0, (16, 32), 3), (0, ("a", 16)), (0, (-16, 16)), ("0", (16, 16))]
        for arguments in wrong:
            with pytest.raises((TypeError, OverflowError)):
                made(*arguments)

    def test_it_leaves_no_references(self):
        """Fails when an argument, or what was asked, is not let go of."""
        keeps, stream = object(), [1 << 40]
        made = direct_launch.QUICK.Launcher(
            keeps, (1, 1), (1, 1, 0, False), (1, 2), (7,), (lambda: 1, lambda _: stream[0], torch.Tensor.data_ptr)
        )
        before = sys.getrefcount(TENSOR), sys.getrefcount(stream), sys.getallocatedblocks()
        for _ in range(1000):
            assert made(0, (TENSOR,)) is False
        after = sys.getrefcount(TENSOR), sys.getrefcount(stream), sys.getallocatedblocks()
        assert after[:2] == before[:2]
        assert after[2] - before[2] < 100
        count = sys.getrefcount(keeps)
        del made
        assert sys.getrefcount(keeps) == count - 1

    def test_a_host_call_refuses_what_it_could_not_hold(self):
        """Fails when it writes past its own memory, or takes part of a field."""
        make, most = direct_launch.QUICK.HostCall, direct_launch.QUICK.MOST_FIELDS
        asked = (torch.Tensor.data_ptr, torch.Tensor.is_neg, torch.get_num_threads)
        for fields, places, threads_at in (
            (b"1234567", (0,), 0),
            (bytes(8 * (most + 1)), (0,), 0),
            (bytes(16), (2,), 0),
            (bytes(16), (-1,), 0),
            (bytes(16), (0,), 2),
            (bytes(16), (0,), -1),
            (b"", (), 0),
            (bytes(16), (0,) * (most + 1), 0),
        ):
            with pytest.raises(ValueError, match=r"do not fit|are not whole fields"):
                make(1, fields, places, threads_at, 0, asked)
        made = make(1, bytes(16), (0,), 1, 0, asked)
        for arguments in ((), (TENSOR,), ([TENSOR],), ((),), ((TENSOR, TENSOR),), ((1,),), ((TENSOR,), 1)):
            with pytest.raises(TypeError):
                made(*arguments)

    def test_a_host_call_hands_over_every_field_in_its_place(self):
        """Fails when an address or the number of threads lands elsewhere, or is that of an earlier call."""
        seen = []

        @ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))
        def function(fields):
            seen.append(fields[:5])
            return 0

        threads = iter((1, 7))
        asked = (torch.Tensor.data_ptr, torch.Tensor.is_neg, lambda: next(threads))
        address = ctypes.cast(function, ctypes.c_void_p).value
        made = direct_launch.QUICK.HostCall(address, struct.pack("5q", 0, 11, 0, 13, -1), (2, 0), 3, 3, asked)
        first, second = torch.zeros(4), torch.zeros(4)
        assert made((first, second)) is True
        assert made((second, first)) is True
        one, other = first.data_ptr(), second.data_ptr()
        assert seen == [[other, 11, one, 1, -1], [one, 11, other, 7, -1]]
        assert made((first, torch.frombuffer(bytearray(9), dtype=torch.float32, count=2, offset=1))) is False
        assert made((torch._neg_view(first), second)) is False
        assert len(seen) == 2


@pytest.mark.skipif(direct_launch.QUICK is None, reason=str(direct_launch.QUICK_PROBLEM))
@pytest.mark.parametrize("is_quick", [True, False])
class TestHostCall:
    """A fuse and a resample on a CPU by the quick call are those that Python makes, also where it must step aside."""

    @pytest.fixture(autouse=True)
    def _way(self, is_quick, monkeypatch):
        for module in (rc.ops.fuse_multimodal, rc.ops.resample_trajectories):
            module.__globals__["_PLANS"].clear()
        if not is_quick:
            monkeypatch.setattr(native, "QUICK", None)
        yield
        for module in (rc.ops.fuse_multimodal, rc.ops.resample_trajectories):
            module.__globals__["_PLANS"].clear()

    def check(self, data, times, targets):
        wanted, wanted_valid = rc.resample_trajectories(data, times, targets, return_valid=True, backend="pytorch")
        for _ in range(3):  # the second call is planned, the third is known again
            got, valid = rc.resample_trajectories(data, times, targets, return_valid=True, backend="native")
            torch.testing.assert_close(got, wanted)
            assert torch.equal(valid, wanted_valid)
            fused = rc.fuse_multimodal(*(data, times) * 3, targets, backend="native")
            assert torch.equal(fused, torch.cat([got] * 3, dim=2))

    @pytest.fixture
    def given(self):
        random = torch.Generator().manual_seed(3)
        times = torch.rand(3, 40, generator=random).sort(dim=1).values
        return torch.randn(3, 40, 5, generator=random), times, torch.rand(3, 11, generator=random) * 1.2 - 0.1

    def test_as_it_lies(self, given):
        """Fails when an address goes to another's place."""
        self.check(*given)

    def test_other_tensors_of_the_same_shapes(self, given):
        """Fails when a call keeps the addresses of the one before."""
        self.check(*given)
        self.check(given[0] * 2, given[1] * 0.5, given[2].flip(1).contiguous())

    def test_negated_and_odd_addresses(self, given):
        """Fails when the library reads a negative view's memory as it lies, or an address that is no multiple."""
        data, times, targets = given
        self.check(*given)
        negative = torch._neg_view(-data)
        assert negative.is_neg()
        self.check(negative, times, targets)
        odd = torch.frombuffer(bytearray(data.numel() * 4 + 1), dtype=torch.float32, offset=1).view(data.shape)
        odd.copy_(data)
        assert odd.data_ptr() % 4
        self.check(odd, times, targets)

    def test_a_length_takes_the_long_way(self, given):
        """Fails when lengths are left out."""
        data, times, targets = given
        lengths = torch.tensor([40, 3, 17])
        wanted = rc.resample_trajectories(data, times, targets, lengths=lengths, backend="pytorch")
        for _ in range(3):
            got = rc.resample_trajectories(data, times, targets, lengths=lengths, backend="native")
            torch.testing.assert_close(got, wanted)
