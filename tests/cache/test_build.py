"""Builds that are killed, run twice, in several processes, on a full disk, on a damaged recording."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import robocache
from robocache.cache import ShardStore
from robocache.cache.units import runs
from robocache.errors import ArgumentError, BuildError, CacheFullError
from robocache.readers import SyntheticRobot
from robocache.testing.waiting import wait_until

KILLED = Path(__file__).with_name("killed_builds.py")
KILLS = 50
SPEC = robocache.Align(robocache.Rate(50))
ROBOT = partial(SyntheticRobot, 3, duration_s=1.0, episodes=6, lidar_points=64)
DOUBLE = "import sys, robocache; from functools import partial; from robocache.readers import SyntheticRobot as R; "
BUILD = "robocache.build(partial(R, 3, duration_s=1.0, episodes={}, lidar_points=64), "
BUILD += "robocache.Align(robocache.Rate(50)), sys.argv[1], workers={})"


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in (Path(folder) / "shards").iterdir()}


def problems(folder):
    return [checked.problem for checked in ShardStore(folder).verify() if checked.problem]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The shards of `ROBOT`, built in one process without trouble."""
    folder = tmp_path_factory.mktemp("undisturbed") / "cache"
    robocache.build(ROBOT, SPEC, folder, workers=1)
    return shard_bytes(folder)


@pytest.mark.slow
def test_a_build_killed_at_fifty_random_moments(tmp_path):
    """Fails when a kill loses a finished shard, leaves a half one, or the next build does not go on from there.

    Seen to fail with `partial` set to the final path in `write_shard`.
    """
    source = partial(SyntheticRobot, 3, duration_s=1.0, episodes=80, lidar_points=2048)
    command = [sys.executable, str(KILLED), str(tmp_path / "cache"), str(KILLS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    lines = [tuple(map(int, line.split())) for line in ended.stdout.splitlines()]
    there = [shards for shards, _, _ in lines]
    assert len(there) == KILLS
    assert sum(bad for _, _, bad in lines) == 0
    assert "built anew" not in ended.stderr
    assert there == sorted(there)
    assert sum(itself for _, itself, _ in lines) < KILLS // 2, "the build ended before it could be killed"
    assert there[-1] > 0
    assert problems(tmp_path / "cache") == []
    built = robocache.build(source, SPEC, tmp_path / "cache", workers=1)
    assert built.episodes - built.built == there[-1]
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    assert [path.name for path in (tmp_path / "cache" / "manifests").iterdir() if path.name.startswith(".")] == []
    robocache.build(source, SPEC, tmp_path / "fresh", workers=1)
    assert shard_bytes(tmp_path / "cache") == shard_bytes(tmp_path / "fresh")


def test_several_processes_give_the_same_bytes(tmp_path, undisturbed):
    """Fails when what a shard holds depends on who builds it. Seen to fail with the process's id in its description."""
    heard = []
    built = robocache.build(ROBOT, SPEC, tmp_path / "cache", workers=2, progress=heard.append)
    assert shard_bytes(tmp_path / "cache") == undisturbed
    assert (built.episodes, built.built, built.left) == (6, 6, 6)
    assert [one.episodes_done for one in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[-1].bytes_done == built.size_bytes == sum(map(len, undisturbed.values()))


def test_two_builds_at_once_build_every_shard_once(tmp_path, undisturbed):
    """Fails when builders of one shard do not exclude each other."""
    script = DOUBLE + "print(" + BUILD.format(6, 1) + ".built)"
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sum(int(process.communicate(timeout=120)[0]) for process in both) == 6
    assert shard_bytes(tmp_path / "cache") == undisturbed


def test_workers_end_when_their_parent_is_killed(tmp_path):
    """Fails, by its time, when a worker waits for ever for one that is gone; finished shards stay whole."""
    script = DOUBLE + BUILD.format(1000, 2)
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cache")]) as process:
        try:
            wait_for_shards(tmp_path / "cache")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        finally:
            process.kill()
    assert len(children) == 2
    wait_until(lambda: not any(is_running(child) for child in children), deadline_s=60)
    assert problems(tmp_path / "cache") == []


def test_an_interrupted_command_says_what_stays(tmp_path):
    """Fails when Ctrl-C leaves workers or partial files behind, or does not say that finished shards stay."""
    script = DOUBLE + "import robocache.cache.units as units; from robocache.cli.main import main; "
    script += "units.open_recordings = lambda path, rate_hz: R(3, duration_s=1.0, episodes=1000, lidar_points=64); "
    script += "sys.argv = ['robocache', 'build', 'x', '--rate', '50', '--workers', '1', '--cache', sys.argv[1]]; main()"
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    # What runs in the background has Ctrl-C ignored, and its children with it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            wait_for_shards(tmp_path / "cache")
            process.send_signal(signal.SIGINT)
            told = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"of 1000 episodes are in {tmp_path / 'cache'}; the same command goes on from there" in told
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    assert problems(tmp_path / "cache") == []


def test_an_episode_that_cannot_be_built_is_named(tmp_path):
    """Fails when the message lacks recording, episode or reason, in this process or from another one."""
    spec = robocache.Align(robocache.Rate(50), {"x": robocache.From("/imu.angular")})
    for workers in (1, 2):
        with pytest.raises(BuildError, match=r"^synthetic:seed=3, episode_00000\d: cannot be built: .*has no stream"):
            robocache.build(ROBOT, spec, tmp_path / "cache", workers=workers)
    assert list((tmp_path / "cache" / "shards").iterdir()) == []


def test_a_source_that_cannot_travel_is_refused(tmp_path):
    """Fails when a source that other processes cannot import ends in their traceback."""
    with pytest.raises(ArgumentError, match="cannot be sent to other processes"):
        robocache.build(lambda: ROBOT(), SPEC, tmp_path / "cache", workers=2)
    with pytest.raises(ArgumentError, match=r"^workers must be"):
        robocache.build(ROBOT, SPEC, tmp_path / "cache", workers=0)


def test_a_worker_that_dies_is_an_error(tmp_path):
    """Fails, by its timeout, when the death of a worker goes unnoticed."""
    with pytest.raises(BuildError, match=r"a process that builds ended \(exit code 7\)"):
        robocache.build(_Dying(), SPEC, tmp_path / "cache", workers=2)


def test_a_full_disk_leaves_the_cache_usable(tmp_path, undisturbed):
    """Fails when no room is anything but `CacheFullError`, or something partial stays."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(CacheFullError, match="needs") as caught:
            robocache.build(ROBOT, SPEC, tmp_path / "cache", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.needed_bytes > 20_000
    assert list((tmp_path / "cache" / "partial").iterdir()) == []
    robocache.build(ROBOT, SPEC, tmp_path / "cache", workers=1)
    assert shard_bytes(tmp_path / "cache") == undisturbed


def test_a_limit_below_the_data_set_says_so(tmp_path, undisturbed):
    """Fails when a build goes beyond its limit, or claims that all shards are there."""
    limit = sum(map(len, undisturbed.values())) // 2
    built = robocache.build(ROBOT, SPEC, tmp_path / "cache", cache_limit=limit, workers=1)
    sizes = [info.size_bytes for info in ShardStore(tmp_path / "cache").ls()]
    assert 0 < built.left == len(sizes) < 6
    assert sum(sizes) <= limit


def test_a_file_is_read_in_order_by_one_worker():
    """Fails when the episodes of a file are strewn among workers, or a single file keeps all but one idle."""
    units = [_unit(number, files) for number, files in enumerate("aaaabbbcc")]
    assert [[unit.index for unit in run] for run in runs(units, 2)] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]
    assert [[unit.index for unit in run] for run in runs(units[:4], 3)] == [[0], [1], [2, 3]]
    assert [[unit.index for unit in run] for run in runs(units[:2], 8)] == [[0], [1]]


class _Dying:
    """A source that ends every process but this one."""

    def __call__(self):
        return ROBOT()

    def __reduce__(self):
        return (os._exit, (7,))


def _unit(number, file):
    from robocache.cache import shard_key
    from robocache.cache.units import Unit

    return Unit(number, str(number), shard_key([], {"number": number}, 1), (Path(file),))


def wait_for_shards(folder):
    wait_until(lambda: len(list(folder.glob("shards/*.shard"))) > 1, deadline_s=60)


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
