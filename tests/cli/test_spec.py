"""`inspect --suggest` and `align --spec`: a description from a recording, read unchanged; pandas and PyYAML judge."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from typer.testing import CliRunner

import robocache as rc
from robocache.cli.main import app
from robocache.cli.suggestion import Suggestion, duration_text, result_name
from robocache.policies import duration_ns
from robocache.readers import stream_statistics
from robocache.records import Episode, RecordedStream

EPOCH = 1_700_000_000_000_000_000
BRIDGE = "bridge_rlds/tests/debug_dataset/bridge_dataset/1.0.0"
RECORDINGS = {
    "husky_mcap": [],
    "broad/07_undisturbed_fast_rotation_B.hdf5": [],
    "fr079_laser": [],
    "g1_lerobot_v30": [],
    "g1_lerobot_v21": [],
    BRIDGE: ["--source-rate", "5"],
}


def recorded(name, times_ns, values, **fields):
    times_ns = np.asarray(times_ns, dtype=np.int64)
    clocks = {"header": times_ns, "log": times_ns + 36_000_000}
    return RecordedStream(name, values, times_ns, clocks, "header", **fields)


def suggested(*episodes):
    suggestion = Suggestion("run.mcap", "mcap")
    for episode in episodes:
        suggestion.see(episode, [stream_statistics(stream) for stream in episode.streams.values()])
    return suggestion.text()


def episode(*streams):
    return Episode("e0", {stream.name: stream for stream in streams}, "run.mcap")


IS_NIGHTLY = os.environ.get("ROBOCACHE_NIGHTLY") == "1"
FIRST_FRAMES = 20


def first_frames(source, folder):
    """A copy of a LeRobot dataset that ends after some frames of its first episode; its video is the whole one."""
    copy = folder / "short"
    for file in source.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy / file.relative_to(source))
    for path in (copy / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).slice(0, FIRST_FRAMES), path)
    for path in (copy / "meta").rglob("episodes/*/*.parquet"):
        table = pq.read_table(path).slice(0, 1)
        at = table.column_names.index("length")
        pq.write_table(table.set_column(at, "length", pa.array([FIRST_FRAMES])), path)
    for path in (copy / "meta").glob("episodes.jsonl"):
        path.write_text(json.dumps(json.loads(path.read_text().splitlines()[0]) | {"length": FIRST_FRAMES}))
    info = copy / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"total_episodes": 1}))
    return copy


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_suggestion_is_read_unchanged_by_the_command_and_by_python(name, recordings, run, tmp_path):
    """Fails when a name, a policy or a duration of the suggestion cannot be read, or a stream cannot be aligned."""
    spec_file, out, source = tmp_path / "spec.yaml", tmp_path / "out", recordings / name
    if name.startswith("g1") and not IS_NIGHTLY:  # every frame is decoded and encoded again
        source = first_frames(source, tmp_path)
    run("inspect", source, "--suggest", spec_file, *RECORDINGS[name])
    spec = rc.Align.from_yaml(spec_file)
    plain = yaml.safe_load(spec_file.read_text())
    assert list(plain["streams"]) == list(spec.streams)
    run("align", source, "--spec", spec_file, "--out", out, *RECORDINGS[name])
    info = json.loads((out / "meta/info.json").read_text())
    assert set(spec.streams) <= set(info["features"])
    assert info["fps"] == plain["clock"]["rate"]
    with rc.open_recording(source, rate_hz=5 if name == BRIDGE else None) as recording:
        device = "cuda" if torch.cuda.is_available() else "cpu"  # as the command does
        aligned = rc.align_episode(recording.read_episode(0), spec, device=device)
    table = pd.read_parquet(out / "data/chunk-000/file-000.parquet")
    first = table[table["episode_index"] == 0]
    np.testing.assert_array_equal(first["time_ns"], aligned.times_ns)
    for stream, data in aligned.data.items():
        np.testing.assert_array_equal(np.stack(first[stream]).reshape(data.shape), data.cpu())


def test_the_huskys_suggestion_holds_what_was_measured(recordings, run):
    shown = run("inspect", recordings / "husky_mcap", "--suggest", "-").stdout
    found = yaml.safe_load(shown)
    policy = found["streams"]["observation.imu_data.orientation"]["policy"]
    assert policy["type"] == "slerp"
    assert duration_ns(policy["max_gap"]) == pytest.approx(3e9 / 30.01, rel=0.001)
    assert found["clock"] == {"rate": 30}
    assert "'log', which is +36.2 to +21.1 ms from 'header'" in shown


def test_streams_that_come_and_go_do_not_fit_or_lie_apart():
    ten = EPOCH + np.arange(10) * 10**8
    arm = recorded("/arm", ten, np.ones((10, 2)))
    other = recorded("/force", ten + 10**12, np.ones((10, 2), np.float32))
    text = recorded("/text\nclock: evil", ten, np.full((10, 1), "x"))
    hidden = recorded("/hidden", ten, np.full((10, 1), np.nan))
    spec = rc.Align.from_yaml(suggested(episode(arm), episode(arm, other, text, hidden)))
    assert spec.streams["observation.force"].optional
    assert not spec.streams["observation.arm"].optional
    assert len(spec.streams) == 2
    assert spec.span == "union"


def test_two_streams_never_get_one_name():
    ten = EPOCH + np.arange(10) * 10**8
    same = [recorded(name, ten, np.ones((10, 2))) for name in ("a/b", "/a/b", "cmd_vel", "/robot/cmd_vel")]
    spec = rc.Align.from_yaml(suggested(episode(*same)))
    assert list(spec.streams) == ["observation.a_b", "observation.a_b_2", "action", "action_2"]
    assert result_name("/camera/image_raw", "image") == "observation.images.camera_image_raw"
    assert result_name("observation.images.top", "image") == "observation.images.top"


def test_a_duration_for_people_is_never_shorter():
    for nanoseconds in (1, 999, 1001, 99_970_001, 10_500_009, 3_600 * 10**9):
        text = duration_text(nanoseconds)
        assert nanoseconds <= duration_ns(text) <= nanoseconds * 1.01 + 10


def test_the_voxels_and_the_name_of_a_description_reach_the_dataset(cloud_recording, scans, run, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "clock: {rate: 20}\nstreams:\n  observation.points:\n    source: /points.points\n    policy: previous\n"
        "    then: {type: voxelize, size: 0.5, range: [[-2, -2, -2], [2, 2, 2]]}\n"
    )
    run("align", cloud_recording, "--spec", spec, "--out", tmp_path / "out")
    with np.load(tmp_path / "out/voxels/observation.points/episode_000000.npz") as file:
        voxels = dict(file)
    assert voxels["grid_size"].tolist() == [8, 8, 8]
    first = voxels["counts"][: voxels["offsets"][1]]
    occupied = np.unique(np.floor((scans[0].astype(np.float64) + 2) / 0.5), axis=0)
    assert len(first) == len(occupied)
    assert first.sum() == len(scans[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --rate HZ, or --spec FILE that says the clock"),
        (["--spec", "SPEC", "--rate", "5"], "--rate says what"),
        (["--spec", "SPEC", "--streams", "a"], "--streams says what"),
        (["--spec", "SPEC", "--span", "union"], "--span says what"),
        (["--spec", "FOLLOW"], "a LeRobot dataset has one rate: say which with --rate HZ"),
        (["--spec", "none.yaml"], "none.yaml: cannot be read"),
    ],
    ids=["none", "rate", "streams", "span", "follow", "missing"],
)
def test_options_that_contradict_the_description_are_refused(options, message, cloud_recording, tmp_path):
    (tmp_path / "SPEC").write_text("clock: {rate: 5}\n")
    (tmp_path / "FOLLOW").write_text("clock: {follow: a}\nstreams: {a: {source: /points.points}}\n")
    options = [str(tmp_path / option) if option.isupper() else option for option in options]
    result = CliRunner().invoke(app, ["align", str(cloud_recording), "--out", str(tmp_path / "o"), *options])
    assert message in str(result.exception or "") + result.output
    assert result.exit_code != 0


def test_a_clock_that_follows_a_stream_takes_the_datasets_rate_from_the_option(cloud_recording, run, tmp_path):
    (tmp_path / "f.yaml").write_text("clock: {follow: a}\nstreams: {a: {source: /points.points}}\n")
    run("align", cloud_recording, "--spec", tmp_path / "f.yaml", "--rate", "10", "--out", tmp_path / "o")
    table = pd.read_parquet(tmp_path / "o/data/chunk-000/file-000.parquet")
    assert table["a" if "a" in table else "observation.a"].tolist() == list(range(20))


def test_a_suggestion_replaces_no_file(cloud_recording, tmp_path):
    (tmp_path / "s.yaml").write_text("mine")
    result = CliRunner().invoke(app, ["inspect", str(cloud_recording), "--suggest", str(tmp_path / "s.yaml")])
    assert "exists; name a new file" in str(result.exception or "") + result.output
    assert (tmp_path / "s.yaml").read_text() == "mine"
