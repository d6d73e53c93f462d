"""The scenarios of loaders, processes, sizes and years, short; and each with a fault that it must find."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from robocache import open_recording
from robocache.loader import Loader, SampleOrder
from robocache.stress import abandoned_loaders, kill_and_resume, long_horizon, mixed_concurrency, process_starts
from robocache.stress.loader_burn_in import loader_burn_in
from robocache.stress.mixed_sizes import mixed_sizes
from robocache.stress.settings import Settings, choose_device
from robocache.stress.soak import Soak

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(120)]
ON_CPU = Settings(seconds=5, batch_size=2)
BESIDE_REPOSITORY = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"


def test_a_loader_leaves_nothing_however_it_is_left(monkeypatch):
    """Fails when an abandoned loader keeps its thread or its episodes; the control keeps the loader itself."""
    report = abandoned_loaders.start_use_abandon(ON_CPU, rounds=8)
    assert report.failures == (), report
    kept = []
    way = lambda dataset, device: kept.append(iter(Loader(dataset, batch_size=2)))  # noqa: E731
    monkeypatch.setattr(abandoned_loaders, "WAYS", {"kept": way})
    report = abandoned_loaders.start_use_abandon(ON_CPU, rounds=8)
    assert "a loader kept: tensors grows by" in "; ".join(report.failures), report
    for each in kept:
        each.close()


@pytest.mark.gpu
def test_a_loader_leaves_nothing_on_a_gpu_however_it_is_left():
    """Fails where each loader copies on a stream of its own: 32 streams keep the memory of their batches."""
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("memory of a GPU needs one, and PyTorch finds none here")
    report = abandoned_loaders.start_use_abandon(Settings(seconds=5, batch_size=2, device="cuda"))
    assert report.failures == (), report


def test_children_have_loaders_of_their_own(monkeypatch):
    """Fails when a fork shares its parent's loader, or a child's order depends on how it was started.

    The control: a loader that does not ask whose process it is in.
    """
    report = process_starts.fork_and_spawn(ON_CPU, forks=1, spawns=1)
    assert report.failures == (), report
    monkeypatch.setattr(process_starts, "ClosedError", ZeroDivisionError)
    report = process_starts.fork_and_spawn(ON_CPU, forks=1, spawns=0)
    assert "child 0 by fork: it ended with exit code 1" in "; ".join(report.failures), report


def test_what_was_killed_goes_on(monkeypatch):
    """Fails when a killed build leaves half a shard or begins anew, or a resumed epoch repeats or skips a sample.

    The control: a step whose state is not loaded again.
    """
    report = kill_and_resume.kill_and_resume(ON_CPU, kills=1)
    assert report.failures == (), report
    monkeypatch.setattr(Loader, "load_state_dict", lambda *_: None)
    report = kill_and_resume.kill_and_resume(ON_CPU, kills=1)
    assert "are not the" in "; ".join(report.failures), report


def test_sizes_of_all_kinds_leave_no_pieces():
    """Fails when a size keeps something of its own; the control keeps a byte string a call."""
    report = mixed_sizes(ON_CPU)
    assert report.problems == (), report
    kept = []
    report = mixed_sizes(ON_CPU, iterations=400, keep=lambda grid: kept.append(grid[:1, :1, :1].clone()))
    assert "FAIL tensors" in "; ".join(report.problems), report


def test_years_are_right(monkeypatch):
    """Fails when a counter has 32 bits, of places or epochs; the control is an order whose places are cut to those."""
    report = long_horizon.long_horizon(ON_CPU)
    assert report.failures == (), report
    whole = SampleOrder.samples_at
    monkeypatch.setattr(
        SampleOrder,
        "samples_at",
        lambda self, places, *, epoch=None: whole(self, np.asarray(places) % 2**32, epoch=epoch),
    )
    assert "comes twice" in "; ".join(long_horizon.long_horizon(ON_CPU).failures)


def test_threads_of_a_process_get_their_own_results(monkeypatch):
    """Fails when threads share what they write to; the control lets all of them share one result."""
    assert mixed_concurrency.run_threads(ON_CPU, 0, 2, 2) == [0, 0]
    run, held = mixed_concurrency.Workload.run, []

    def shared(self, iteration):
        run(self, iteration)
        held.append(self._held)
        self._held = (*held[0][:2], self._held[2])

    monkeypatch.setattr(mixed_concurrency.Workload, "run", shared)
    assert sum(mixed_concurrency.run_threads(ON_CPU, 0, 2, 2)) > 0


@pytest.mark.parametrize("fault", ["lost", "doubled", "changed"])
def test_a_soak_sees_what_a_loader_does_wrong(tmp_path, monkeypatch, fault):
    """Fails when batches are counted and not compared: a sample lost or doubled in an epoch, a value changed."""
    soak = Soak(abandoned_robot, Settings(seconds=5, batch_size=8), tmp_path)
    batches = list(soak._loader)
    if fault == "changed":
        batches[0].data["/joint_states.position"][1] += 1
    elif fault == "lost":
        del batches[2]
    else:
        batches.append(batches[1])
    soak._loader.close()
    monkeypatch.setattr(soak, "_loader", batches)
    monkeypatch.setattr(soak, "_next_build", float("inf"))
    for iteration in range(len(batches) + 1):
        soak.run(iteration)
    (said,) = soak.failures()
    wanted = {
        "lost": "epoch 1: 8 samples were lost",
        "doubled": "8 came more than once",
        "changed": "/joint_states.pos",
    }
    assert wanted[fault] in said


def abandoned_robot():
    from robocache.readers import SyntheticRobot

    return SyntheticRobot(7, duration_s=1.0, lidar_points=16)


def test_a_cached_episode_that_is_not_its_files_is_seen(tmp_path):
    """Fails when the cache is only compared with itself."""
    soak = Soak(abandoned_robot, Settings(seconds=5, batch_size=8), tmp_path)
    assert soak._difference_from_files(0) == ""
    soak._source = other_robot
    assert "in cached episode 0 is not what its files hold" in soak._difference_from_files(0)
    soak.close()


def other_robot():
    from robocache.readers import SyntheticRobot

    return SyntheticRobot(8, duration_s=1.0, lidar_points=16)


def test_the_loader_over_a_robot_is_right_and_leaks_are_found():
    """Fails when a batch keeps anything; the control keeps each batch's tensors."""
    report = loader_burn_in(ON_CPU, batches=700)
    assert report.problems == (), report
    kept = []
    report = loader_burn_in(ON_CPU, batches=700, after_batch=lambda: kept.append(np.zeros(500)))
    assert "FAIL heap_bytes" in "; ".join(report.problems), report


@pytest.fixture
def video():
    folder = Path(os.environ.get("ROBOCACHE_RECORDINGS", BESIDE_REPOSITORY))
    path = folder / "g1_lerobot_v30"
    if not path.is_dir():
        pytest.skip(f"{path} is absent; set ROBOCACHE_RECORDINGS to the folder with the real recordings")
    return path


def test_the_loader_over_a_recording_with_video_is_right(video):
    """Fails when a decoded image is not the one of its frame, on a recording that we did not write."""

    def one_episode():  # of several, since decoding takes seconds each
        recording = open_recording(video)
        recording.episode_names = recording.episode_names[:1]
        return recording

    report = loader_burn_in(ON_CPU, source=one_episode, batches=150)
    assert report.failures == (), report
    assert report.measured["episodes_aligned_anew"] == 1
