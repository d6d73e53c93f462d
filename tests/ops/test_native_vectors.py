"""The compiled CPU library's vectors: the ends of rows that fill none, rows that lie anywhere.

Judged by numpy's arithmetic and by PyTorch's rounding, to the bit, on every instruction set.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import robocache as rc

from .conftest import by_dtype  # noqa: TID252 -- tests are not an installed package


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
