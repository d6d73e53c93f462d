"""The compiled CPU library's vectors: ends of rows that fill none, rows that lie anywhere, the search by comparison.

Judged by numpy's search and arithmetic and by PyTorch's rounding, to the bit, on every instruction set.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.policies import Previous

from .conftest import by_dtype  # noqa: TID252 -- tests are not an installed package

COUNTS = (1, 2, 4, 7, 8, 15, 16, 17, 33, 64, 65, 127, 256, 257, 513, 1023, 1024, 1025)


def levels(library):
    """Every set of inner loops that this processor runs."""
    library.robocache_limit_instructions(99)
    for level in range(library.robocache_instructions() + 1):
        library.robocache_limit_instructions(level)
        yield level


@by_dtype
@pytest.mark.parametrize("weight", [0.25, 0.75])
def test_rows_of_any_width_anywhere(library, dtype, weight, assert_same_bits):
    """Widths around those of vectors, from samples and into columns that begin at any number.

    It fails if `line_bfloat16` masks one number too few or too many, and if `line_float16` drops what is left of a row.
    """
    random = np.random.default_rng(0)
    times, targets = torch.tensor([[0.0, 1.0]]), torch.full((1, 5), weight)
    for width in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 130):
        streams = [torch.from_numpy(random.standard_normal((1, 2, columns + 3))) for columns in (width, 1, width)]
        data = [one.to(dtype)[..., 3:] for one in streams]
        exact = np.float64 if dtype == torch.float64 else np.float32
        low, high = np.concatenate([one.to(torch.float64).numpy() for one in data], axis=2)[0].astype(exact)
        share, base = (weight, low) if weight < 0.5 else (weight - 1, high)
        expected = torch.from_numpy(base + exact(share) * (high - low)).to(dtype).expand(1, 5, -1)
        pairs = [tensor for one in data for tensor in (one, times)]
        for _ in levels(library):
            assert_same_bits(rc.fuse_multimodal(*pairs, targets, backend="native"), expected)


def stamps_and_targets(count, dtype, random):
    """Ascending with some equal, and targets on, between and beyond them, as late as the type goes."""
    stamps = np.sort(random.integers(-3 * count, 3 * count, count)) * 2
    targets = np.concatenate([stamps, stamps + 1, stamps - 1, [-(2**40), 2**40]])
    random.shuffle(targets)
    stamps, targets = stamps.astype(dtype), targets.astype(dtype)
    latest = np.iinfo(dtype).max if dtype == np.int64 else np.finfo(dtype).max
    targets[0] = latest
    if count > 2:
        stamps[-1] = latest
    return stamps, targets


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_search_is_that_of_numpy(library, dtype):
    """It fails if what fills the last vector counts as stamps, or a target on a stamp as before it."""
    random = np.random.default_rng(1)
    for count in COUNTS:
        stamps, targets = stamps_and_targets(count, dtype, random)
        expected = np.maximum(np.searchsorted(stamps, targets, side="right") - 1, 0)
        numbers = torch.arange(count, dtype=torch.float32)[None, :, None]
        times, wanted = torch.from_numpy(stamps)[None], torch.from_numpy(targets)[None]
        # Before all stamps the first counts, and of equal ones the last.
        expected = np.where(targets < stamps[0], np.searchsorted(stamps, stamps[0], side="right") - 1, expected)
        for level in levels(library):
            for few in (wanted, wanted[:, :3]):
                found = rc.resample_trajectories(numbers, times, few, policy=Previous(), backend="native")[0, :, 0]
                assert np.array_equal(found.numpy(), expected[: few.shape[1]]), (count, level)


def test_targets_and_padding_that_are_no_numbers(library):
    """Padded rows, and targets that are NaN or infinite, in the middle of others that are not."""
    stamps = torch.arange(100, dtype=torch.float32)[None].repeat(2, 1)
    stamps[1, 40:] = torch.inf
    targets = torch.tensor([3.5, torch.nan, 98.0, torch.inf, -torch.inf, 39.0, 50.0]).expand(2, -1)
    numbers = torch.arange(100, dtype=torch.float32)[None, :, None].repeat(2, 1, 1)
    nan = torch.nan
    expected = torch.tensor([[3, nan, 98, 99, 0, 39, 50], [3, nan, 39, 39, 0, 39, 39]])
    for _ in levels(library):
        found = rc.resample_trajectories(numbers, stamps, targets, policy=Previous(), backend="native")
        assert torch.equal(found[..., 0].nan_to_num(-1), expected.nan_to_num(-1))
