"""The commands, in this process, on real recordings and on the synthetic robot."""

from __future__ import annotations

import json
import weakref

import h5py
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from robocache import __version__, readers
from robocache.align.lerobot import feature_name
from robocache.cli.main import app
from robocache.readers import SyntheticRobot, open_recording


def test_version(run):
    assert run("--version").stdout == f"robocache {__version__}\n"


def test_inspect_shows_the_huskys_rates_and_the_drift_of_its_imu_clock(recordings, document):
    found = document("inspect", recordings / "husky_mcap")
    assert found["format"] == "mcap"
    [episode] = found["episodes"]
    streams = episode["streams"]
    assert len({name.rsplit(".", 1)[0] for name in streams}) == 3
    expected = {"/imu/data.orientation": (11865, 30), "/husky_velocity_controller/odom.position": (3952, 10)}
    for name, (samples, rate_hz) in expected.items():
        assert streams[name]["samples"] == samples
        assert streams[name]["rate_hz"] == pytest.approx(rate_hz, rel=0.002)
    [fix] = [stream for name, stream in streams.items() if name.startswith("/fix")]
    assert fix["rate_hz"] == pytest.approx(2.5, rel=0.002)
    offset = streams["/imu/data.orientation"]["clock_offsets_ns"]["log"]
    assert offset["first"] == pytest.approx(36e6, abs=0.5e6)
    assert offset["last"] == pytest.approx(21e6, abs=0.5e6)
    assert offset["drift_ppm"] == pytest.approx((21.1 - 36.2) / 395 * 1000, abs=3)


def test_inspect_for_people_names_every_stream(recordings, run):
    shown = run("inspect", recordings / "husky_mcap").stdout
    for expected in ("/imu/data.orientation", "30.01 Hz", "log, publish +36.2 to +21.1 ms", "11865", "/fix", "2.5 Hz"):
        assert expected in shown


def test_inspect_says_that_a_file_has_no_time_axis_and_what_is_missing(recordings, run, document):
    path = recordings / "broad/07_undisturbed_fast_rotation_B.hdf5"
    assert "no time axis" in run("inspect", path).stdout
    [episode] = document("inspect", path)["episodes"]
    quaternion = episode["streams"]["opt_quat"]
    assert quaternion["clock"] == "synthetic"
    assert quaternion["rate_hz"] == pytest.approx(285.714, abs=0.01)
    assert 0.02 < quaternion["nan_fraction"] < 0.04


def test_inspect_shows_both_clocks_of_a_carmen_log(recordings, run):
    shown = run("inspect", recordings / "fr079_laser").stdout
    for expected in (
        "carmen, 1 episode",
        "odom.theta",
        "angle float64[1]",
        "float64[360]",
        "8951",
        "logger -1211492.7",
    ):
        assert expected in shown


def test_inspect_shows_an_rlds_data_set_at_a_given_rate(recordings, run):
    folder = recordings / "bridge_rlds/tests/debug_dataset/bridge_dataset/1.0.0"
    shown = run("inspect", folder, "--source-rate", "5").stdout
    for expected in ("rlds, 25 episodes", "observation/state", "5 Hz", "image 64x64", "no time axis"):
        assert expected in shown


def test_inspect_lists_every_episode_of_a_dataset(recordings, run):
    shown = run("inspect", recordings / "g1_lerobot_v30").stdout
    assert "lerobot-v3.0, 7 episodes" in shown
    assert "observation.images.cam_high" in shown
    assert "image 480x640" in shown
    for index in range(7):
        assert f"episode_00000{index}" in shown


def test_inspect_keeps_one_episode_of_many_in_memory(run, monkeypatch):
    """Fails if inspect holds what it has read: a dataset may be larger than the memory."""
    seen, most = [], 0

    class Watched(SyntheticRobot):
        def read_episode(self, index, streams=None, **span):
            nonlocal most
            most = max(most, sum(one() is not None for one in seen))
            episode = super().read_episode(index, streams)
            seen.append(weakref.ref(episode))
            return episode

    monkeypatch.setattr(readers, "open_recordings", lambda *_, **__: Watched(duration_s=1, episodes=8, lidar_points=8))
    shown = run("inspect", "many").stdout
    assert "episode_000007" in shown
    assert most == 2  # the first, which is shown, and the one before


def test_names_in_a_recording_do_not_reach_the_terminal_as_commands(tmp_path, run):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file["a\x1b]0;title\x07[b]:robot:"] = np.arange(6.0)
        file["skip\x1b[2J"] = np.zeros((6, 2, 2))
    shown = run("inspect", path)
    failed = CliRunner().invoke(
        app, ["align", str(path), "--rate", "5", "--out", str(tmp_path / "o"), "--streams", "b"]
    )
    assert failed.exit_code == 2
    for text in (shown.stdout, shown.stderr, failed.stderr):
        assert "\x1b" not in text
        assert "\x07" not in text
    for text in (shown.stdout, failed.stderr):
        assert r"a\x1b]0;title\x07[b]:robot:" in text
    assert r"skip\x1b[2J" in shown.stdout


def test_a_file_without_a_rate_takes_it_from_the_command_line(tmp_path, run, document):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["force"] = np.arange(12.0).reshape(6, 2)
    refused = CliRunner().invoke(app, ["inspect", str(path)])
    assert refused.exit_code == 2
    assert str(path) in refused.stderr
    [episode] = document("inspect", path, "--source-rate", 10)["episodes"]
    assert episode["streams"]["force"]["period_ns"] == 1e8
    run("align", path, "--source-rate", 10, "--rate", 20, "--out", tmp_path / "out")
    with open_recording(tmp_path / "out") as written:
        force = written.read_episode(0).streams["observation.force"].values
    np.testing.assert_allclose(force, np.arange(11)[:, None] + [0, 1])


def test_align_writes_a_dataset_that_reads_back(recordings, tmp_path, document, checked_page):
    out = tmp_path / "deep" / "husky"
    done = document("align", recordings / "husky_mcap", "--rate", 50, "--out", out, "--task", "drive")
    assert done["out"] == str(out)
    assert done["rate_hz"] == 50
    [described] = done["episodes"]
    assert all(stream["valid_fraction"] > 0.99 for stream in described["streams"].values())
    with open_recording(recordings / "husky_mcap") as source, open_recording(out) as written:
        before, after = source.read_episode(0), written.read_episode(0)
        times_ns = after.streams["time_ns"].values[:, 0]
        np.testing.assert_array_equal(np.diff(times_ns), 20_000_000)
        assert (times_ns[0], times_ns[-1]) == (described["start_ns"], described["end_ns"])
        for name in ("/imu/data.angular_velocity", "/husky_velocity_controller/odom.position"):
            stream = before.streams[name]
            want = np.interp(
                (times_ns - times_ns[0]).astype(np.float64),
                (stream.times_ns - times_ns[0]).astype(np.float64),
                stream.values[:, 0],
            )
            np.testing.assert_allclose(after.streams[feature_name(name)].values[:, 0], want, rtol=0, atol=1e-9)
    info = json.loads((out / "meta" / "info.json").read_text())
    assert info["robocache"]["source"].endswith("husky.mcap")
    page = checked_page(out / "report.html")
    recorded, came_out = page.tables
    [row] = [row for row in recorded if row["Stream"] == "/imu/data.orientation"]
    assert row == {
        "Stream": "/imu/data.orientation",
        "Holds": "quaternion_xyzw float64[4]",
        "Clock used (other clocks)": "header (log, publish +36.2 to +21.1 ms)",
        "Samples": "11,865",
        "Rate": "30.01 Hz",
        "Jitter": "0.02 ms",
        "Gaps": "0",
        "NaN": "0.0%",
    }
    assert [row["Feature"] for row in came_out] == [feature_name(row["Stream"]) for row in recorded]
    assert json.loads((out / "robocache.json").read_text())["command"] == "align"
    assert sorted(path.name for path in out.parent.iterdir()) == ["husky"]


def test_align_takes_every_episode_and_only_the_streams_asked_for(recordings, tmp_path, run):
    shown = run(
        "align", recordings / "g1_lerobot_v30", "--rate", "30", "--out", tmp_path / "g1", "--streams", "action"
    ).stdout
    assert "7 episodes" in shown
    assert "1848 frames" in shown
    tasks = pd.read_parquet(tmp_path / "g1" / "meta" / "tasks.parquet")
    assert tasks.index.tolist() == ["Pick up the yellow bottle on the table."]
    with open_recording(recordings / "g1_lerobot_v30") as source, open_recording(tmp_path / "g1") as written:
        assert len(written.episode_names) == 7
        for index in range(7):
            before, after = source.read_episode(index), written.read_episode(index)
            np.testing.assert_array_equal(after.streams["action"].values, before.streams["action"].values)
            assert "observation.state" not in after.streams


def test_align_replaces_its_own_output_when_asked(recordings, tmp_path, run):
    arguments = (
        "align",
        recordings / "broad/24_disturbed_tapping_A.hdf5",
        "--out",
        tmp_path / "out",
        "--streams",
        "imu_acc",
    )
    run(*arguments, "--rate", "10")
    refused = CliRunner().invoke(app, [*map(str, arguments), "--rate", "20"])
    assert refused.exit_code == 2
    assert "replace it with --overwrite" in refused.stderr
    assert json.loads((tmp_path / "out" / "robocache.json").read_text())["rate_hz"] == 10
    run(*arguments, "--rate", "30000/1001", "--overwrite")
    assert json.loads((tmp_path / "out" / "robocache.json").read_text())["rate_hz"] == pytest.approx(29.97, abs=0.001)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_align_voxelizes_the_clouds_of_a_real_format(cloud_recording, scans, tmp_path, document, checked_page):
    out = tmp_path / "out"
    done = document("align", cloud_recording, "--rate", 50, "--out", out, "--voxel-size", 0.25)
    described = done["episodes"][0]["streams"]["/points.points"]["voxels"]
    assert (described["scans"], described["points"]) == (20, sum(len(points) for points in scans))
    assert described["grid_min"] == [-2, -2, -2]
    assert described["grid_size"] == [16, 16, 16]
    saved = np.load(out / "voxels" / "observation.points.points" / "episode_000000.npz")
    for place, points in enumerate(scans):
        want, _ = np.histogramdd(points, bins=16, range=[(-2, 2)] * 3)
        got = np.zeros((16, 16, 16), np.int64)
        mine = slice(saved["offsets"][place], saved["offsets"][place + 1])
        got[tuple(saved["voxels"][mine].T)] = saved["counts"][mine]
        np.testing.assert_array_equal(got, want)
    with open_recording(out) as written:
        scan = written.read_episode(0).streams["observation.points.points"].values[:, 0]
    np.testing.assert_array_equal(scan, np.rint(np.arange(96) / 5 - 0.01))
    assert checked_page(out / "report.html").tags.count("image") == 3


def test_doctor_says_what_runs_where(tmp_path, run, document):
    found = document("doctor")
    assert set(found["operations"]) == {"resample_trajectories", "fuse_multimodal", "voxelize_pointcloud"}
    assert set(found["compilers"]) == {"cc", "g++", "clang++", "nvcc"}
    shown = run("doctor").stdout
    backends = {on["backend"] for devices in found["operations"].values() for on in devices.values()} - {None}
    for expected in ("resample_trajectories", found["torch"], "mcap", "hdf5", *backends):
        assert expected in shown


def test_self_test_passes(run, document):
    assert run("self-test").stdout.endswith("self-test passed\n")
    assert document("self-test")["passed"] is True
