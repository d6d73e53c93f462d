"""One record a frame: the batches of a plain loop, whatever is side by side, in the order of `SampleOrder`."""

from __future__ import annotations

import pytest
import torch

import robocache as rc
from robocache.loader import SampleOrder
from robocache.loader import records as records_module
from robocache.loader.joined import Joined
from robocache.loader.layout import Layout, SampleIndex
from robocache.loader.record_layout import RecordLayout
from robocache.loader.records import Records

NUMBERS = ("flag", "state", "wide", "imu", "action")
ON = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


def made(datasets, window, device):
    joined = Joined(datasets)
    layout = RecordLayout(joined, Layout(joined, window))
    assert RecordLayout.serves(joined, layout.layout)
    return joined, Records(layout, torch.device(device))


def batches(records, order, step_samples):
    return [records.batch(part) for part in records.parts(order, step_samples)]


@ON
@pytest.mark.parametrize("names", [NUMBERS, ("state",), ("flag", "action")])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_batches_are_those_of_a_loop(make_dataset, check, names, window, device):
    """Fails when a value lies elsewhere in a record, or one beyond an episode's end is valid (tried: both)."""
    datasets = [make_dataset(names=names), make_dataset(lengths=(1, 20), names=names, seed=3)]
    joined, records = made(datasets, window, device)
    total = int(SampleIndex(joined.lengths, window).counts.sum())
    order = SampleOrder(total, batch_size=7, seed=5)
    found = batches(records, order, 7)
    wanted = [SampleIndex(joined.lengths, window).locate(samples) for samples in order]
    assert len(found) == len(wanted)
    for batch, (episodes, frames) in zip(found, wanted, strict=True):
        assert batch.frame.tolist() == frames.tolist()
        assert (batch.episode.cpu().numpy() + joined.first_episode[batch.dataset.cpu().numpy()] == episodes).all()
        check(batch, datasets, window)
    records.close()


@ON
def test_fused_columns_are_neighbours_already(make_dataset, device):
    """No copy: fails when the record's order is not that of `Batch.fused`."""
    _, records = made([make_dataset(names=("state", "flag"))], 2, device)
    batch = batches(records, SampleOrder(5, batch_size=5), 5)[0]
    assert batch.fuses == ("state",)
    assert batch.fused.data_ptr() == batch["state"].data_ptr()
    assert batch.fused.equal(batch["state"])
    records.close()


@ON
def test_every_rank_gets_its_part(make_dataset, monkeypatch, device):
    """Fails when the gaps between a rank's batches are not left out; places are computed two steps at a time."""
    monkeypatch.setattr(records_module, "PLACES", 30)
    dataset = make_dataset(names=("state",), lengths=(40, 41, 9))
    _, records = made([dataset], 1, device)
    for rank in range(3):
        order = SampleOrder(90, batch_size=4, seed=2, rank=rank, world_size=3)
        found = [batch.episode.mul(100).add(batch.frame).tolist() for batch in batches(records, order, 12)]
        index = SampleIndex(dataset.lengths, 1)
        wanted = [(lambda at: (at[0] * 100 + at[1]).tolist())(index.locate(samples)) for samples in order]
        assert found == wanted
    records.close()


@ON
def test_weighted_orders_are_computed_on_the_host(make_dataset, check, device):
    """The device knows one permutation; a mixture's places are looked up instead."""
    datasets = [make_dataset(names=("state",)), make_dataset(names=("state",), lengths=(30,), seed=1)]
    _, records = made(datasets, 2, device)
    lengths = [int(SampleIndex(part.lengths, 2).counts.sum()) for part in datasets]
    order = SampleOrder(lengths, batch_size=8, seed=2, weights=[3, 1])
    found = batches(records, order, 8)
    assert sum(int((batch.dataset == 0).sum()) for batch in found) == round(sum(lengths) * 3 / 4)
    for batch in found:
        check(batch, datasets, 2)
    records.close()


def test_what_is_not_numbers_is_left_to_others(make_dataset):
    """Images, points, and streams that a dataset lacks."""
    for datasets in (
        [make_dataset(names=("state", "image"))],
        [make_dataset(names=("state", "cloud"))],
        [make_dataset(names=("state",)), make_dataset(names=("state", "flag"))],
    ):
        joined = Joined(datasets)
        assert not RecordLayout.serves(joined, Layout(joined, 1))


@pytest.mark.gpu
def test_a_loader_takes_records_and_gives_the_epochs_of_the_cpu(make_dataset, check):
    """Fails when the tier, the order, or the resumed place differs from a loader on the CPU."""
    datasets = [make_dataset(names=NUMBERS), make_dataset(names=NUMBERS, lengths=(50, 3), seed=4)]
    given = {"batch_size": 8, "window": 2, "seed": 3}
    with (
        rc.Loader(datasets, device="cuda", memory="64MiB", **given) as loader,
        rc.Loader(datasets, **given) as other,
    ):
        assert loader.statistics().tier == "gpu"
        for epoch in range(2):
            for batch, wanted in zip(loader, other, strict=True):
                check(batch, datasets, 2)
                assert batch.frame.cpu().equal(wanted.frame)
                assert batch.fused.cpu().equal(wanted.fused)
            assert loader.statistics().packed_bytes > 0, epoch
        for _, batch in zip(range(3), loader, strict=False):
            last = batch
        state = loader.state_dict()
        assert last is not None
    with rc.Loader(datasets, **given) as other:
        other.load_state_dict(state)
        assert len(other) == loader.__len__() - 3
    with pytest.raises(rc.RoboCacheError):
        next(iter(loader))
