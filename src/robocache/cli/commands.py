"""The commands by name, each imported when it is asked for: `inspect` need not wait for what `burn-in` imports."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import typer

# In the order of `robocache --help`: the module, and its function or its group of commands.
PLACES = {
    "demo": ("demo", "command"),
    "inspect": ("inspect", "command"),
    "align": ("align", "command"),
    "build": ("build", "command"),
    "doctor": ("doctor", "command"),
    "self-test": ("self_test", "command"),
    "burn-in": ("burn_in", "burn_in"),
    "soak": ("burn_in", "soak"),
    "bench": ("bench", "app"),
    "cache": ("cache", "app"),
    "stress": ("stress", "app"),
}


class Commands(Mapping[str, Any]):
    """What Typer makes of each command, made when it is looked up; the names are known without."""

    def __getitem__(self, name: str) -> Any:
        module, attribute = PLACES[name]
        found = getattr(importlib.import_module(f"robocache.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(found)
            command = typer.main.get_command(alone)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)
