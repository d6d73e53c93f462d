"""Every scenario by name, in a short form of seconds: what the suite is, for whoever runs all of it.

A scenario takes settings, a sink for its lines, and a heartbeat, and returns a report. It may end this process: by a
limit on its memory, or by a deadlock that it was made to find. Run it in one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from robocache.errors import ArgumentError
from robocache.stress.abandoned_loaders import start_use_abandon
from robocache.stress.ageing import ageing
from robocache.stress.back_pressure import back_pressure
from robocache.stress.burn_in import Hooks, burn_in
from robocache.stress.cache_writing import cache_writing
from robocache.stress.concurrency import concurrent_inference
from robocache.stress.exceptions import exceptions
from robocache.stress.kill_and_resume import kill_and_resume
from robocache.stress.loader_burn_in import loader_burn_in
from robocache.stress.long_horizon import long_horizon
from robocache.stress.memory_leak import repeated_operation
from robocache.stress.mixed_concurrency import threads_streams_processes
from robocache.stress.mixed_sizes import mixed_sizes
from robocache.stress.multistream import multistream_inference
from robocache.stress.process_starts import fork_and_spawn
from robocache.stress.repeated_allocation import repeated_allocation
from robocache.stress.report import Report
from robocache.stress.settings import Settings
from robocache.stress.worker_processes import worker_processes

Beat = Callable[[], object]
Run = Callable[[Settings, Beat], Report]
_EVERYWHERE = ("cpu", "cuda")


@dataclass(frozen=True)
class Scenario:
    """One scenario in its short form.

    Args:
        name: Its name.
        promise: What it shows, in a sentence.
        run: Takes settings and a heartbeat, which it calls as often as it can.
        hang_s: How long it may go without a heartbeat before that is a hang.
        devices: Where it can run, of "cpu" and "cuda".
    """

    name: str
    promise: str
    run: Run
    hang_s: float = 120.0
    devices: tuple[str, ...] = _EVERYWHERE

    def check_runs_on(self, device: str) -> None:
        """Say so where it cannot.

        Args:
            device: "cpu", "cuda", "cuda:1".

        Raises:
            ArgumentError: It does not run there.
        """
        if device.split(":", maxsplit=1)[0] not in self.devices:
            raise ArgumentError(f"{self.name} runs on {' and '.join(self.devices)}, not on {device}")


def _burn_in(settings: Settings, beat: Beat) -> Report:
    return burn_in(settings, Hooks(heartbeat=beat))


def _repeated_operation(settings: Settings, _: Beat) -> Report:
    return repeated_operation("voxelize_pointcloud", settings, iterations=2_500)


def _many_calls(settings: Settings, _: Beat) -> Report:
    return repeated_operation("voxelize_pointcloud", settings, iterations=12_000)


def _repeated_allocation(settings: Settings, _: Beat) -> Report:
    return repeated_allocation(settings, cycles=100, out_of_memory_rounds=10, is_own_process=True)


_ALL = (
    Scenario("burn-in", "inference stays right, and holds no more at the end", _burn_in, hang_s=15.0),
    Scenario("repeated-operation", "2500 calls of one operation leave nothing behind", _repeated_operation),
    Scenario("many-calls", "not one of 12000 results is wrong", _many_calls),
    Scenario("repeated-allocation", "memory that runs out is given back", _repeated_allocation),
    Scenario(
        "back-pressure",
        "a slow consumer costs bounded memory, and sees every sample once",
        lambda settings, _: back_pressure(settings, samples=16, delay_s=0.02, rounds=8),
    ),
    Scenario(
        "concurrent-inference",
        "four threads at once get their own results",
        lambda settings, _: concurrent_inference(settings, iterations=25),
    ),
    Scenario(
        "multistream-inference",
        "four CUDA streams at once get their own results",
        lambda settings, _: multistream_inference(settings, iterations=25),
        devices=("cuda",),
    ),
    Scenario(
        "exceptions",
        "each invalid input gets its own error, and spoils nothing",
        lambda settings, beat: exceptions(settings, iterations=400, heartbeat=beat),
    ),
    Scenario("ageing", "the last calls are as quick as the first", lambda settings, _: ageing(settings)),
    Scenario(
        "cache-writing", "a shard is whole or not there", lambda settings, _: cache_writing(settings), devices=("cpu",)
    ),
    Scenario(
        "worker-processes", "results of other processes are right", lambda settings, _: worker_processes(settings)
    ),
    Scenario(
        "loader-burn-in",
        "batches are what the episodes hold, every sample comes once, and nothing is left behind",
        lambda settings, beat: loader_burn_in(settings, heartbeat=beat),
    ),
    Scenario(
        "threads-streams-processes",
        "threads of several processes, each on a stream of its own, get their own results",
        lambda settings, _: threads_streams_processes(settings),
        hang_s=300.0,
    ),
    Scenario(
        "start-use-abandon",
        "a loader leaves nothing behind, however it is left",
        lambda settings, beat: start_use_abandon(settings, heartbeat=beat),
    ),
    Scenario(
        "fork-and-spawn",
        "children of a program with a loader at work have their own",
        lambda settings, beat: fork_and_spawn(settings, heartbeat=beat),
        devices=("cpu",),
    ),
    Scenario(
        "kill-and-resume",
        "a killed build and a killed training loop go on where they were",
        lambda settings, beat: kill_and_resume(settings, heartbeat=beat),
        devices=("cpu",),
    ),
    Scenario(
        "mixed-sizes",
        "calls of all sizes in turn do not fragment memory",
        lambda settings, beat: mixed_sizes(settings, heartbeat=beat),
    ),
    Scenario(
        "long-horizon",
        "samples, steps and epochs beyond 2**31 are right",
        lambda settings, beat: long_horizon(settings, heartbeat=beat),
    ),
)
SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
