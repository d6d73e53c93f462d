"""What a scenario found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from robocache.stress.series import Series
from robocache.stress.verdicts import Outcome, Verdict

Lines = Callable[[str], None]
"""Where a scenario's lines go: `print`, a log, or `silent`. Scenarios never print by themselves."""


def silent(line: str) -> None:
    """Drop a line."""
    del line


@dataclass(frozen=True)
class Report:
    """What a scenario measured, and what was wrong.

    Args:
        scenario: Its name.
        device: Where it ran.
        iterations: How many were done.
        seconds: How long they took.
        failures: One sentence for each broken promise; empty means that all were kept.
        verdicts: One for each counter that was watched.
        measured: Everything else that is worth knowing, by name.
        series: The readings behind the verdicts, for charts and for judging again.
    """

    scenario: str
    device: str
    iterations: int
    seconds: float
    failures: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    measured: Mapping[str, float | str] = field(default_factory=dict)
    series: tuple[Series, ...] = field(default=(), repr=False)

    @property
    def outcome(self) -> Outcome:
        """The worst of all: a broken promise or a leak, then what could not be read, then what cannot be told yet."""
        outcomes = {verdict.outcome for verdict in self.verdicts} | ({"FAIL"} if self.failures else set())
        ranked: tuple[Outcome, ...] = ("FAIL", "INVALID", "INCONCLUSIVE")
        return next((each for each in ranked if each in outcomes), "PASS")

    @property
    def passed(self) -> bool:
        """Every promise was kept, and no watched counter leaks or could not be read."""
        return not self.failures and all(verdict.outcome in ("PASS", "INCONCLUSIVE") for verdict in self.verdicts)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why it did not pass: the failures, and the verdicts that say FAIL or INVALID."""
        return self.failures + tuple(
            str(verdict) for verdict in self.verdicts if verdict.outcome in ("FAIL", "INVALID")
        )

    @property
    def undecided(self) -> tuple[str, ...]:
        """The verdicts that say INCONCLUSIVE: they do not fail a run, and whoever reads its lines must see them."""
        return tuple(str(verdict) for verdict in self.verdicts if verdict.outcome == "INCONCLUSIVE")

    def as_dict(self, *, with_series: bool = True) -> dict[str, object]:
        """For JSON.

        Args:
            with_series: With all readings, some tens of kilobytes.
        """
        document: dict[str, object] = {
            "scenario": self.scenario,
            "device": self.device,
            "iterations": self.iterations,
            "seconds": self.seconds,
            "outcome": self.outcome,
            "passed": self.outcome == "PASS",
            "failures": list(self.failures),
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "measured": {name: None if value != value else value for name, value in self.measured.items()},
        }
        return document | ({"series": [each.as_dict() for each in self.series]} if with_series else {})

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Report:
        """What `as_dict` gave.

        Args:
            document: It.
        """
        return Report(
            scenario=document["scenario"],
            device=document["device"],
            iterations=document["iterations"],
            seconds=document["seconds"],
            failures=tuple(document["failures"]),
            verdicts=tuple(Verdict.from_dict(each) for each in document["verdicts"]),
            measured={name: float("nan") if value is None else value for name, value in document["measured"].items()},
            series=tuple(Series.from_dict(each) for each in document.get("series", ())),
        )

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        lines = [f"{self.scenario} {outcome} on {self.device}: {self.iterations} iterations in {self.seconds:.1f} s"]
        lines += [f"  {problem}" for problem in self.failures]
        for verdict in self.verdicts:
            detectable = verdict.detectable
            lines.append(f"  {verdict}" + (f" (minimum detectable leak: {detectable})" if detectable else ""))
        lines += [f"  {name}: {value}" for name, value in self.measured.items()]
        return "\n".join(lines)
