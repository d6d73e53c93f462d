"""The compiled CPU library where results outgrow the caches, and where bfloat16 is rounded by the processor.

Judged by numpy: its search, and the same arithmetic in float32, to the bit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.ops.fuse_multimodal.cases import Case as FuseCase
from robocache.ops.resample_trajectories.cases import Case

LARGE_BYTES = 8 << 20  # from here on results are written past the caches


@pytest.fixture(autouse=True)
def library(native):
    """The loaded library, back on the best instructions and on the threads that there were."""
    threads = torch.get_num_threads()
    yield native
    native.robocache_limit_instructions(99)
    torch.set_num_threads(threads)


def levels(library):
    """Every set of inner loops that this processor runs."""
    library.robocache_limit_instructions(99)
    for level in range(library.robocache_instructions() + 1):
        library.robocache_limit_instructions(level)
        yield level


def mixed(low, high, weight):
    """float32 from the nearer end, as on every backend."""
    is_near = np.abs(weight) < np.float32(0.5)
    return np.where(is_near, low, high) + np.where(is_near, weight, weight - np.float32(1)) * (high - low)


def by_numpy(data, times, targets):
    """float32 [B,S,D], [B,S], [B,T] -> [B,T,D]; edges held; no two stamps equal."""
    rows = []
    for samples, stamps, wanted in zip(data.numpy(), times.numpy(), targets.numpy(), strict=True):
        later = np.searchsorted(stamps, wanted, side="right")
        low, high = np.clip(later - 1, 0, None), np.clip(later, None, len(stamps) - 1)
        is_single = (low == high) | (later == 0) | (stamps[low] == wanted)
        gap = np.where(is_single, np.float32(1), stamps[high] - stamps[low])
        weight = ((wanted - stamps[low]) / gap)[:, None]
        rows.append(np.where(is_single[:, None], samples[low], mixed(samples[low], samples[high], weight)))
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("widths", [(33, 7, 3), (1400,), (1, 2)], ids=str)
def test_a_large_fuse_is_numpy_to_the_bit(widths, threads, assert_same_bits):
    """Rows that start anywhere in a cache line. It fails if `write_past_caches` leaves out a first or a last part line,
    or `resample_part` stages rows that do not fit."""
    rows = LARGE_BYTES // (4 * sum(widths)) + 1000
    case = FuseCase("large", -(-rows // 250), tuple((40 + width, width) for width in widths), 250)
    data, times, targets = case.inputs("cpu")
    torch.set_num_threads(threads)
    streams = {str(width): rc.Stream(*pair) for width, pair in zip(widths, zip(data, times, strict=True), strict=True)}
    fused = rc.fuse_streams(streams, targets, backend="native").data
    assert fused.nbytes >= LARGE_BYTES
    assert_same_bits(fused, torch.cat([by_numpy(*pair, targets) for pair in zip(data, times, strict=True)], dim=2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8], ids=str)
def test_a_large_result_is_that_of_its_rows_alone(dtype, assert_same_bits):
    """Row by row is small, and so written in place."""
    policy = rc.Previous() if dtype == torch.uint8 else rc.Linear(outside="nan")
    data, times, targets = Case("large", 41, 90, 700, 300, torch.float32, torch.int64).inputs("cpu")
    data, lengths = (data * 50).abs().to(dtype), torch.arange(41) * 2
    large = rc.resample_trajectories(data, times, targets, policy=policy, lengths=lengths, backend="native")
    assert large.nbytes >= LARGE_BYTES
    for row in range(41):
        one = slice(row, row + 1)
        alone = rc.resample_trajectories(
            data[one], times[one], targets[one], policy=policy, lengths=lengths[one], backend="native"
        )
        assert_same_bits(large[one], alone)


@pytest.mark.parametrize("times", [torch.float32, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("source", [1, 2, 3, 7, 8, 33, 2000])
def test_searches_in_step_find_what_numpy_finds(source, times):
    """Any number of targets, in order and in none. It fails if `later_each` forgets the last few, or a last step."""
    stamps = torch.arange(source).mul(3).to(times)[None]
    data = torch.arange(float(source))[None, :, None]
    for count in (1, 7, 8, 9, 17, 130):
        targets = torch.randint(-5, 3 * source + 5, (1, count), generator=torch.Generator().manual_seed(count)).to(
            times
        )
        for wanted in (targets, targets.sort().values):
            found = rc.resample_trajectories(data, stamps, wanted, policy=rc.Previous(), backend="native")
            later = np.searchsorted(stamps[0].numpy(), wanted[0].numpy(), side="right")
            assert found.flatten().tolist() == np.clip(later - 1, 0, None).tolist()


@pytest.mark.parametrize("weight", [0.25, 0.625])
@pytest.mark.parametrize("dim", [1, 31, 32, 33, 66, 512])
def test_bfloat16_rows_are_rounded_as_torch_rounds_them(library, dim, weight, assert_same_bits):
    """Ordinary numbers take the processor's rounding, which loses subnormals and keeps NaN's bits: one of either in a
    row must send it the other way. It fails if `rounded_pairs` returns `at` whatever it met."""
    bits = torch.randint(0, 2**15, (200, 2, dim), generator=torch.Generator().manual_seed(dim)).to(torch.int16)
    bits = (bits % 0x3000 + 0x2000) | (bits << 15)  # normal, of both signs
    for row, at in enumerate(torch.arange(100) % dim):
        bits[row, :, at] = (0x7FC1, 0x0003, 0x7F80, 0)[row % 4]  # NaN, a subnormal, infinity less infinity, zero
    data = bits.view(torch.bfloat16)
    low, high = data.float().unbind(1)
    share, base = (weight, low) if weight < 0.5 else (weight - 1, high)
    expected = (base + share * (high - low)).to(torch.bfloat16)
    times, middle = torch.tensor([[0.0, 1.0]]).expand(200, -1), torch.tensor([[weight]]).expand(200, -1)
    for _ in levels(library):
        assert_same_bits(rc.resample_trajectories(data, times, middle, backend="native")[:, 0], expected)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 3, 5), (61, 47, 53)], ids=str)
def test_a_few_threads_count_what_numpy_counts(size, threads):
    """Grids of fewer voxels than ranges, and of a number that no range divides; a tenth of the points is dropped.

    It fails if `first_voxel` rounds down, if a thread leaves out its last range, or if `sort_by_range` keeps the points
    that are dropped.
    """
    steps = torch.randint(-1, 70, (300_001, 3), generator=torch.Generator().manual_seed(1)) % (torch.tensor(size) + 1)
    is_kept = (steps < torch.tensor(size)).all(1).numpy()
    torch.set_num_threads(threads)
    found = rc.voxelize_pointcloud(steps + 0.5, None, (0.0, 0.0, 0.0), 1.0, size, "count", backend="native")
    filled = rc.voxelize_pointcloud(steps + 0.5, None, (0.0, 0.0, 0.0), 1.0, size, backend="native")
    expected = np.bincount(np.ravel_multi_index(steps.numpy()[is_kept].T, size), minlength=found.numel())
    assert found.flatten().tolist() == expected.tolist()
    assert torch.equal(filled > 0, found > 0)
    assert filled.max() <= 1
