"""The iteration's expectations are judged by numpy, and its count of wrong elements is exact."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from robocache.stress import workload as iteration_of
from robocache.stress.report import Report
from robocache.stress.verdicts import Verdict
from robocache.stress.workload import GRID, STREAMS, Workload, infer, make_input_set, right_elements

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
SETS = {torch.int64: 0, torch.float64: 1, torch.float32: 2}  # the seed that gives times of this dtype


def float32_bits(tensor):
    return tensor.float().numpy().view(np.int32).astype(np.int64)


@pytest.mark.parametrize("dtype", SETS, ids=str)
def test_numpys_interpolation_lies_within_the_bounds_and_these_are_neighbours(dtype):
    inputs = make_input_set(SETS[dtype], batch=2)
    targets, start = inputs.streams[-1].numpy(), 0
    assert inputs.streams[-1].dtype == dtype
    for stream, (_, dim) in enumerate(STREAMS):
        data, times = inputs.streams[2 * stream].double().numpy(), inputs.streams[2 * stream + 1].numpy()
        for row in range(2):
            since = [(each - times[row, 0]).astype(np.float64) for each in (targets[row], times[row])]
            for column in (0, dim - 1):
                wanted = np.interp(*since, data[row, :, column])
                lowest, highest = (bound[row, :, start + column].double() for bound in (inputs.lowest, inputs.highest))
                rounded = torch.from_numpy(wanted).to(torch.bfloat16).double().numpy()
                assert (lowest.numpy() <= rounded).all()
                assert (rounded <= highest.numpy()).all()
        start += dim
    apart = float32_bits(inputs.highest) - float32_bits(inputs.lowest)
    # In bits of float32, one step of bfloat16: a rounding that float32's last digits may tip over, and a rare one.
    steps = np.abs(apart[inputs.lowest.float().abs().numpy() > 0.05]) // 0x10000
    assert set(np.unique(steps)) <= {0, 1}
    assert (steps == 0).mean() > 0.99


def test_the_grid_is_numpys_and_the_cloud_holds_every_kind_of_point():
    inputs = make_input_set(0, batch=1)
    points = inputs.points.numpy()
    finite = points[np.isfinite(points).all(1)]
    steps = np.floor((finite - np.float32(-10)) / np.float32(0.1))
    inside = ((steps >= 0) & (steps < GRID[0])).all(1)
    wanted = np.zeros(GRID, dtype=np.int32)
    wanted[tuple(steps[inside].astype(int).T)] = 1
    assert (inputs.grid.numpy() == wanted).all()
    assert len(finite) < len(points)
    assert 0.2 < inside.mean() < 0.9
    on_a_plane = np.abs(finite / 0.1 - np.round(finite / 0.1)).max(1) < 1e-4
    assert on_a_plane.sum() > 10_000


def test_an_iteration_is_right_and_three_wrong_elements_are_three():
    inputs = make_input_set(1, batch=2)
    fused, grid = infer(*inputs.fresh())
    assert int(right_elements(fused, grid, inputs)) == inputs.elements
    fused[1, 2, 3], fused[0, 0, 0], grid[0, 0, 0] = torch.nan, 1e6, 7
    assert int(right_elements(fused, grid, inputs)) == inputs.elements - 3
    assert int(right_elements(fused[:, 1:], grid, inputs)) == 0


def test_a_result_is_looked_at_after_the_next_iteration_and_none_is_left_out(monkeypatch):
    workload = Workload(batch=1, is_bit_exact=True)
    for iteration in range(4):
        workload.run(iteration)
    assert workload.wrong_elements() == 0
    workload.run(0)
    workload._held[1].zero_()  # overwritten after it was returned
    assert workload.wrong_elements() == int(make_input_set(0, batch=1).grid.sum())


@pytest.mark.parametrize("is_alone", [True, False])
def test_alone_only_the_operations_have_threads(monkeypatch, is_alone):
    """Fails when an iteration of the burn-in spins on a busy machine, or leaves one thread behind it."""
    seen = {}

    def noted(name, function):
        def call(*arguments):
            seen[name] = torch.get_num_threads()
            return function(*arguments)

        return call

    monkeypatch.setattr(iteration_of, "infer", noted("infer", infer))
    monkeypatch.setattr(iteration_of, "right_elements", noted("right", right_elements))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        workload = Workload(batch=1, is_alone=is_alone)
        for iteration in range(2):
            workload.run(iteration)
        assert seen == {"infer": 2, "right": 1 if is_alone else 2}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_report_passes_on_pass_and_inconclusive_only():
    def report(*outcomes):
        return Report("a", "cpu", 1, 1.0, verdicts=tuple(Verdict("heap_bytes", each, "why") for each in outcomes))

    assert report("PASS", "INCONCLUSIVE").passed
    assert not report("PASS", "FAIL").passed
    assert not report("INVALID").passed
    assert report("INVALID").problems == ("INVALID heap_bytes: why",)
    assert not Report("a", "cpu", 1, 1.0, failures=("it broke",)).passed
    assert json.loads(json.dumps(report("PASS").as_dict()))["passed"] is True
    # A machine that reads this must not take "cannot tell" for a pass: the exit code does not either.
    assert report("PASS", "INCONCLUSIVE").as_dict()["passed"] is False
    assert "a FAILED on cpu: 1 iterations in 1.0 s\n  FAIL heap_bytes: why" in str(report("FAIL"))
