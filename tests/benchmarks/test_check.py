"""What passes for right: one step of the dtype, every voxel of ours, hardly any of theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robocache.benchmarks.check import Judge, difference
from robocache.benchmarks.workloads import workloads


def problem_of(name):
    (workload,) = workloads("cpu", quick=True, wanted=[name])
    return workload.problem("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_step_of_the_dtype_is_right_and_three_are_wrong(dtype):
    """Fails when the tolerance is wider than the rounding that the operations promise, or narrower."""
    wanted = torch.tensor([1.5, 1.0, 300.0, -0.7]).to(dtype)
    for steps, is_right in ((1, True), (3, False)):
        got = wanted.clone()
        got[0] = (wanted[0].double() + steps * torch.finfo(dtype).eps).to(dtype)
        assert (difference(got, wanted, share=0.0) is None) is is_right


def test_a_difference_names_count_place_and_values():
    """Fails when a report says something is wrong but not what."""
    wanted = torch.tensor([[1, 2], [3, 4]], dtype=torch.int32)
    got = torch.tensor([[1, 2], [5, 5]], dtype=torch.int32)
    assert difference(got, wanted, share=0.0) == "2 of 4 numbers differ, first number 2: 5, wanted 3"


def test_nan_is_wrong_unless_it_is_wanted():
    """Fails when NaN passes, as it does in a comparison by largest difference."""
    numbers, gone = torch.zeros(2), torch.tensor([0.0, torch.nan])
    assert difference(gone, numbers, share=0.0) is not None
    assert difference(numbers, gone, share=0.0) is not None
    assert difference(gone, gone, share=0.0) is None


def test_peers_may_miss_a_voxel_and_backends_may_not():
    """Fails when our backends are forgiven what libraries with another division are."""
    problem = problem_of("count_500k_to_128")
    judge, result = Judge(problem), problem.call("pytorch")()
    result.flatten()[7] += 1
    assert judge.fault(result, is_ours=False) is None
    assert judge.fault(result, is_ours=True).startswith("against the reference 1 of 32768")
    result += 1
    assert judge.fault(result, is_ours=False) is not None


def test_an_error_outside_the_reference_part_is_found():
    """Fails when only the part that the reference computes is compared."""
    problem = problem_of("resample_64x4096x32_to_1024")
    part, wanted = problem.reference_part()
    result = problem.call("pytorch")()
    result[0, 1] += 1
    assert difference(part(result), wanted, share=0.0) is None
    assert Judge(problem).fault(result, is_ours=True).startswith("against the pytorch backend 32 of")


def test_another_shape_or_dtype_is_wrong():
    """Fails when a result is broadcast or cast into being right."""
    problem = problem_of("resample_64x4096x32_to_1024")
    judge, result = Judge(problem), problem.call("pytorch")()
    assert "has shape" in judge.fault(result[:, :1], is_ours=True)
    assert "has dtype torch.float32" in judge.fault(result.float(), is_ours=True)


def test_needed_bytes_count_each_sample_once():
    """Fails when samples beside no target are counted, or shared ones twice. Judged by numpy."""
    problem = problem_of("fuse_30x512_100x64_200x12_to_50_b4")
    total = problem.targets.nbytes + problem.output_bytes()
    for data, times in zip(problem.data, problem.times, strict=True):
        total += times.nbytes
        for row in range(len(times)):
            later = np.searchsorted(times[row].numpy(), problem.targets[row].numpy(), side="right")
            used = set(np.clip(later, 0, times.shape[1] - 1)) | set(np.clip(later - 1, 0, times.shape[1] - 1))
            total += len(used) * data.shape[2] * 2
    assert problem.needed_bytes() == total
