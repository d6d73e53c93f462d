"""The order computed on a device is `SampleOrder`'s: through Triton's interpreter here, compiled on a GPU."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported
pytest.importorskip("triton")

from robocache.loader import SampleOrder
from robocache.loader.device_order import DeviceOrder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("lengths", [[1], [5], [4, 0, 300], [257] * 3 + [0, 0, 40000], [2, 1] * 40, [10**6 + 7]])
@pytest.mark.parametrize("shuffle", [True, False])
def test_places_are_those_of_the_sample_order(lengths, shuffle):
    """Fails when a round, the cycle walk or the search is left out (tried: each of the three)."""
    window = 3
    sample_offsets = np.cumsum([0, *lengths])
    row_offsets = np.cumsum([0, *(length + window - 1 for length in lengths)])
    total = int(sample_offsets[-1])
    order = SampleOrder(total, batch_size=1, seed=7, shuffle=shuffle)
    device_order = DeviceOrder(order.permutation, sample_offsets, row_offsets, DEVICE)
    for epoch, first in ((0, 0), (3, total // 3), (2**40, max(total - 700, 0))):
        count = min(700, total - first)
        wanted = order.samples_at(np.arange(first, first + count), epoch=epoch)
        places = device_order.places(first, count, epoch)
        episode = np.searchsorted(sample_offsets, wanted, side="right") - 1
        assert np.array_equal(places.samples.cpu().numpy(), wanted)
        assert np.array_equal(places.starts.cpu().numpy(), row_offsets[episode] + wanted - sample_offsets[episode])
        assert np.array_equal(places.ends.cpu().numpy(), row_offsets[episode + 1])


def test_an_order_with_weights_has_no_permutation():
    """Whoever computes it elsewhere must ask, and gets None."""
    assert SampleOrder([3, 4], batch_size=1, weights=[1, 2]).permutation is None
    assert SampleOrder([3, 4], batch_size=1, shuffle=False).permutation is None
