"""The compiled CPU library takes tensors as they lie, and says what is wrong with itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import robocache as rc
from robocache.errors import BackendUnavailableError
from robocache.ops import native_library
from robocache.ops.resample_trajectories.cases import Case
from robocache.ops.voxelize_pointcloud import native as native_voxels
from robocache.ops.voxelize_pointcloud.cases import Case as CloudCase

from .conftest import MODES  # noqa: TID252 -- tests are not an installed package

pytestmark = pytest.mark.usefixtures("library")


def resample(*arguments, **options):
    return rc.resample_trajectories(*arguments, **options, backend="native")


class TestTensorsAsTheyLie:
    """What cannot be read in place is copied; everything else is not."""

    def inputs(self):
        return Case("any", 2, 9, 13, 6, torch.float32, torch.float64).inputs("cpu")

    def test_items_at_odd_addresses(self):
        data, times, targets = self.inputs()
        raw = bytearray(b"\0" + data.numpy().tobytes())
        odd = torch.frombuffer(raw, dtype=torch.float32, offset=1).view(data.shape)
        assert odd.data_ptr() % 4
        assert torch.equal(resample(odd, times, targets), resample(data, times, targets))

    @pytest.mark.parametrize("mode", MODES)
    def test_points_without_memory_have_no_address(self, mode):
        """Fails, with the interpreter, when only features are asked whether they stand for something else."""
        with FakeTensorMode():
            points, features = torch.zeros(5, 3), None if mode in MODES[:2] else torch.zeros(5, 2)
        assert rc.voxelize_pointcloud(points, features, grid_size=(4, 4, 4), mode=mode, backend="native").shape[0] == 4

    def test_lazily_negated_data(self):
        data, times, targets = self.inputs()
        negated = torch.complex(data, data).conj().imag
        assert negated.is_neg()
        for view in (negated, negated[..., :1]):
            expected = resample(-data[..., : view.shape[2]], times, targets)
            assert torch.equal(resample(view, times, targets), expected)

    def test_nothing_else_is_copied(self):
        data, times, _ = self.inputs()
        for view in (data, data[:, ::2, 1:], data[:1].expand(4, -1, -1), times[:, 1:], data[:, :, :1], data[:0]):
            assert native_library.readable(view) is view

    def test_a_subclass_of_tensor(self):
        data, times, targets = self.inputs()
        parameter = torch.nn.Parameter(data, requires_grad=False)
        assert torch.equal(resample(parameter, times, targets), resample(data, times, targets))

    def test_out_is_filled_without_another_grid(self, monkeypatch):
        points, _ = CloudCase("any", 500, (8, 8, 8)).inputs("cpu")
        box = ((-0.4,) * 3, 0.1, (8, 8, 8))
        expected = rc.voxelize_pointcloud(points, None, *box, backend="native")

        def refuse(*_):
            pytest.fail("made a grid, though one was given")

        monkeypatch.setattr(native_voxels, "_new_grid", refuse)
        out = torch.full((8, 8, 8), -3, dtype=torch.int32)
        assert rc.voxelize_pointcloud(points, None, *box, out=out, backend="native") is out
        assert torch.equal(out, expected)


class TestWhatIsWrongWithIt:
    """Never a silent fallback: the reason and the remedy."""

    def test_it_is_not_there(self, tmp_path):
        found = native_library.find(tmp_path / "gone.so")
        assert found.library is None
        assert "no C compiler was when RoboCache was installed" in found.problem
        assert "install a C compiler" in found.problem

    def test_it_is_no_library(self, tmp_path):
        (tmp_path / "broken.so").write_bytes(b"\x7fELF, and then nothing")
        found = native_library.find(tmp_path / "broken.so")
        assert "does not load" in found.problem
        assert "broken.so" in found.problem

    def test_it_was_built_for_another_version(self, monkeypatch):
        monkeypatch.setattr(native_library, "ABI_VERSION", 10_000)
        found = native_library.find(native_library.PATH)
        assert found.library is None
        assert f"is of version {native_library.library().robocache_abi_version()}, but" in found.problem

    def test_tensors_elsewhere_are_refused(self):
        data = torch.zeros(1, 2, 3, device="meta")
        times = torch.zeros(1, 2, device="meta")
        with pytest.raises(BackendUnavailableError, match="needs tensors on the CPU, but they are on meta; move them"):
            resample(data, times, times)

    def test_no_memory_to_sort_is_an_error_and_the_next_call_is_right(self, library, monkeypatch):
        points = torch.rand(50, 3)

        class Full:
            def robocache_voxelize(self, call):
                return 1

        with monkeypatch.context() as patch:
            patch.setattr(native_library, "_LIBRARY", Full())
            with pytest.raises(MemoryError, match="no memory to sort 50 points into tiles"):
                rc.voxelize_pointcloud(points, points, (0, 0, 0), 0.5, (2, 2, 2), "mean", backend="native")
        assert rc.voxelize_pointcloud(points, None, (0, 0, 0), 0.5, (2, 2, 2), "count", backend="native").sum() == 50


def test_installing_without_a_compiler_succeeds_and_says_so(tmp_path):
    """`pip install` runs the same build; what is missing then is said by `robocache doctor`."""
    root = Path(__file__).resolve().parents[2]
    for name in ("setup.py", "pyproject.toml", "src/robocache/version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    shutil.copytree(
        root / "src/robocache/_native", tmp_path / "src/robocache/_native", ignore=shutil.ignore_patterns("*.so")
    )
    (tmp_path / "README.md").touch()
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    environment = os.environ | {"CC": str(tmp_path / "no-such-compiler")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "robocache._native.librobocache" in done.stderr
    assert "robocache._native.quick" in done.stderr
    assert "no-such-compiler" in done.stderr
    assert not list(tmp_path.rglob("*.so"))
