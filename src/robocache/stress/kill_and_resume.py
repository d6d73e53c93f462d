"""SIGKILL in the middle of a cache build and of a training loop: both go on where they were, and nothing differs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robocache.align import Align, Rate
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.opening import open_dataset
from robocache.loader import Batch, Loader
from robocache.readers import SyntheticRobot
from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings

KILLS = 2
_EPISODES = 10
_DEADLINE_S = 90.0
_BEFORE_KILL = 3  # episodes or batches
_MOST_DELAY_S = 0.03  # from then to the kill
_BATCH, _WINDOW, _MEMORY = 64, 2, "64MiB"


def kill_and_resume(
    settings: Settings, lines: Lines = silent, *, kills: int = KILLS, heartbeat: Callable[[], object] = int
) -> Report:
    """Children that kill themselves at a random moment of their work, and one that ends it.

    A failure of the report is a cache that differs in a byte from one built undisturbed, holds a leftover, or was built
    anew as a whole; an epoch whose samples differ from an undisturbed one's; or a child that was not killed.

    Args:
        settings: The seed; children use the CPU.
        lines: Gets a line for both.
        kills: How often each is killed.
        heartbeat: Called after each child.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="robocache-kill-") as name:
        folder = Path(name)
        failures = _build_failures(folder, settings.seed, kills, heartbeat)
        lines(f"a build killed {kills} times: {len(failures)} failures")
        failures += _training_failures(folder, settings.seed, kills, heartbeat)
        lines(f"a training loop killed {kills} times: {len(failures)} failures in all")
    return Report(
        "kill-and-resume",
        "cpu",
        iterations=2 * (kills + 1),
        seconds=time.monotonic() - started,
        failures=tuple(failures),
    )


def recording() -> SyntheticRobot:
    """What is built and trained on."""
    return SyntheticRobot(5, duration_s=6.0, episodes=_EPISODES, lidar_points=64)


def _build_failures(folder: Path, seed: int, kills: int, heartbeat: Callable[[], object]) -> list[str]:
    failures = []
    for number in range(kills):
        failures += _killed("the build", _build_until_killed, str(folder / "cache"), seed + number)
        heartbeat()
    there = len(list((folder / "cache" / "shards").glob("*")))
    built = _dataset(folder / "cache").build(workers=1).built
    if built > _EPISODES - min(there, _BEFORE_KILL):
        failures.append(f"{built} of {_EPISODES} shards were built again, although {there} were there")
    _dataset(folder / "undisturbed").build(workers=1)
    ours, theirs = (_shards(folder / each) for each in ("cache", "undisturbed"))
    differing = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    failures += [f"shard {name} differs from that of an undisturbed build" for name in differing]
    left = [path.name for path in (folder / "cache" / "partial").glob("*")]
    return failures + [f"{name} was left half-written" for name in left]


def _training_failures(folder: Path, seed: int, kills: int, heartbeat: Callable[[], object]) -> list[str]:
    log = folder / "steps.jsonl"
    failures = []
    for number in range(kills):
        failures += _killed("training", _train_until_killed, str(folder / "cache"), seed + number, str(log))
        heartbeat()
    killed_after = len(_steps(log))
    _train(folder / "cache", log, lambda _: None)
    steps = _steps(log)
    with _loader(folder / "cache") as loader:
        expected = [_samples(batch) for batch in loader]
    if [step["samples"] for step in steps] != expected:
        failures.append(f"{len(steps)} steps are not the {len(expected)} of an undisturbed epoch")
    if not kills * _BEFORE_KILL <= killed_after < len(expected):
        failures.append(f"the kills came after {killed_after} of {len(expected)} steps: nothing was shown")
    return failures


def _killed(what: str, target: Callable[..., None], *arguments: Any) -> list[str]:  # noqa: ANN401  the target's own
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join(_DEADLINE_S)
    is_late = process.is_alive()
    if is_late:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    if is_late:
        return [f"{what} came to no end within {_DEADLINE_S:g} s"]
    return [] if code == -signal.SIGKILL else [f"{what} ended with exit code {code} before the kill"]


def _build_until_killed(cache: str, seed: int) -> None:
    done = []

    def progress(told: Any) -> None:  # noqa: ANN401  a BuildProgress
        done.append(told)
        if len(done) == _BEFORE_KILL:
            _kill_soon(seed)

    _dataset(Path(cache)).build(workers=1, progress=progress)
    if len(done) == _EPISODES:
        threading.Event().wait(1.0)  # it was quicker than the timer, which is on its way


def _train_until_killed(cache: str, seed: int, log: str) -> None:
    def after_step(step: int) -> None:
        if step == _BEFORE_KILL:
            _kill_soon(seed)

    _train(Path(cache), Path(log), after_step, is_slow=True)


def _train(cache: Path, log: Path, after_step: Callable[[int], None], *, is_slow: bool = False) -> None:
    """A step is done when its line is in the log; state and samples are one line, so that they cannot disagree."""
    with _loader(cache) as loader, log.open("ab", buffering=0) as file:
        if steps := _steps(log):
            loader.load_state_dict(steps[-1]["state"])
        for step, batch in enumerate(loader, 1):
            file.write((json.dumps({"samples": _samples(batch), "state": loader.state_dict()}) + "\n").encode())
            after_step(step)
            if is_slow and step > _BEFORE_KILL:
                threading.Event().wait(_MOST_DELAY_S / 3)  # what a step of training takes, so that the kill is in time


def _kill_soon(seed: int) -> None:
    delay_s = random.Random(f"{seed} {os.getpid()}").uniform(0, _MOST_DELAY_S)
    threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()


def _dataset(cache: Path) -> AlignedDataset:
    return open_dataset(recording, Align(Rate(50)), cache=cache)


def _loader(cache: Path) -> Loader:
    return Loader(_dataset(cache), batch_size=_BATCH, window=_WINDOW, memory=_MEMORY, seed=1)


def _samples(batch: Batch) -> list[list[int]]:
    return [list(pair) for pair in zip(batch.episode.tolist(), batch.frame.tolist(), strict=True)]


def _shards(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "shards").glob("*")}


def _steps(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()] if log.exists() else []
