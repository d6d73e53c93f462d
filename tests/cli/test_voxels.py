"""The voxels of many scans, made a few scans at a time: numpy's histogram of each."""

import numpy as np
import pytest

from robocache.align import AlignedScans
from robocache.cli import voxels
from robocache.cli.voxels import VoxelBox, voxelize_scans
from robocache.records import RecordedStream


@pytest.mark.parametrize("at_once", [1, 700, 10**6])
@pytest.mark.parametrize("box", [None, VoxelBox((-1.0, -1.0, -1.0), 0.5, (4, 4, 4))])
def test_scans_in_any_runs_give_the_histograms_of_numpy(monkeypatch, at_once, box):
    """Fails when a scan of a later run is put into an earlier one's place, or one without points shifts the others."""
    monkeypatch.setattr(voxels, "POINTS_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    counts = np.array([300, 0, 500, 200, 0, 400, 10])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    points = random.normal(size=(offsets[-1], 4)).astype(np.float32)
    times = np.arange(len(counts)) * 10**8
    stream = RecordedStream("/p", points, times, {"log": times}, "log", ("x", "y", "z", "i"), "points", offsets)
    used = np.array([0, 0, 1, 2, 3, 5, 5, 6])
    made = voxelize_scans(AlignedScans(stream, used), 0.5, box=box, backend=None, device=None)
    assert made.scans.tolist() == [0, 1, 2, 3, 5, 6]
    assert made.points == 1410
    edges = [low + 0.5 * np.arange(size + 1) for low, size in zip(made.box.grid_min, made.box.grid_size, strict=True)]
    total = np.zeros(made.box.grid_size)
    for place, scan in enumerate(made.scans):
        expected, _ = np.histogramdd(points[offsets[scan] : offsets[scan + 1], :3].astype(float), edges)
        found = np.zeros_like(expected)
        mine = made.only(place)
        found[tuple(mine.voxels.T)] = mine.counts
        np.testing.assert_array_equal(found, expected)
        total += expected
    np.testing.assert_array_equal(made.top_view, total.sum(axis=2))
    np.testing.assert_array_equal(made.side_view, total.sum(axis=1))
