"""The options that all long runs share, written once."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from robocache.cli.options import JsonOutput
from robocache.errors import ArgumentError

if TYPE_CHECKING:
    from robocache.stress.long_settings import Thresholds

Number = float | None
_YEAR_S = 366 * 86_400.0


@dataclass(frozen=True)
class LongOptions:
    """What a long run was asked for."""

    hours: Annotated[Number, typer.Option(help="How long; hours, minutes and seconds add up. None: 24 hours.")] = None
    minutes: Annotated[Number, typer.Option(help="Added to the hours.")] = None
    seconds: Annotated[Number, typer.Option(help="Added to both.")] = None
    device: Annotated[str | None, typer.Option(help="cuda or cpu; without it the GPU if there is one.")] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Episodes or samples at once; less needs less memory.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of the inputs.")] = 0
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Append every reading, as JSON lines.")] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of --log; a new one if there is none.")
    ] = False
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write charts and verdicts.")] = None
    junit: Annotated[Path | None, typer.Option(metavar="FILE.xml", help="Write verdicts for CI.")] = None
    gpu_leak_mb: Annotated[
        Number,
        typer.Option(
            help="GPU memory that may be gained, at a check and a day. None: ROBOCACHE_GPU_LEAK_MB, else 100."
        ),
    ] = None
    cpu_leak_mb: Annotated[
        Number, typer.Option(help="The same of the host's memory. None: ROBOCACHE_CPU_LEAK_MB, else 500.")
    ] = None
    budget: Annotated[
        list[str] | None, typer.Option(metavar="COUNTER=NUMBER", help="What one counter may gain a day.")
    ] = None
    reading_share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Of the time, that readings may take; more make short runs surer.")
    ] = 0.005
    deadline: Annotated[
        Number, typer.Option(metavar="SECONDS", help="Without a sign of life for so long it is a hang. None: 600.")
    ] = None
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve every figure to Prometheus there.")
    ] = None
    metrics_host: Annotated[str, typer.Option(help="Whom to serve; 0.0.0.0 is everybody.")] = "127.0.0.1"
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Trace 20 iterations with PyTorch's profiler.")
    ] = None
    nvtx: Annotated[bool, typer.Option("--nvtx", help="Mark iterations and batches for nsys; ROBOCACHE_NVTX=1.")] = (
        False
    )
    json_output: JsonOutput = False

    @property
    def duration_s(self) -> float | None:
        """What hours, minutes and seconds come to; None: nobody said."""
        parts = (self.hours, 3600.0), (self.minutes, 60.0), (self.seconds, 1.0)
        given = [value * unit for value, unit in parts if value is not None]
        return sum(given) if given else None

    @property
    def deadline_s(self) -> Number:
        """How long a run may give no sign of life; None: nobody said.

        Raises:
            ArgumentError: `--deadline` is no such number.
        """
        if self.deadline is None:
            return None
        return _amount("--deadline", "seconds, at most a year", self.deadline, most=_YEAR_S)

    def thresholds(self) -> Thresholds:
        """Of the options, else of the environment.

        Raises:
            ArgumentError: A number that cannot be meant; the message names the option or variable.
        """
        from robocache.stress.long_settings import thresholds_from_environment

        found = thresholds_from_environment()
        if self.gpu_leak_mb is not None:
            found = replace(found, gpu_leak_mb=_amount("--gpu-leak-mb", "MB", self.gpu_leak_mb))
        if self.cpu_leak_mb is not None:
            found = replace(found, cpu_leak_mb=_amount("--cpu-leak-mb", "MB", self.cpu_leak_mb))
        return replace(found, budgets=self._budgets())

    def _budgets(self) -> dict[str, float]:
        found = {}
        for text in self.budget or ():
            name, _, number = text.partition("=")
            try:
                found[name] = float(number)
            except ValueError:
                found[name] = math.nan
            if not 0 <= found[name] < math.inf:
                raise ArgumentError(f"--budget must be such as heap_bytes=200e6, 0 or more, got {text!r}")
        return found


def _amount(option: str, unit: str, value: float, *, most: float = sys.float_info.max) -> float:
    if not 0 < value <= most:  # also NaN
        raise ArgumentError(f"{option} must be a number of {unit}, more than 0, got {value:g}")
    return value


def long_command(body: Callable[..., None]) -> Callable[..., None]:
    """A command out of a function that takes `options`, and arguments of its own.

    Args:
        body: Its own parameters come first on the command line; its docstring is the help.
    """
    hints = get_type_hints(body, include_extras=True)
    own = [each for each in inspect.signature(body).parameters.values() if each.name != "options"]
    option_hints = get_type_hints(LongOptions, include_extras=True)
    names = [field.name for field in fields(LongOptions)]

    def command(**values: Any) -> None:
        body(LongOptions(**{name: values.pop(name) for name in names}), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [_annotated(each, hints[each.name]) for each in own] + [
        inspect.Parameter(
            field.name,
            keyword,
            annotation=option_hints[field.name],
            default=field.default,
        )
        for field in fields(LongOptions)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__doc__, command.__name__ = body.__doc__, body.__name__
    return command


def _annotated(parameter: inspect.Parameter, annotation: object) -> inspect.Parameter:
    """The same, by keyword, with its annotation evaluated."""
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
