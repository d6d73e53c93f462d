"""What a scenario found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from robocache.stress.leaks import Verdict

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
    """

    scenario: str
    device: str
    iterations: int
    seconds: float
    failures: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    measured: Mapping[str, float | str] = field(default_factory=dict)

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

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "measured": dict(self.measured), "passed": self.passed}

    def __str__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        lines = [f"{self.scenario} {outcome} on {self.device}: {self.iterations} iterations in {self.seconds:.1f} s"]
        lines += [f"  {problem}" for problem in self.failures]
        lines += [f"  {verdict}" for verdict in self.verdicts]
        lines += [f"  {name}: {value}" for name, value in self.measured.items()]
        return "\n".join(lines)
