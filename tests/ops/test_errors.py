"""Row *errors*: each names the argument and shows both sides; and after it the next valid call is right."""

from __future__ import annotations

import re

import pytest
import torch

import robocache as rc
from robocache import errors
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

DATA, TIMES, TARGETS = torch.arange(24.0).reshape(2, 4, 3), torch.arange(8.0).reshape(2, 4), torch.ones(2, 5)
POINTS, FEATURES = torch.full((6, 3), 0.5), torch.ones(6, 2)
GRID = {"grid_min": (0.0, 0.0, 0.0), "voxel_size": 1.0, "grid_size": (2, 2, 2)}
ALL_FLOATS = "bfloat16, float16, float32, float64"
META = torch.device("meta")


def resample(data=DATA, times=TIMES, targets=TARGETS, **keywords):
    return rc.resample_trajectories(data, times, targets, **keywords)


def fuse(data=DATA, times=TIMES, targets=TARGETS, **keywords):
    """With a bad second stream."""
    return rc.fuse_multimodal(DATA, TIMES, data, times, DATA, TIMES, targets, **keywords)


def voxelize(points=POINTS, features=None, **keywords):
    return rc.voxelize_pointcloud(points, features, **(GRID | keywords))


RESAMPLE = (
    (lambda: resample([1.0]), errors.ArgumentError, "source_data must be a torch.Tensor, got list"),
    (lambda: resample(DATA[0]), errors.ShapeError, "source_data must be [batch, source, dim], got shape (4, 3)"),
    (lambda: resample(times=TIMES[0]), errors.ShapeError, "source_times must be [batch, source], got shape (4,)"),
    (lambda: resample(targets=TARGETS[0]), errors.ShapeError, "target_times must be [batch, target], got shape (5,)"),
    (lambda: resample(DATA[:1]), errors.ShapeError, "source_times has batch=2, but source_data has batch=1"),
    (lambda: resample(DATA[:, :3]), errors.ShapeError, "source_times has source=4, but source_data has source=3"),
    (lambda: resample(targets=TARGETS[:1]), errors.ShapeError, "target_times has batch=1, but source_data has batch=2"),
    (lambda: resample(DATA[:, :0], TIMES[:, :0]), errors.ShapeError, "source_data must hold at least one sample"),
    (lambda: resample(DATA.to(torch.complex64)), errors.DTypeError, "source_data is complex64, but must be one of"),
    (lambda: resample(times=TIMES.int()), errors.DTypeError, "source_times is int32, but must be one of float32, "),
    (lambda: resample(times=TIMES.half()), errors.DTypeError, "source_times is float16, but must be one of float32, "),
    (lambda: resample(times=TIMES.double()), errors.DTypeError, "target_times is float32, but source_times is float64"),
    (lambda: resample(targets=TARGETS.long()), errors.DTypeError, "target_times is int64, but source_times is float32"),
    (lambda: resample(DATA.int()), errors.DTypeError, "source_data is int32, but Linear needs floating data"),
    (lambda: resample(DATA.bool(), policy=Slerp()), errors.DTypeError, "source_data is bool, but Slerp needs floating"),
    (lambda: resample(DATA.int(), policy=Angle()), errors.DTypeError, "source_data is int32, but Angle needs floating"),
    (
        lambda: resample(DATA.int(), policy=Previous(outside="nan")),
        errors.DTypeError,
        "source_data is int32, which has no NaN for outside='nan'",
    ),
    (lambda: resample(policy=Slerp()), errors.ShapeError, "Slerp needs dim a multiple of 4 (quaternions), but source_"),
    (lambda: resample(policy="linear"), errors.ArgumentError, "policy of source_data must be a robocache policy such"),
    (lambda: resample(policy=Linear(max_gap="5ms")), errors.ArgumentError, "max_gap='5ms' needs int64 nanosecond tim"),
    (lambda: resample(lengths=torch.tensor([4])), errors.ShapeError, "lengths has batch=1, but the data has batch=2"),
    (lambda: resample(lengths=torch.ones(2)), errors.DTypeError, "lengths is float32, but must be one of int32, int64"),
    (lambda: resample(lengths=[4, 4]), errors.ArgumentError, "lengths must be a torch.Tensor, got list"),
    (lambda: resample(times=TIMES.to(META)), errors.DeviceError, "source_times is on meta, but source_data is on cpu"),
    (lambda: resample(targets=TARGETS.to(META)), errors.DeviceError, "target_times is on meta, but source_times is on"),
    (
        lambda: resample(lengths=torch.ones(2, dtype=torch.int64, device="meta")),
        errors.DeviceError,
        "lengths is on meta, but the data is on cpu",
    ),
    (
        lambda: resample(backend="fast"),
        errors.ArgumentError,
        "backend must be one of cuda, native, pytorch or None, go",
    ),
    (
        lambda: resample(backend="cuda"),
        errors.BackendUnavailableError,
        "backend='cuda' needs tensors on a GPU, but they are on cpu; move them or use 'pytorch'",
    ),
)
FUSE = (
    (lambda: fuse(DATA[0]), errors.ShapeError, "stream2_data must be [batch, source, dim], got shape (4, 3)"),
    (lambda: fuse(DATA[:, :3]), errors.ShapeError, "stream2_times has source=4, but stream2_data has source=3"),
    (lambda: fuse(DATA.double()), errors.DTypeError, "stream2_data is float64, but stream1_data is float32"),
    (lambda: fuse(times=TIMES.double()), errors.DTypeError, "target_times is float32, but stream2_times is float64"),
    (lambda: fuse(targets=TARGETS[:1]), errors.ShapeError, "target_times has batch=1, but stream1_data has batch=2"),
    (
        lambda: fuse(DATA.repeat(2, 1, 1), TIMES.repeat(2, 1)),
        errors.ShapeError,
        "target_times has batch=2, but stream2_data has batch=4",
    ),
    (lambda: fuse(policies=[Linear()]), errors.ArgumentError, "policies must hold one entry for each of the 3 streams"),
    (lambda: fuse(policies=Linear()), errors.ArgumentError, "policies must hold one entry for each of the 3 streams, "),
    (lambda: fuse(lengths=torch.ones(2)), errors.ArgumentError, "lengths must hold one entry for each of the 3 strea"),
    (
        lambda: fuse(lengths=[None, torch.ones(3, dtype=torch.int64), None]),
        errors.ShapeError,
        "stream2_lengths has batch=3, but the data has batch=2",
    ),
    (lambda: rc.fuse_streams({}, TARGETS), errors.ArgumentError, "streams is empty: give at least one stream to fuse"),
    (
        lambda: rc.fuse_streams({"arm": rc.Stream(DATA, TIMES[:, :2])}, TARGETS),
        errors.ShapeError,
        "streams['arm'].times has source=2, but streams['arm'].data has source=4",
    ),
    (lambda: rc.fuse_streams({"arm": DATA}, TARGETS), errors.ArgumentError, "streams['arm'] must be a "),
)
VOXELIZE = (
    (lambda: voxelize([[0.0] * 3]), errors.ArgumentError, "points must be a torch.Tensor, got list"),
    (lambda: voxelize(POINTS[0]), errors.ShapeError, "points must be [point, 3], got shape (3,)"),
    (lambda: voxelize(POINTS[:, :2]), errors.ShapeError, "points must be [point, 3], got shape (6, 2)"),
    (lambda: voxelize(POINTS.int()), errors.DTypeError, f"points is int32, but must be one of {ALL_FLOATS}"),
    (lambda: voxelize(voxel_size=0), errors.ArgumentError, "voxel_size must be greater than 0, got 0"),
    (
        lambda: voxelize(voxel_size=(1, -1, 1)),
        errors.ArgumentError,
        "voxel_size must be greater than 0, got (1, -1, 1)",
    ),
    (lambda: voxelize(voxel_size=float("nan")), errors.ArgumentError, "voxel_size must be finite, got nan"),
    (lambda: voxelize(voxel_size=float("inf")), errors.ArgumentError, "voxel_size must be finite, got inf"),
    (lambda: voxelize(voxel_size=(1, 1)), errors.ArgumentError, "voxel_size must be one number or three, got (1, 1)"),
    (lambda: voxelize(grid_min=(0, float("nan"), 0)), errors.ArgumentError, "grid_min must be finite, got (0, nan, 0)"),
    (
        lambda: voxelize(grid_size=(2, 0, 2)),
        errors.ArgumentError,
        "grid_size must be at least 1 along each axis, got (",
    ),
    (
        lambda: voxelize(grid_size=(2, -1, 2)),
        errors.ArgumentError,
        "grid_size must be at least 1 along each axis, got ",
    ),
    (lambda: voxelize(grid_size=(2, 2)), errors.ArgumentError, "grid_size must be three whole numbers, got (2, 2)"),
    (
        lambda: voxelize(grid_size=(2, 2.5, 2)),
        errors.ArgumentError,
        "grid_size must be three whole numbers, got (2, 2.",
    ),
    (
        lambda: voxelize(mode="median"),
        errors.ArgumentError,
        "mode must be one of occupancy, count, mean, max, min, sum",
    ),
    (lambda: voxelize(mode="mean"), errors.ArgumentError, "mode='mean' needs features [point, feature], got None"),
    (lambda: voxelize(features=FEATURES), errors.ArgumentError, "mode='occupancy' has no use for features"),
    (
        lambda: voxelize(features=FEATURES[:5], mode="max"),
        errors.ShapeError,
        "features has point=5, but points has point=6",
    ),
    (
        lambda: voxelize(features=FEATURES[:, 0], mode="max"),
        errors.ShapeError,
        "features must be [point, feature], got shape (6,)",
    ),
    (lambda: voxelize(features=FEATURES.int(), mode="max"), errors.DTypeError, "features is int32, but must be one of"),
    (
        lambda: voxelize(features=FEATURES.to(META), mode="sum"),
        errors.DeviceError,
        "features is on meta, but points is on cpu",
    ),
    (lambda: voxelize(outside="wrap"), errors.ArgumentError, "outside must be 'drop' or 'clamp', got 'wrap'"),
    (lambda: voxelize(layout="csr"), errors.ArgumentError, "layout must be 'dense' or 'coo', got 'csr'"),
    (
        lambda: voxelize(offsets=torch.tensor([0, 6]).int()),
        errors.DTypeError,
        "offsets is int32, but must be one of in",
    ),
    (lambda: voxelize(offsets=torch.tensor([[0, 6]])), errors.ShapeError, "offsets must be [cloud + 1], got shape (1,"),
    (
        lambda: voxelize(out=torch.zeros(2, 2, 3, dtype=torch.int32)),
        errors.ShapeError,
        "out has shape (2, 2, 3), but the result has shape (2, 2, 2)",
    ),
    (lambda: voxelize(out=torch.zeros(2, 2, 2)), errors.DTypeError, "out is float32, but the result is int32"),
    (
        lambda: voxelize(out=torch.zeros(2, 2, 2, dtype=torch.int32), layout="coo"),
        errors.ArgumentError,
        "out goes with layout='dense'",
    ),
    (
        lambda: voxelize(backend="fast"),
        errors.ArgumentError,
        "backend must be one of cuda, native, pytorch or None, go",
    ),
)
POLICIES = (
    (
        lambda: Linear(outside="wrap"),
        errors.ArgumentError,
        "outside must be 'clamp', 'nan' or 'extrapolate', got 'wrap'",
    ),
    (lambda: Linear(max_gap=-1), errors.ArgumentError, "max_gap must be 0 or more, got -1"),
    (lambda: Linear(max_gap=float("nan")), errors.ArgumentError, "max_gap must be 0 or more, got nan"),
    (lambda: Linear(max_gap="5 parsecs"), errors.ArgumentError, "'5 parsecs' is not a duration: write a number and"),
    (lambda: Nearest(outside="extrapolate"), errors.ArgumentError, "Nearest has no slope to extrapolate: outside must"),
    (lambda: Previous(outside="extrapolate"), errors.ArgumentError, "Previous has no slope to extrapolate: outside mu"),
    (lambda: Slerp(order="zyxw"), errors.ArgumentError, "order must be 'xyzw' or 'wxyz', got 'zyxw'"),
    (lambda: Angle(period=0), errors.ArgumentError, "period must be finite and greater than 0, got 0"),
)
BAD_CALLS = (*RESAMPLE, *FUSE, *VOXELIZE, *POLICIES)


@pytest.mark.parametrize(("call", "kind", "message"), BAD_CALLS, ids=[f"{k}-{m[2]}" for k, m in enumerate(BAD_CALLS)])
def test_a_bad_call_says_what_is_wrong_and_leaves_nothing_behind(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)) as caught:
        call()
    assert type(caught.value) is kind
    assert torch.equal(resample(), DATA.new_tensor([[[3.0, 4, 5]] * 5, [[12.0, 13, 14]] * 5]))
    assert voxelize(mode="count").flatten().tolist() == [6, 0, 0, 0, 0, 0, 0, 0]


def test_errors_are_what_torch_users_catch():
    for kind in (errors.ShapeError, errors.DTypeError, errors.DeviceError):
        assert issubclass(kind, errors.RoboCacheError)
        assert issubclass(kind, ValueError)
        assert issubclass(kind, RuntimeError)
    assert issubclass(errors.ArgumentError, errors.RoboCacheError)
    assert issubclass(errors.ArgumentError, ValueError)
    assert issubclass(errors.BackendUnavailableError, RuntimeError)


class TestValidate:
    """Row *unsorted source times*: checked on demand only, naming row and index."""

    times = torch.tensor([[0.0, 1, 2, 3], [0, 3, 2, 4]])

    def test_it_names_row_and_index(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        message = "source_times must ascend, but row 1 goes from 3.0 at index 1 to 2.0 at 2"
        with pytest.raises(errors.ArgumentError, match=re.escape(message)):
            resample(times=self.times)

    def test_a_fuse_names_the_stream(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        with pytest.raises(
            errors.ArgumentError, match=r"stream2_times must ascend, but row 1 goes from 3\.0 at index 1"
        ):
            fuse(times=self.times)

    def test_nan_times_are_named(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        times = TIMES.clone()
        times[0, 2] = float("nan")
        with pytest.raises(
            errors.ArgumentError, match=r"source_times must ascend, but row 0 goes from 1\.0 at index 1"
        ):
            resample(times=times)

    def test_what_lies_beyond_the_length_does_not_matter(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        assert resample(times=self.times, lengths=torch.tensor([4, 2])).shape == (2, 5, 3)

    def test_duplicates_and_infinite_padding_pass(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        times = torch.tensor([[0.0, 0, 1, 1], [0, 1, float("inf"), float("inf")]])
        assert resample(times=times).shape == (2, 5, 3)

    def test_lengths_beyond_the_source_are_named(self, monkeypatch):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        with pytest.raises(errors.ArgumentError, match=re.escape("lengths[1] is 5, but source_times has source=4")):
            resample(lengths=torch.tensor([4, 5]))

    @pytest.mark.parametrize(("offsets", "got"), [([0, 5], "got 0 to 5"), ([0, 4, 3, 6], "go from 4 at index 1 to 3")])
    def test_offsets_are_named(self, monkeypatch, offsets, got):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", "1")
        with pytest.raises(errors.ArgumentError, match=rf"offsets must ascend from 0 to point=6, .*{got}"):
            voxelize(offsets=torch.tensor(offsets))

    @pytest.mark.parametrize("off", ["", "0"])
    def test_it_is_off_unless_asked_for(self, monkeypatch, off):
        monkeypatch.setenv("ROBOCACHE_VALIDATE", off)
        assert resample(times=self.times).shape == (2, 5, 3)
