"""What batches hold, on every tier, judged by a plain loop over samples."""

import dataclasses

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.errors import ArgumentError, BudgetError, DeviceError, ShapeError
from robocache.loader import tiers
from robocache.loader.gather import Runs, gather, gather_by_numpy
from robocache.loader.joined import Joined
from robocache.loader.layout import Layout
from robocache.loader.packed import PackedOnDevice
from robocache.loader.packing import plan_packing
from robocache.loader.sizes import parse_size
from robocache.ops import native_library

pytestmark = pytest.mark.timeout(120)
NO_POINTS = ("state", "wide", "flag", "imu", "action", "image")


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(("memory", "tier"), [("12KB", "disk"), ("1MiB", "ram")])
@pytest.mark.parametrize("gathers", ["native", "numpy"])
def test_every_sample_of_an_epoch_is_what_a_loop_finds(make_dataset, check, monkeypatch, window, memory, tier, gathers):
    """Fails when a horizon begins a frame early, a held row counts as valid, or a run reads beyond its episode."""
    if gathers == "numpy":
        monkeypatch.setattr(native_library, "PROBLEM", "switched off")
    dataset = make_dataset()
    seen = []
    with rc.Loader(dataset, batch_size=4, window=window, memory=memory) as loader:
        assert loader.statistics().tier == tier
        for batch in loader:
            check(batch, [dataset], window)
            seen += list(zip(batch.episode.tolist(), batch.frame.tolist(), strict=True))
        assert loader.statistics().peak_bytes <= loader.statistics().limit_bytes
    assert sorted(seen) == [(e, f) for e, n in enumerate(dataset.lengths) for f in range(max(0, n - window + 1))]
    assert dataset.open_count == 0


def test_fused_is_the_floating_columns_side_by_side(make_dataset):
    """Fails when a window, a horizon or an integer gets into it, or the order changes."""
    with rc.Loader(make_dataset(), batch_size=4, window=2) as loader:
        batch = next(iter(loader))
    assert batch.fuses == ("state", "wide")
    assert batch.fused.equal(torch.cat([batch["state"], batch["wide"]], -1))
    assert batch.fused is batch.fused
    assert "image" in batch
    assert len(batch) == len(NO_POINTS) + 1
    assert batch.nbytes > batch["image"].nbytes
    assert batch.to("cpu")["image"] is batch["image"]


def test_a_stream_that_a_dataset_lacks_is_filled_and_masked(make_dataset, check):
    """Fails when an absent stream takes another episode's rows, on either tier."""
    datasets = [
        make_dataset(names=("state", "image", "cloud")),
        make_dataset(names=("state", "action", "voxels"), seed=1),
    ]
    for memory, tier in (("9KB", "disk"), ("1MiB", "ram")):
        with rc.Loader(datasets, batch_size=6, window=2, memory=memory, weights=[3, 1]) as loader:
            assert loader.statistics().tier == tier
            found = []
            for batch in loader:
                check(batch, datasets, 2)
                found += batch.dataset.tolist()
    assert (found.count(0), found.count(1)) == (41, 13)  # of 54, by largest remainder


def test_features_that_differ_are_refused(make_dataset):
    """Fails when one of the things that a feature is gets no look."""
    other = make_dataset(names=("state",))
    other._features["state"] = dataclasses.replace(other.features["state"], shape=(4,))
    with pytest.raises(ShapeError, match=r"^feature 'state' has shape \(4,\) in dataset 1, but \(3,\) in another"):
        rc.Loader([make_dataset(), other], batch_size=1)


@pytest.mark.parametrize("names", [NO_POINTS, ("state", "image")])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_packed_on_a_device_the_same_batches_come(make_dataset, check, names, device):
    """Fails when index arithmetic on the device differs from the gather's, absent streams included."""
    datasets = [make_dataset(names=names), make_dataset(names=("state",), seed=3)]
    joined = Joined(datasets)
    packing = plan_packing(joined, 10**9)
    packed = PackedOnDevice(joined, Layout(joined, 2), packing, torch.device(device))
    batch = packed.batch(torch.arange(30, device=device).flip(0))
    check(batch, datasets, 2)
    with rc.Loader(datasets, batch_size=30, window=2, shuffle=False) as loader:
        first = next(iter(loader))
    for name in first:
        assert batch[name].cpu().flip(0).equal(first[name])
        assert batch.valid[name].cpu().flip(0).equal(first.valid[name])
    packed.close()


def test_few_open_episodes_serve_a_batch_of_many(make_dataset, check, monkeypatch):
    """Fails when an episode that the same part needs is closed, or more than the limit are open."""
    monkeypatch.setattr(tiers, "most_open", lambda: 3)
    dataset = make_dataset(lengths=[5] * 20)
    for batch_size, memory in ((40, "70KB"), (3, "12KB")):
        with rc.Loader(dataset, batch_size=batch_size, window=2, memory=memory) as loader:
            assert loader.statistics().tier == "disk"
            for batch in loader:
                check(batch, [dataset], 2)
            assert loader.statistics().open_episodes == 3
    assert (dataset.most_open, dataset.open_count) == (3, 0)


def test_a_batch_that_cannot_fit_is_refused_at_once(make_dataset):
    """Fails when the size is looked at only after the allocation."""
    with pytest.raises(BudgetError, match=r"a batch of 64 samples needs \d+ bytes, but memory is 1000; raise memory"):
        rc.Loader(make_dataset(), batch_size=64, memory=1000)
    dataset = make_dataset(names=("state", "voxels"))
    with (
        rc.Loader(dataset, batch_size=8, memory=2000) as loader,
        pytest.raises(BudgetError, match=r"a batch of 8 samples needs \d+ bytes, but memory leaves 2000 for batches"),
    ):
        next(iter(loader))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window must be an integer of 1 or more"),
        ({"window": 99}, "window=99 leaves no sample: the longest of 5 episodes has 12 frames"),
        ({"memory": "4 parsecs"}, 'memory must be a number of bytes, or a text such as "4GiB"'),
        ({"memory": True}, "memory must be"),
        ({"prefetch": -1}, "prefetch must be an integer of 0 or more"),
        ({"window": 10**30}, "leaves no sample: the longest of 5 episodes has 12 frames"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"shuffle": "no"}, "shuffle must be True or False, got 'no'"),
        ({"drop_last": None}, "drop_last must be True or False, got None"),
        ({"weights": ["a"]}, r"weights must be numbers, one for each dataset, got \['a'\]"),
        ({"weights": 0.5}, r"weights must be numbers, one for each dataset, got 0\.5"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size"),
    ],
)
def test_arguments_that_cannot_be_right(make_dataset, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        rc.Loader(make_dataset(), batch_size=4, **arguments)


def test_what_is_no_device_or_dataset_is_named(make_dataset):
    """Fails when PyTorch's own error comes through, or an attribute of ours that the argument lacks is all that is
    said: a recording that was opened without a spec, or its path, is what people give."""
    with pytest.raises(DeviceError, match="device must name one, such as 'cpu' or 'cuda:0', got 'gpu'"):
        rc.Loader(make_dataset(), batch_size=4, device="gpu")
    for given, named in (("runs/*.mcap", r"'runs/\*\.mcap'"), (None, "NoneType"), ([make_dataset(), 5], "int")):
        with pytest.raises(ArgumentError, match=rf"dataset must be what robocache\.open\(source, spec\) .*got {named}"):
            rc.Loader(given, batch_size=4)


def test_sizes_are_what_the_units_say():
    sizes = {"4GiB": 4 * 2**30, "512MB": 512 * 10**6, "1.5 KB": 1500, "7": 7, "2tib": 2 * 2**40, "3B": 3}
    assert {text: parse_size("memory", text) for text in sizes} == sizes


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("row_bytes", [1, 7, 8192])
def test_the_library_gathers_what_numpy_does(row_bytes, threads):
    """Fails when a run's place, its held row or its zeros differ; rows of 8192 bytes go past the caches."""
    random = np.random.default_rng(row_bytes)
    places = [random.integers(0, 256, (30, row_bytes), np.uint8) for _ in range(5)]
    addresses = np.array([0, *(place.ctypes.data for place in places)])
    runs = 300
    chosen = random.integers(0, 6, runs)
    counts = random.integers(0, 9, runs)
    order = random.permutation(runs)
    starts = np.zeros(runs, np.int64)
    starts[order] = np.cumsum(counts[order]) - counts[order]
    asked = Runs(addresses[chosen], random.integers(-1, 30, runs), np.full(runs, 29), 1, starts, counts)
    expected = np.zeros((counts.sum(), row_bytes), np.uint8)
    for run in range(runs):
        for step in range(counts[run]):
            if chosen[run] and asked.first[run] >= 0:
                expected[starts[run] + step] = places[chosen[run] - 1][min(asked.first[run] + step, 29)]
    for how in (gather_by_numpy, gather):
        out = np.full_like(expected, 77)
        how(asked, row_bytes, out, **({"threads": threads} if how is gather else {}))
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("width", [1, 15, 48, 5000])
def test_bytes_become_the_255ths_that_pytorch_computes(width):
    """Fails when a 255th is a product with 1/255, a row begins four times too early, or large batches differ from
    small ones, which are written through the caches. PyTorch judges."""
    count = 2 if width < 5000 else 500  # 10 MB of floats are written past the caches
    source = torch.randint(0, 256, (7, width), dtype=torch.uint8)
    first = torch.randint(0, 7, (count,)).numpy()
    bases, starts = np.full(count, source.data_ptr()), np.arange(count)[::-1].copy()
    first[0] = -1
    expected = source.float().div(255)[np.maximum(first, 0)].flip(0)
    expected[-1] = 0
    for how in (gather_by_numpy, gather):
        out = np.full((count, width), np.nan, np.float32)
        how(Runs(bases, first, np.full(count, 6), 1, starts), width, out, scaled=True)
        np.testing.assert_array_equal(out, expected.numpy())
