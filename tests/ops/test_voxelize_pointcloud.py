"""The semantics of a voxelization, row by row of the design's table, on every backend; expected values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

NAN, INF = math.nan, math.inf
FEATURE_MODES = ("mean", "max", "min", "sum")


def cloud(*rows, dtype=torch.float32):
    return torch.tensor(rows, dtype=dtype).reshape(-1, 3)


def occupied(grid):
    """Coordinates of the voxels that are not 0, as lists."""
    return grid.nonzero().tolist()


class TestPointsOutside:
    """Row *points outside, NaN, inf*: dropped; half-open voxels, the upper edge excluded."""

    def test_lower_edge_is_in_and_upper_edge_is_out(self, backend):
        points = cloud([0, 0, 0], [4, 1, 1], [1, 4, 1], [1, 1, 4], [3.9999998, 3.9999998, 3.9999998])
        assert occupied(backend.voxelize(points)) == [[0, 0, 0], [3, 3, 3]]

    def test_just_below_the_lower_edge_is_out(self, backend):
        """A cast before the comparison truncates -0.5 to voxel 0."""
        points = cloud([-0.5, 1, 1], [1, -1e-7, 1], [1, 1, -1e-30])
        assert not backend.voxelize(points).any()

    @pytest.mark.parametrize("bad", [NAN, INF, -INF, 3e38, -3e38, 2.0**31, 2.0**32, 2.0**63, 1e30, -1e30])
    def test_what_no_integer_can_hold_is_dropped(self, backend, bad):
        """NaN casts to 0 or to the least integer, 2**32 wraps to 0: compared before the cast, none is kept."""
        points = torch.full((4, 3), 1.5)
        points[torch.arange(3), torch.arange(3)] = bad
        grid = backend.voxelize(points, mode="count")
        assert occupied(grid) == [[1, 1, 1]]
        assert grid.sum() == 1

    def test_infinite_differences_are_dropped(self, backend):
        assert not backend.voxelize(cloud([3e38, 0, 0]), grid_min=(-3e38, -1.0, -1.0)).any()

    def test_clamp_moves_finite_points_to_the_border(self, backend):
        points = cloud([-9, 1.5, 99], [1e30, -1e30, 2.5], [1.5, 1.5, 1.5], [4, 0, 0])
        grid = backend.voxelize(points, mode="count", outside="clamp")
        assert occupied(grid) == [[0, 1, 3], [1, 1, 1], [3, 0, 0], [3, 0, 2]]

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    def test_clamp_drops_what_is_not_finite(self, backend, bad):
        points = cloud([bad, 1, 1], [1, bad, 1], [1, 1, bad])
        assert not backend.voxelize(points, outside="clamp").any()

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    def test_dropped_points_leave_no_trace_in_features(self, backend, mode):
        points, features = cloud([NAN, 1, 1], [9, 1, 1], [1, 1, 1], [-1, 0, 0]), torch.tensor([7.0, 8, 2, NAN])
        grid = backend.voxelize(points, features[:, None], mode)
        assert grid[1, 1, 1, 0] == 2
        grid[1, 1, 1, 0] = 0
        assert not grid.any()


class TestVoxelNumber:
    """Row *voxel number*: floor of an IEEE division in the points' dtype."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("size", [0.1, 0.05, 0.3, 1 / 3, 0.7])
    @pytest.mark.parametrize("lowest", [0.0, -10.0, -6.4, 12.34])
    def test_on_planes_and_beside_them_numpy_agrees_to_the_bit(self, backend, dtype, size, lowest):
        """A multiplication by 1 / size, or an approximate division, moves some of these to the wrong side."""
        real = np.float32 if dtype == torch.float32 else np.float64
        planes = (real(lowest) + np.arange(-2, 203, dtype=real) * real(size)).astype(real)
        stamps = np.concatenate([planes, np.nextafter(planes, real(-1e9)), np.nextafter(planes, real(1e9))])
        points = np.full((len(stamps), 3), lowest, dtype=real)
        points[:, 2] = stamps
        expected = np.floor((stamps - real(lowest)) / real(size))
        counts = np.bincount(expected[(expected >= 0) & (expected < 200)].astype(int), minlength=200)
        grid = backend.voxelize(
            torch.from_numpy(points), mode="count", grid_min=(lowest,) * 3, voxel_size=size, grid_size=(1, 1, 200)
        )
        np.testing.assert_array_equal(grid[0, 0], counts)

    def test_each_axis_has_its_own_size(self, backend):
        grid = backend.voxelize(cloud([1.9, 1.9, 1.9]), voxel_size=(0.5, 1.0, 2.0), grid_size=(5, 6, 7))
        assert grid.shape == (5, 6, 7)
        assert occupied(grid) == [[3, 1, 0]]

    def test_float64_points_are_not_rounded_to_float32(self, backend):
        """Beyond 2**24 m float32 has no halves: UTM coordinates in millimetres live there."""
        far = 2.0**25
        points = cloud([far + 0.25, 0, 0], [far + 1.75, 0, 0], dtype=torch.float64)
        grid = backend.voxelize(points, grid_min=(far, 0.0, 0.0), voxel_size=0.5)
        assert occupied(grid) == [[0, 0, 0], [3, 0, 0]]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_halves_become_float32_first(self, backend, dtype):
        """In the half itself 100.5 - 0.3 and its division by 0.1 are rounded to the wrong voxel."""
        points = torch.zeros(400, 3, dtype=dtype)
        points[:, 0] = torch.linspace(0, 100, 400)
        grid = backend.voxelize(
            points, mode="count", grid_min=(0.3, 0.0, 0.0), voxel_size=(0.1, 1.0, 1.0), grid_size=(1000, 1, 1)
        )
        steps = np.floor((points[:, 0].float().numpy() - np.float32(0.3)) / np.float32(0.1))
        expected = np.bincount(steps[(steps >= 0) & (steps < 1000)].astype(int), minlength=1000)
        np.testing.assert_array_equal(grid[:, 0, 0], expected)

    def test_z_is_fastest(self, backend):
        """Row *layout*."""
        points = cloud([0.5, 1.5, 2.5])
        grid = backend.voxelize(points, grid_size=(2, 3, 4))
        assert grid.shape == (2, 3, 4)
        assert grid.is_contiguous()
        assert grid.flatten().nonzero().item() == (0 * 3 + 1) * 4 + 2

    def test_features_are_faster_than_z(self, backend):
        """Row *layout*."""
        grid = backend.voxelize(cloud([0.5, 1.5, 2.5]), torch.tensor([[5.0, 6.0]]), "sum", grid_size=(2, 3, 4))
        assert grid.shape == (2, 3, 4, 2)
        assert grid.is_contiguous()
        assert grid.flatten()[12:14].tolist() == [5, 6]


class TestModes:
    """Row *modes*."""

    points = cloud([1, 1, 1], [1.5, 1.5, 1.5], [1.2, 1.2, 1.2], [3, 3, 3])

    def test_occupancy_is_zero_or_one_in_int32(self, backend):
        grid = backend.voxelize(self.points)
        assert grid.dtype == torch.int32
        assert grid[1, 1, 1] == 1
        assert grid[3, 3, 3] == 1
        assert grid.sum() == 2

    def test_count_is_int32(self, backend):
        grid = backend.voxelize(self.points, mode="count")
        assert grid.dtype == torch.int32
        assert grid[1, 1, 1] == 3
        assert grid[3, 3, 3] == 1
        assert grid.sum() == 4

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize(("mode", "expected"), [("mean", -3), ("max", -1), ("min", -6), ("sum", -9)])
    def test_negative_features_stay_negative_and_empty_is_zero(self, backend, mode, expected, dtype):
        """A maximum that starts from 0, or empties found by value, fails here."""
        features = torch.tensor([[-2.0], [-1.0], [-6.0], [0.0]], dtype=dtype)
        grid = backend.voxelize(self.points, features, mode)
        assert grid.dtype == torch.float32
        assert grid[1, 1, 1, 0] == expected
        grid[1, 1, 1] = 0
        assert not grid.any()

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_a_nan_feature_makes_its_voxel_nan(self, backend, mode, sign, place):
        """Of either sign bit, wherever it comes: integer tricks for atomic maxima order NaN by its bits."""
        features = torch.tensor([[-2.0, 1.0], [5.0, 1.0], [-6.0, 1.0], [4.0, 1.0]])
        features[place, 0] = torch.copysign(torch.tensor(NAN), torch.tensor(sign))
        grid = backend.voxelize(self.points, features, mode)
        assert grid[1, 1, 1].isnan().tolist() == [True, False]
        assert grid[3, 3, 3].tolist() == [4, 1]
        assert grid.isnan().sum() == 1

    @pytest.mark.parametrize(("mode", "expected"), [("max", (INF, -INF)), ("min", (-2.0, -INF))])
    def test_infinite_features(self, backend, mode, expected):
        features = torch.tensor([[INF, -INF], [-2.0, -INF], [0.0, -INF], [0.0, 0.0]])
        assert tuple(backend.voxelize(self.points, features, mode)[1, 1, 1].tolist()) == expected

    @pytest.mark.usefixtures("ordinary_algorithms")
    @pytest.mark.parametrize("mode", ["mean", "sum"])
    def test_infinite_features_make_infinite_sums(self, backend, mode):
        """A divisor computed from the sum itself makes the mean of an infinite one NaN."""
        features = torch.tensor([[INF, -INF], [-2.0, 1.0], [0.0, -INF], [0.0, 0.0]])
        assert backend.voxelize(self.points, features, mode)[1, 1, 1].tolist() == [INF, -INF]

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    @pytest.mark.parametrize("width", [1, 2, 3, 7, 33])
    def test_any_number_of_features(self, backend, mode, width):
        features = torch.arange(4.0 * width).reshape(4, width) - 5
        grid = backend.voxelize(self.points, features, mode)
        reduce = {"mean": torch.mean, "max": torch.amax, "min": torch.amin, "sum": torch.sum}[mode]
        torch.testing.assert_close(grid[1, 1, 1], reduce(features[:3], 0))
        torch.testing.assert_close(grid[3, 3, 3], features[3])

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    def test_features_of_no_width(self, backend, mode):
        assert backend.voxelize(self.points, torch.zeros(4, 0), mode).shape == (4, 4, 4, 0)

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    def test_many_points_in_one_voxel(self, backend, mode):
        features = torch.linspace(-3, 2, 1000)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))][
            :, None
        ]
        grid = backend.voxelize(torch.full((1000, 3), 2.5), features, mode)
        expected = {"mean": -0.5, "max": 2.0, "min": -3.0, "sum": -500.0}[mode]
        assert grid[2, 2, 2, 0].item() == pytest.approx(expected, rel=1e-5)
        assert len(occupied(grid)) == 1


class TestEmptyAndRepeated:
    """Rows *empty cloud* and *determinism*."""

    @pytest.mark.parametrize("mode", ["occupancy", "count"])
    def test_an_empty_cloud_is_zeros(self, backend, mode):
        grid = backend.voxelize(torch.zeros(0, 3), mode=mode)
        assert grid.dtype == torch.int32
        assert grid.shape == (4, 4, 4)
        assert not grid.any()

    @pytest.mark.parametrize("mode", FEATURE_MODES)
    def test_an_empty_cloud_with_features_is_zeros(self, backend, mode):
        grid = backend.voxelize(torch.zeros(0, 3), torch.zeros(0, 2), mode)
        assert grid.dtype == torch.float32
        assert grid.shape == (4, 4, 4, 2)
        assert not grid.any()

    def crowd(self):
        generator = torch.Generator().manual_seed(2)
        return torch.rand(3000, 3, generator=generator) * 3, torch.randn(3000, 2, generator=generator) * 1000

    @pytest.mark.parametrize("is_scan", [True, False], ids=["side_by_side", "at_random"])
    def test_a_crowd_marks_every_voxel_it_reaches(self, backend, is_scan):
        """Many points a voxel, some outside, and one voxel that only the last reaches; `bincount` knows which."""
        points = self.crowd()[0] * 1.2 - 0.2
        if is_scan:
            points = points[(points @ torch.tensor([100.0, 10.0, 1.0])).argsort()]
        points = points[~(points > 2).all(dim=1)]
        points[-1] = 2.5
        grid = backend.voxelize(points, grid_size=(3, 3, 3))
        inside = points[((points >= 0) & (points < 3)).all(dim=1)].long()
        wanted = torch.bincount(inside @ torch.tensor([9, 3, 1]), minlength=27).clamp(max=1)
        assert torch.equal(grid.flatten().cpu().long(), wanted)

    @pytest.mark.usefixtures("ordinary_algorithms")
    @pytest.mark.parametrize("mode", ["occupancy", "count", "max", "min"])
    def test_these_are_deterministic_always(self, fast_backend, mode):
        points, features = self.crowd()
        arguments = {"features": features if mode in FEATURE_MODES else None, "mode": mode, "grid_size": (3, 3, 3)}
        first = fast_backend.voxelize(points, **arguments)
        order = torch.randperm(3000, generator=torch.Generator().manual_seed(9))
        if arguments["features"] is not None:
            arguments["features"] = features[order]
        assert torch.equal(fast_backend.voxelize(points[order], **arguments), first)

    @pytest.mark.parametrize("mode", ["mean", "sum"])
    def test_sums_are_deterministic_when_torch_is_told_to(self, fast_backend, mode):
        assert torch.are_deterministic_algorithms_enabled()
        points, features = self.crowd()
        first = fast_backend.voxelize(points, features, mode, grid_size=(3, 3, 3))
        for _ in range(3):
            assert torch.equal(fast_backend.voxelize(points, features, mode, grid_size=(3, 3, 3)), first)

    @pytest.mark.usefixtures("ordinary_algorithms")
    @pytest.mark.parametrize("mode", ["mean", "sum"])
    def test_sums_are_right_either_way(self, fast_backend, reference, mode):
        points, features = self.crowd()
        ordinary = fast_backend.voxelize(points, features, mode, grid_size=(3, 3, 3))
        torch.use_deterministic_algorithms(mode=True)
        ordered = fast_backend.voxelize(points, features, mode, grid_size=(3, 3, 3))
        expected = reference.voxelize(points, features, mode, grid_size=(3, 3, 3))
        for grid in (ordinary, ordered):
            torch.testing.assert_close(grid, expected, rtol=1e-4, atol=0.5 if mode == "sum" else 5e-3)
