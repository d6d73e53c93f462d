"""`benchmarks.native`: its peers are right for both dtypes, and what is missed or wrong is said."""

from __future__ import annotations

import pytest
import torch

from benchmarks import native
from robocache.benchmarks import host_timing
from robocache.benchmarks.candidates import Candidate
from robocache.ops.backends import native_problem
from robocache.ops.fuse_multimodal.cases import EDGE_CASES as FUSES
from robocache.ops.voxelize_pointcloud.cases import EDGE_CASES as CLOUDS

pytestmark = pytest.mark.skipif(native_problem() is not None, reason="needs the compiled CPU library")
SMALL = ((FUSES[1], 0.0), (CLOUDS[2], 1e9), (CLOUDS[6], 1e9))  # three streams, a count, a mean


@pytest.fixture
def document(monkeypatch):
    monkeypatch.setattr(native, "PROMISED", SMALL)
    monkeypatch.setattr(native, "CLOUDS", CLOUDS)
    monkeypatch.setattr(native, "EFFORT", host_timing.QUICK)
    before = torch.get_num_threads()
    cases = [{"name": name, "bound": bound, **native.measure(one, [1, 2])} for name, bound, one in native.problems()]
    torch.set_num_threads(before)
    return {"threads": [1, 2], "cases": cases}


def test_nothing_is_wrong_and_bounds_are_judged(document):
    """It fails when the peers number bfloat16 points in bfloat16, or when a bound is compared the wrong way round."""
    assert [case["wrong"] for case in document["cases"]] == [{}] * 6
    header, rows = native.table(document)
    assert {len(row) for row in rows} == {len(header)}
    assert [row[1].split(", ")[1] for row in rows] == ["reached", "missed", "missed"] * 2


def test_a_wrong_peer_is_named_and_not_timed(document, monkeypatch):
    monkeypatch.setattr(native, "torch_peers", lambda *_, **__: [Candidate("broken", lambda: torch.zeros(3))])
    name, bound, problem = next(native.problems())
    found = native.measure(problem, [1])
    assert list(found["wrong"]) == [native.PEER]
    case = {"name": name, "bound": bound, **found}
    assert native.verdict(case, "1") == "not timed"
    assert native.table({"threads": [1], "cases": [case]})[1][0][2] == "–"
