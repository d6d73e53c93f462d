"""Bad input: one line that names the file, the place and the remedy; exit code 2; nothing left behind."""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from robocache.align import Rate
from robocache.cli.conversion_settings import Settings
from robocache.cli.main import app
from robocache.cli.voxels import VoxelBox
from robocache.errors import ArgumentError
from robocache.ops import native_library


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def refused(tmp_path):
    """Run a command that must fail; give its one line."""

    def run(*arguments):
        before = names(tmp_path)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = [line for line in result.stderr.splitlines() if not line.startswith(("reading ", "aligning "))]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("error: ")
        assert "Traceback" not in result.stderr
        assert names(tmp_path) == before
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def husky(recordings, tmp_path):
    copy = tmp_path / "husky.mcap"
    copy.write_bytes((recordings / "husky_mcap/husky.mcap").read_bytes())
    return copy


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "abc", "1/0", "", "3e9", "1e999999999", "1e-9999", "1.5/2"])
def test_a_bad_rate_is_shown(refused, tmp_path, rate):
    line = refused("align", tmp_path / "any", "--rate", rate, "--out", tmp_path / "out")
    assert "rate must be a number of frames a second" in line
    assert (str(int(float(rate))) if rate == "3e9" else rate) in line


def test_a_missing_recording_is_named(refused, tmp_path):
    for command in (["inspect"], ["align", "--rate", 50, "--out", tmp_path / "out"]):
        line = refused(*command, tmp_path / "gone.mcap")
        assert f"{tmp_path}/gone.mcap" in line
        assert "there is no such file" in line
        assert "check the path" in line


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"hello, this is text\n", "no known signature"), (b"\x89MCAP0\r\n", "")],
    ids=["empty", "text", "only-magic"],
)
def test_a_file_that_is_no_recording_is_named_with_the_problem(refused, tmp_path, content, problem):
    path = tmp_path / "run.mcap"
    path.write_bytes(content)
    line = refused("align", path, "--rate", 50, "--out", tmp_path / "out")
    assert str(path) in line
    assert problem in line


@pytest.mark.parametrize("part", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_recording_is_refused_with_the_place(refused, tmp_path, husky, part):
    whole = husky.read_bytes()
    husky.write_bytes(whole[: int(len(whole) * part)])
    line = refused("align", husky, "--rate", 50, "--out", tmp_path / "out")
    assert str(husky) in line


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path, cloud_recording):
    """The file has checksums, so no flip may pass into the numbers."""
    runner, copy = CliRunner(), tmp_path / "run.mcap"
    whole = cloud_recording.read_bytes()

    def inspect(content):
        copy.write_bytes(content)
        return runner.invoke(app, ["inspect", str(copy), "--json"])

    good, refusals = inspect(whole), 0
    for place in np.random.default_rng(0).integers(8, len(whole) - 8, 60).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        result = inspect(damaged)
        if result.exit_code == 0:
            assert result.stdout == good.stdout, f"a flipped bit at byte {place} went through"
        else:
            refusals += 1
            assert result.exit_code == 2, result.output
            assert str(copy) in result.stderr
            assert "Traceback" not in result.stderr
    assert refusals > 40


def test_a_flipped_bit_in_a_file_without_checksums_is_never_a_crash(tmp_path, husky):
    whole = husky.read_bytes()
    for place in np.random.default_rng(1).integers(8, len(whole) - 8, 20).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        husky.write_bytes(damaged)
        result = CliRunner().invoke(app, ["inspect", str(husky), "--json"])
        assert result.exit_code in (0, 2), f"byte {place}: {result.exception!r}"
        assert result.exit_code == 0 or str(husky) in result.stderr


def test_an_unknown_stream_lists_those_there_are(refused, tmp_path, husky):
    line = refused(
        "align", husky, "--rate", 50, "--out", tmp_path / "out", "--streams", "/imu/data.orientation,/imu/dta"
    )
    assert str(husky) in line
    assert "'/imu/dta'" in line
    assert "/fix" in line


def test_an_output_that_exists_is_refused_before_anything_is_read(refused, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    line = refused("align", tmp_path / "gone", "--rate", 50, "--out", tmp_path / "mine", "--overwrite")
    assert f"{tmp_path}/mine: exists, and RoboCache did not write it" in line
    line = refused("demo", "--out", tmp_path / "mine")
    assert f"{tmp_path}/mine: exists, and RoboCache did not write it" in line


def test_an_output_that_cannot_be_written_is_named(refused, tmp_path, husky):
    line = refused("align", husky, "--rate", 50, "--out", husky / "out")
    assert f"{husky}/out: cannot be written (Not a directory); name a folder that you may write to" in line
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    line = refused("align", husky, "--rate", 50, "--out", tmp_path / "loop" / "out")
    assert f"{tmp_path}/loop/out: cannot be written" in line
    line = refused("align", husky, "--rate", 50, "--out", "/proc/out")
    assert "/proc/out: cannot be written" in line


def test_names_that_are_not_utf_8_are_refused(refused, tmp_path, husky):
    name = b"\xff".decode(errors="surrogateescape")
    line = refused("align", husky, "--rate", 50, "--out", tmp_path / name)
    assert r"\udcff': is a name that is not UTF-8; name another folder" in line
    path = husky.rename(tmp_path / f"{name}.mcap")
    for command in (["inspect", path], ["align", path, "--rate", 5, "--out", tmp_path / "out"]):
        assert r"\udcff.mcap': has a name that is not UTF-8; rename it" in refused(*command)


def test_a_backend_that_cannot_run_says_why(refused, tmp_path, husky, monkeypatch):
    monkeypatch.setattr(native_library, "PROBLEM", native_library.find(tmp_path / "gone.so").problem)
    line = refused("align", husky, "--rate", 50, "--out", tmp_path / "out", "--backend", "native")
    assert "backend='native' cannot run" in line
    assert "install a C compiler" in line


@pytest.mark.parametrize("rate", ["1e400", "1e-400"])
def test_a_rate_beyond_every_float_is_no_crash(refused, tmp_path, rate):
    assert "0.000001 to 1e9" in refused("align", tmp_path / "any", "--rate", rate, "--out", tmp_path / "out")


def test_a_source_rate_that_would_be_ignored_is_refused(refused, husky):
    assert f"{husky}: has times of its own; leave out" in refused("inspect", husky, "--source-rate", 100)
    assert "(--source-rate) must be 0.000001 to 1e9, got nan" in refused("inspect", husky, "--source-rate", "nan")


def test_no_stream_at_all_is_refused(refused, tmp_path, husky):
    line = refused("align", husky, "--rate", 5, "--out", tmp_path / "out", "--streams", " , ")
    assert "--streams names no stream, got ' , '; leave it out" in line


def test_the_compiled_backend_computes_on_the_cpu_also_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("robocache.ops.is_cuda_available", lambda: True)
    devices = {backend: Settings(Rate(50), backend=backend).device for backend in (None, "cuda", "native", "pytorch")}
    assert devices == {None: "cuda", "cuda": "cuda", "native": "cpu", "pytorch": "cuda"}


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "1e-300", "1e300"])
def test_a_bad_voxel_size_is_shown(refused, tmp_path, size):
    line = refused("align", tmp_path / "any", "--rate", 50, "--out", tmp_path / "out", "--voxel-size", size)
    assert "voxel size must be 0.000001 to 1000000 metres" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["align", "x", "--rate", "5", "--ot", "y"], "--out"),
        (["algn"], "align"),
        (["align", "x", "--rate", "5"], "--out"),
        (["inspect"], "path"),
        (["align", "x", "--rate", "5", "--out", "y", "--span", "most"], "overlap"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["demo", "--seconds", "nan"], "--seconds"),
        (["demo", "--seed", "-1"], "--seed"),
        (["doctor", "now"], "now"),
    ],
    ids=" ".join,
)
def test_a_mistyped_command_line_is_one_line_and_shows_the_way(refused, arguments, says):
    line = refused(*arguments)
    assert says in line
    assert "--help'" in line


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([[0, 0, 0], [1e30, 0, 0]], "more than 512; choose a larger --voxel-size"),
        ([[1e30, 0, 0]], "the cloud lies 1e+30 m from the origin, more than 1048576 voxels of 0.1 m; leave its stream"),
        ([[np.nan, 0, 0]], "no finite point"),
    ],
    ids=["wide", "far", "none"],
)
def test_clouds_that_fit_no_grid_are_refused(points, says):
    with pytest.raises(ArgumentError, match=re.escape(says)):
        VoxelBox.around(np.array(points, np.float32), 0.1)


def test_the_recording_that_is_read_is_not_replaced(tmp_path, refused):
    out = tmp_path / "demo"
    assert CliRunner().invoke(app, ["demo", "--seconds", "1", "--out", str(out)]).exit_code == 0
    assert "holds the recording that is to be read" in refused("align", out, "--rate", 5, "--out", out, "--overwrite")
    (tmp_path / "link").symlink_to(out)
    assert "name another folder" in refused("align", tmp_path / "link", "--rate", 5, "--out", out, "--overwrite")
    for path in (tmp_path, tmp_path / "d*"):  # a second run of a command that wrote into the folder it reads
        assert "name a folder elsewhere" in refused("align", path, "--rate", 5, "--out", out, "--overwrite")
