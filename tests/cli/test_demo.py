"""The demo: near the truth, and its report shows it."""

from __future__ import annotations

from functools import partial

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

import robocache as rc
from robocache.align.lerobot import feature_name
from robocache.cli.demo import CAMERA
from robocache.cli.loading import _are_equal
from robocache.cli.main import app
from robocache.cli.truth import picture_times
from robocache.loader import Batch
from robocache.readers import SyntheticRobot, open_recording
from robocache.readers.synthetic import START_NS

SCENE = "/scene.image"


@pytest.fixture(scope="module")
def demo(tmp_path_factory, document):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, document("demo", "--out", out, "--seconds", 6)


def test_demo_is_close_to_the_truth_and_the_shortcut_is_not(demo):
    _, done = demo
    assert done["frames"] == pytest.approx(300, abs=3)
    assert set(done["errors"]) == {
        "/joint_states.position",
        "/arm/hand.orientation",
        "/imu.angular_velocity",
        "/imu.linear_acceleration",
        "/camera.features",
    }
    for name, error in done["errors"].items():
        # A chord between samples h apart errs by at most a h^2 / 8; the steepest wave has a = 1.5 (2 pi)^2.
        limit = {"/camera.features": 0.02, "/arm/hand.orientation": 0.01}.get(name, 5e-4)
        assert 0 < error["rms"] < error["percentile_95"] * 2 < limit * 2
        assert error["arrival_rms"] > 20 * error["rms"], name
    [episode] = done["episodes"]
    assert episode["streams"]["/joint_states.position"]["valid_fraction"] < 1
    assert episode["streams"]["/arm/hand.orientation"]["valid_fraction"] == 1
    assert done["samples_per_second"] > 0


def test_the_errors_of_the_demo_are_those_of_its_dataset(demo):
    out, done = demo
    with open_recording(out) as written, SyntheticRobot(0, duration_s=6) as robot:
        read = written.read_episode(0).streams
        times_ns, name = read["time_ns"].values[:, 0], "/joint_states.position"
        valid = read[f"valid.{feature_name(name)}"].values[:, 0].astype(bool)
        difference = read[feature_name(name)].values[valid] - robot.truth(name, times_ns[valid])
        hand = "/arm/hand.orientation"
        turn = (
            Rotation.from_quat(read[feature_name(hand)].values) * Rotation.from_quat(robot.truth(hand, times_ns)).inv()
        )
    assert np.sqrt((difference**2).mean()) == pytest.approx(done["errors"][name]["rms"], rel=1e-6)
    degrees = np.degrees(turn.magnitude())
    assert np.sqrt((degrees**2).mean()) == pytest.approx(done["errors"][hand]["rms"], rel=1e-3)
    assert np.percentile(degrees, 95) == pytest.approx(done["errors"][hand]["percentile_95"], rel=1e-3)


def test_what_the_demo_loads_is_what_it_built_and_a_second_loader_goes_on(demo):
    """Fails when batches are counted that nobody made, the cache lacks episodes, or resuming begins anew."""
    out, done = demo
    loaded = done["loading"]
    assert loaded["resumed"] is True
    assert loaded["tier"] == "ram"
    robot = partial(SyntheticRobot, 0, duration_s=6.0, episodes=3, camera=CAMERA)
    streams = {name: rc.From(name) for name in done["episodes"][0]["streams"] if name != "/lidar.points"}
    streams[SCENE] = rc.From(SCENE, then=rc.Resize(*CAMERA))
    dataset = rc.open(robot, rc.Align(rc.Rate(50), streams), cache=out / "cache", workers=1)
    assert dataset.build().built == 0  # all of it is there
    assert (loaded["episodes"], loaded["frames"]) == (3, dataset.lengths.sum())
    picture_bytes = CAMERA[0] * CAMERA[1] * 3
    row_bytes = 7 * 8 + 4 * 8 + 3 * 8 * 2 + 64 * 4 + picture_bytes + 6 * (1 + 8) + 8  # values, validity, age, stamp
    assert loaded["bytes_per_s"] / loaded["batches_per_s"] == pytest.approx(row_bytes * 64 * 16, rel=0.1)
    assert loaded["copy_share"] == pytest.approx(loaded["bytes_per_s"] / loaded["copy_bytes_per_s"])
    assert 0 < loaded["peak_bytes"] <= 256 * 2**20


def test_pictures_of_the_demos_video_show_the_time_that_its_columns_say(demo):
    """Fails when a video has another frame than the one that the alignment chose, or frames of another episode."""
    out, _ = demo
    [path] = out.glob("videos/observation.images.scene.image/chunk-000/*.mp4")
    with av.open(str(path)) as container:
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    table = pq.read_table(out / "data").to_pandas()
    stamps_ns = table["time_ns"] - table["age_ns.observation.images.scene.image"]
    blocks = pictures[:, -4, CAMERA[1] // 32 :: CAMERA[1] // 16, :].mean(axis=-1) > 128  # the middle of each bit
    shown_ms = [int("".join("01"[int(bit)] for bit in row), 2) for row in blocks]
    assert shown_ms == ((stamps_ns - START_NS) // 10**6).tolist()
    assert len(set(shown_ms)) > 80


def test_pictures_of_a_batch_are_compared_with_their_ages(demo):
    """Fails when no picture is looked at, or a wrong one passes: here all are a frame late."""
    _, done = demo
    assert done["pictures"] == {SCENE: {"compared": 64 * 16, "right": 64 * 16}}
    with SyntheticRobot(0, duration_s=1, camera=CAMERA) as robot:
        times_ns = START_NS + np.arange(8).reshape(2, 4) * 20_000_000
        drawn = np.stack([robot.picture(int(time)) for time in times_ns.flat]).reshape(2, 4, *CAMERA, 3)
    images = torch.from_numpy(drawn).movedim(-1, 2)
    whole, frames = torch.from_numpy(times_ns), torch.zeros(2, dtype=torch.int64)
    batch = partial(Batch, {SCENE: images}, valid={}, times_ns=whole, dataset=frames, episode=frames, frame=frames)
    [right] = picture_times(batch(age={SCENE: torch.zeros_like(whole)}))
    [late] = picture_times(batch(age={SCENE: torch.full_like(whole, 20_000_000)}))
    assert (right.pictures, right.right, late.right) == (8, 8, 0)


@pytest.mark.parametrize("changed", [None, "frame", "values"])
def test_resuming_is_compared_with_the_batch_that_came_next(changed):
    """Fails when another batch passes for the same one."""
    frames = torch.arange(4)
    ones = torch.ones(4, 2, 3)
    arguments = {"valid": {}, "age": {}, "times_ns": frames, "dataset": frames, "episode": frames}
    left = Batch({"x": ones}, frame=frames, **arguments)
    right = Batch({"x": ones * (1 + (changed == "values"))}, frame=frames + (changed == "frame"), **arguments)
    assert _are_equal(left, right) is (changed is None)


def test_the_voxels_of_the_demo_agree_with_numpy_histograms(demo):
    out, done = demo
    saved = np.load(out / "voxels" / "observation.lidar.points" / "episode_000000.npz")
    with SyntheticRobot(0, duration_s=6) as robot:
        stream = robot.read_episode(0, ["/lidar.points"]).streams["/lidar.points"]
    size, low = float(saved["voxel_size"]), saved["grid_min"]
    for place in (0, len(saved["scans"]) // 2):
        scan = int(saved["scans"][place])
        points = stream.values[stream.offsets[scan] : stream.offsets[scan + 1]]
        cells = np.floor((points - low.astype(np.float32)) / np.float32(size))
        edges = [np.arange(count + 1) for count in saved["grid_size"]]
        inside = (cells < saved["grid_size"]).all(axis=1)
        want, _ = np.histogramdd(cells[inside], bins=edges)
        got = np.zeros(tuple(saved["grid_size"]), np.int64)
        mine = slice(saved["offsets"][place], saved["offsets"][place + 1])
        got[tuple(saved["voxels"][mine].T)] = saved["counts"][mine]
        np.testing.assert_array_equal(got, want)
    [episode] = done["episodes"]
    described = episode["streams"]["/lidar.points"]["voxels"]
    assert described["occupied"] == len(saved["counts"])
    assert described["inside"] == saved["counts"].sum() > 0.95 * described["points"]


def test_the_report_of_the_demo_stands_alone_and_shows_what_it_must(demo, checked_page):
    out, done = demo
    page = checked_page(out / "report.html")
    for expected in ("Error against the truth", "Voxels of /lidar.points", "Gaps are shaded", "valid frames"):
        assert expected in page.text
    assert page.tags.count("image") == 3
    assert page.tags.count("img") == 6
    assert f"1,024 of 1,024 pictures of {SCENE}" in page.text
    for expected in ("What the cache holds", "Batches over time", "A sample of a batch", "Resumed"):
        assert expected in page.text
    errors = {row["Stream"]: row for row in page.tables[2]}
    assert set(errors) == set(done["errors"])
    for name, row in errors.items():
        assert float(row["RMS"]) == pytest.approx(done["errors"][name]["rms"], rel=0.06)
        assert float(row["Shortcut 95 %"]) == pytest.approx(done["errors"][name]["arrival_percentile_95"], rel=0.06)
    assert 'class="gap"' in (out / "report.html").read_text()


def test_demo_for_people_says_each_step_and_may_run_again(tmp_path, run):
    arguments = ("demo", "--out", tmp_path / "demo", "--seconds", "2", "--seed", "3")
    run(*arguments)
    shown = run(*arguments).stdout
    for expected in (
        "1. record",
        "2. inspect",
        "3. align",
        "4. build",
        "batches/s",
        "5. compare",
        "gap in /joint_states.position",
        "report.html",
    ):
        assert expected in shown
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_demo_does_not_replace_the_result_of_another_command(recordings, tmp_path, run):
    run("align", recordings / "broad/24_disturbed_tapping_A.hdf5", "--rate", "1", "--out", tmp_path / "aligned")
    refused = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "aligned")])
    assert refused.exit_code == 2
    assert "another command" in refused.stderr
    assert (tmp_path / "aligned" / "robocache.json").exists()
