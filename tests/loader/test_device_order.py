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
from robocache.loader.device_order import DeviceOrder, HostOrder, Rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("lengths", [[1], [5], [4, 0, 300], [257] * 3 + [0, 0, 40000], [2, 1] * 40, [10**6 + 7]])
@pytest.mark.parametrize("shuffle", [True, False])
def test_places_are_those_of_the_sample_order(lengths, shuffle):
    """Fails when a round, the cycle walk or the search is left out (tried: each of the three)."""
    lengths = np.array(lengths)
    counts, window = lengths, 3
    order = SampleOrder(int(counts.sum()), batch_size=1, seed=7, shuffle=shuffle)
    rows = Rows(counts, lengths + window - 1)
    total, first_samples = int(counts.sum()), np.cumsum(counts) - counts
    first_rows = np.cumsum(lengths + window - 1) - (lengths + window - 1)
    for epoch, first in ((0, 0), (3, total // 3), (2**40, max(total - 700, 0))):
        count = min(700, total - first)
        wanted = order.samples_at(np.arange(first, first + count), epoch=epoch)
        episode = np.searchsorted(first_samples + counts, wanted, side="right")
        frame = wanted - first_samples[episode]
        ends = first_rows[episode] + lengths[episode] + window - 1
        for places in (
            DeviceOrder(order.permutation, rows, DEVICE).places(first, count, epoch),
            HostOrder(order, rows, DEVICE).places(first, count, epoch),
        ):
            assert np.array_equal(places.starts.cpu().numpy(), first_rows[episode] + frame)
            assert np.array_equal(places.ends.cpu().numpy(), ends)
            assert np.array_equal(places.episodes.cpu().numpy(), episode)
            assert np.array_equal(places.frames.cpu().numpy(), frame)


def test_spans_are_the_places_of_the_batches():
    """Rank by rank, also behind a loaded state."""
    for rank in range(3):
        order = SampleOrder(1000, batch_size=7, seed=1, rank=rank, world_size=3)
        order.load_state_dict(SampleOrder(1000, batch_size=5, seed=1).state_dict() | {"consumed": 40})
        wanted = [order.samples_at(np.arange(*span)) for span in order.spans()]
        assert all(np.array_equal(*pair) for pair in zip(order, wanted, strict=True))


def test_an_order_with_weights_has_no_permutation():
    """Whoever computes it elsewhere must ask, and gets None."""
    assert SampleOrder([3, 4], batch_size=1, weights=[1, 2]).permutation is None
    assert SampleOrder([3, 4], batch_size=1, shuffle=False).permutation is None
