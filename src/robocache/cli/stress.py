"""`robocache stress`: every scenario for as long as wanted, and whether the suite is worth its verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robocache.cli.console import Printer
from robocache.cli.devices import checked_device
from robocache.cli.endurance import Wanted, endure
from robocache.cli.long_options import LongOptions, long_command
from robocache.cli.options import JsonOutput

if TYPE_CHECKING:
    from robocache.stress.kill_matrix import Cell

EXIT_SURVIVED = 1
_SHOWN_TEXT = 90
app = typer.Typer(help="Run a scenario for hours, or the suite against its faults.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Run a scenario for hours, or the suite against its faults."""


@app.command("run")
@long_command
def run(
    options: LongOptions,
    name: Annotated[str, typer.Argument(help="Which scenario; `robocache stress list` has their names.")],
) -> None:
    """Repeat a scenario for 24 hours, and watch every counter for leaks."""
    from robocache.stress.tasks import Rounds, scenario_named

    scenario = scenario_named(name)
    if options.device is None and len(scenario.devices) == 1:
        options = replace(options, device=scenario.devices[0])
    if options.device == "cuda":  # said first: a missing GPU is no reason where none is of use
        scenario.check_runs_on("cuda")
    endure(options, Wanted(f"stress {name}", lambda settings, beat: Rounds(scenario, settings, beat)))


@app.command("list")
def list_scenarios(
    json_output: JsonOutput = False,
) -> None:
    """List the scenarios, what each promises and where it runs."""
    from robocache.stress.scenarios import SCENARIOS

    printer = Printer(json_output=json_output)
    found = [
        {"name": one.name, "promise": one.promise, "devices": list(one.devices), "hang_s": one.hang_s}
        for one in SCENARIOS.values()
    ]
    printer.document({"command": "stress list", "scenarios": found})
    if not json_output:
        rows = [(one.name, one.promise, ", ".join(one.devices)) for one in SCENARIOS.values()]
        printer.table(("scenario", "promise", "on"), rows, left=3)


@app.command("kill-matrix")
def kill_matrix(
    fault: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this fault; may be repeated.")] = None,
    device: Annotated[str | None, typer.Option(help="cuda or cpu; without it the GPU if there is one.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every fault with every scenario, not only its own.")] = False,
    clean: Annotated[bool, typer.Option("--clean/--no-clean", help="Run the scenarios unbroken as well.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the JSON goes, after each pair.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the pairs of --out and run the rest.")] = False,
    jobs: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Pairs at a time; what goes wrong beside others is run again, alone."),
    ] = 1,
    list_faults: Annotated[bool, typer.Option("--list", help="Print the catalogue and run nothing.")] = False,
    json_output: JsonOutput = False,
) -> None:
    """Break RoboCache in every way of the catalogue; exit code 1 if one goes unnoticed, or for the wrong reason."""
    from robocache.cli.matrix_file import MatrixFile
    from robocache.stress.kill_matrix import pairs, run_matrix
    from robocache.stress.settings import choose_device

    printer = Printer(json_output=json_output)
    if list_faults:
        print_catalogue(printer)
        return
    where = choose_device() if device is None else checked_device(device)
    file = MatrixFile(
        out, pairs(where, fault or (), is_full=full, with_clean=clean), where, is_full=full, resume=resume, jobs=jobs
    )
    with printer.progress("breaking", len(file.left)) as advance:

        def finished(cell: Cell) -> None:
            file.add(cell)
            advance(f"{cell.fault}, {cell.scenario}: {told(cell)}")

        run_matrix(file.left, where, finished, jobs=jobs)
    document = file.document()
    printer.document(document)
    if not json_output:
        _print_matrix(printer, file.cells, document)
    if not document["passed"]:
        raise typer.Exit(EXIT_SURVIVED)


def told(cell: Cell) -> str:
    """A verdict; with its reason where it is not the one that is wanted."""
    return cell.status if cell.is_good else f"{cell.status} ({cell.reason or 'the scenario found nothing'})"


def _print_matrix(printer: Printer, cells: list[Cell], document: dict[str, Any]) -> None:
    rows = [(cell.fault, cell.scenario, cell.status, f"{cell.seconds:.1f} s", _short(cell.reason)) for cell in cells]
    printer.table(("fault", "scenario", "status", "after", "because"), rows, left=3)
    for cell in cells:
        if cell.beside_others:
            printer.say(f"{cell.fault}, {cell.scenario}: {cell.status} alone; beside others {cell.beside_others}")
        if not cell.is_good:
            printer.say(f"{cell.fault}, {cell.scenario}: {told(cell)}")
    printer.say(f"{document['killed']} of {document['faults']} faults killed, each for its own reason")


def print_catalogue(printer: Printer) -> None:
    """Every fault with what it breaks and who must notice."""
    from robocache.testing import FAULTS

    faults = [
        {"name": one.name, "description": one.description, "scenario": one.scenario, "devices": list(one.devices)}
        for one in FAULTS.values()
    ]
    printer.document({"command": "stress kill-matrix", "catalogue": faults})
    if not printer.json_output:
        rows = [(one.name, one.description, one.scenario, ", ".join(one.devices)) for one in FAULTS.values()]
        printer.table(("fault", "what is broken", "noticed by", "on"), rows, left=4)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"
