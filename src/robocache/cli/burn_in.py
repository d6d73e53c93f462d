"""`robocache burn-in` and `robocache soak`: hours or days of inference, or of the loader."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robocache.cli.endurance import Wanted, endure
from robocache.cli.long_options import LongOptions, long_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from robocache.stress.settings import Settings
    from robocache.stress.tasks import Task


@long_command
def burn_in(options: LongOptions) -> None:
    """Fuse and voxelize for 24 hours, every result verified, and watch every counter for leaks."""
    from robocache.stress.tasks import Inference

    endure(options, Wanted("burn-in", lambda settings, _: Inference(settings)))


@long_command
def soak(
    options: LongOptions,
    path: Annotated[
        str | None, typer.Argument(help="Whatever `robocache inspect` takes; without it a generated robot.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames a second.")] = 50.0,
    source_rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="The rate of a recording that has no times.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Where aligned episodes lie; as for `robocache build`.")] = None,
) -> None:
    """Run the loader over recordings for 24 hours; batches are verified against direct reads."""
    from robocache.cache.opening import default_cache
    from robocache.stress.soak import Soak, generated_robot

    folder = default_cache() if cache is None else cache

    def make(settings: Settings, _: Callable[[], object]) -> Task:
        source = generated_robot if path is None else path
        return Soak(source, settings, folder, rate_hz=rate, source_rate_hz=source_rate)

    rates = f"{rate:g} Hz" + ("" if source_rate is None else f" of {source_rate:g} Hz")
    endure(options, Wanted("soak", make, source=f"{path or 'generated robot'} at {rates}"))
