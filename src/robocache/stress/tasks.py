"""What a long run repeats: an iteration of the burn-in, a batch of the loader, or a whole scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from robocache.errors import ArgumentError
from robocache.stress.report import Report
from robocache.stress.scenarios import SCENARIOS, Scenario
from robocache.stress.settings import Settings
from robocache.stress.workload import Workload

_SHORT_S = 8.0  # of a scenario that has no end of its own


class Task(Protocol):
    """One piece of work, again and again.

    Args:
        warm_up: How often before the first reading, at least.
        deadline_s: How long one may take before that is a hang.
        maps_files: It maps files, whose pages are not counted as resident memory then.
    """

    warm_up: int
    deadline_s: float
    maps_files: bool

    def run(self, iteration: int) -> None:
        """Do it once.

        Args:
            iteration: How many were done, in all processes of the run.
        """
        ...

    def failures(self) -> list[str]:
        """What was wrong so far, one sentence each; asked at every check, and the run ends with the first."""
        ...

    def measured(self) -> dict[str, float | str]:
        """What is worth knowing at the end, by name."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class Inference:
    """The iteration of the burn-in: a fuse and a voxel grid, both verified.

    Args:
        settings: Device, batch size and seed.
    """

    warm_up = 6  # every input set twice
    deadline_s = 600.0
    maps_files = False

    def __init__(self, settings: Settings) -> None:
        self._workload = Workload(batch=settings.batch_size, device=settings.device, seed=settings.seed, is_alone=True)

    def run(self, iteration: int) -> None:
        """One iteration."""
        self._workload.run(iteration)

    def failures(self) -> list[str]:
        """Wrong elements."""
        wrong = self._workload.wrong_elements()
        return [f"{wrong} elements of the results are wrong"] if wrong else []

    def measured(self) -> dict[str, float | str]:
        """Nothing more."""
        return {}

    def close(self) -> None:
        """Nothing is held."""


class Rounds:
    """A scenario of the registry, round after round.

    Args:
        scenario: Which.
        settings: Device, batch size and seed.
        beat: The sign of life, for those that give some within a round.
    """

    warm_up = 1
    deadline_s = 600.0
    maps_files = False

    def __init__(self, scenario: Scenario, settings: Settings, beat: Callable[[], object]) -> None:
        scenario.check_runs_on(settings.device)
        self._scenario = scenario
        self._settings = Settings(
            seconds=_SHORT_S, batch_size=settings.batch_size, device=settings.device, seed=settings.seed
        )
        self._beat = beat
        self._failures: list[str] = []
        self._undecided = 0

    def run(self, iteration: int) -> None:
        """One round."""
        report: Report = self._scenario.run(self._settings, self._beat)
        self._undecided += bool(report.undecided)
        self._failures += [f"round {iteration}: {problem}" for problem in report.problems]

    def failures(self) -> list[str]:
        """The problems of all rounds."""
        return self._failures

    def measured(self) -> dict[str, float | str]:
        """How many rounds alone could not tell: they are short, the long run's own counters are not."""
        return {"rounds_undecided": self._undecided}

    def close(self) -> None:
        """Nothing is held."""


def scenario_named(name: str) -> Scenario:
    """One of the registry.

    Args:
        name: Its name.

    Raises:
        ArgumentError: There is none of that name; the message lists those there are.
    """
    if name not in SCENARIOS:
        raise ArgumentError(f"no scenario is called {name!r}; there are {', '.join(SCENARIOS)}")
    return SCENARIOS[name]
