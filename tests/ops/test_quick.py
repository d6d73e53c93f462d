"""The compiled way from a call to its kernel: it is there where it can be, says where it is not, and is safe."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import robocache as rc
from robocache.ops import direct_launch, installation

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
    assert "is of version 0, not 1: install RoboCache again" in direct_launch._find_quick()[1]


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
