"""`robocache bench`: how fast the operations are here, beside what else one could use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robocache.cli.console import Printer
from robocache.cli.devices import best_device, checked_device
from robocache.cli.options import JsonOutput

if TYPE_CHECKING:
    from robocache.benchmarks.run import Settings

EXIT_WRONG = 1
app = typer.Typer(help="Measure speed beside other libraries.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure speed beside other libraries."""


@app.command("ops")
def ops(
    device: Annotated[str | None, typer.Option(help="cuda or cpu; without it the GPU if there is one.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny shapes, few samples: does it run?")] = False,
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these cases; * is any text.")] = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Time torch.compile as well.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the JSON goes.")] = None,
    json_output: JsonOutput = False,
) -> None:
    """Time every backend of every operation beside its peers; a wrong result is not timed.

    A full run writes benchmarks/results/ops_<machine>.json; --quick and --case write only where --out says.
    """
    from robocache.benchmarks import machine, results, run
    from robocache.benchmarks.workloads import workloads

    where = best_device() if device is None else checked_device(device)
    # In a quick run, compiling would take most of the time.
    settings = run.Settings(where, quick=quick, with_compile=compiled and not quick, with_scaling=not case)
    chosen = workloads(where, quick=quick, wanted=case or ())
    printer = Printer(json_output=json_output)
    with printer.progress("measuring", len(chosen)) as advance:
        document = run.measure(settings, chosen, advance)
    path = out or (None if quick or case else results.FOLDER / machine.file_name(where))
    if path is not None:
        results.save(document, path)
    printer.document(document)
    if not json_output:
        _print(printer, document, settings)
        if path is not None:
            printer.say(f"written: {path}")
    wrong = run.faults(document)
    for line in wrong:
        printer.say(f"WRONG, not timed: {line}")
    if wrong:
        raise typer.Exit(EXIT_WRONG)


@app.command("loader")
def loader(
    path: Annotated[Path, typer.Argument(help="A LeRobot dataset folder, v3.0, with an action.")],
    peer_python: Annotated[
        Path | None, typer.Option(metavar="PYTHON", help="A Python that has LeRobot 0.4.4, to be timed beside.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each side is measured, in turn.")] = 3,
    quick: Annotated[bool, typer.Option("--quick", help="Three batches, once: does it run?")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the JSON goes.")] = None,
    json_output: JsonOutput = False,
) -> None:
    """Time the drop-in LeRobotDataset beside LeRobot's: first epoch, warm cache, columns only, and peak memory."""
    from robocache.benchmarks import results
    from robocache.benchmarks.loader import LoaderSettings, measure_loader

    settings = LoaderSettings(repetitions=repetitions)
    if quick:
        settings = LoaderSettings(repetitions=1, warm_epochs=1, batches=3)
    printer = Printer(json_output=json_output)
    count = settings.repetitions * (5 if peer_python is None else 7)
    with printer.progress("measuring", count) as advance:
        document = measure_loader(path, peer_python, settings, advance)
    if out is not None:
        results.save(document, out)
    printer.document(document)
    if not json_output:
        _print_loader(printer, document)
        if out is not None:
            printer.say(f"written: {out}")


def _print_loader(printer: Printer, document: dict[str, Any]) -> None:
    rows = []
    for case in document["cases"]:
        ratio, share = case.get("ratio"), case.get("copy_share")
        memory = f"{case['robocache_peak_bytes'] / 1e6:.0f} MB"
        if "lerobot_peak_bytes" in case:
            memory += f" / {case['lerobot_peak_bytes'] / 1e6:.0f} MB"
        goal = case.get("goal")
        rows.append(
            (
                case["name"],
                "not timed" if ratio is None else f"{ratio:.1f}x",
                "" if goal is None else f"{goal:.0f}x",
                "" if share is None else f"{share:.0%}",
                memory,
            )
        )
    printer.table(("case", "LeRobot takes", "goal", "of copy", "peak memory"), rows)
    printer.say("load average " + ", ".join(f"{load:.2f}" for load in document["load_average"]))
    if document["settings"]["batches"] is not None:
        printer.say("a quick run: a few batches show that it works, not how fast it is")
    if document["peer"] is None:
        printer.say("not timed: LeRobot; name a Python that has it with --peer-python")


def _print(printer: Printer, document: dict[str, Any], settings: Settings) -> None:
    from robocache.benchmarks import tables

    printer.say(tables.describe(document))
    if settings.quick:
        printer.say("a quick run: tiny shapes and few samples show that it works, not how fast it is")
    printer.say()
    if document["device"] == "cuda":
        printer.table(*tables.time_table(document))
        printer.say("microseconds; in brackets how many times as long as the kernels")
        if document["scaling"]:
            printer.say()
            printer.table(*tables.scaling_table(document))
    else:
        printer.table(*tables.ratio_table(document), left=2)
        printer.say("how many times as long as the backend each takes; the times are in the JSON")
    printer.say()
    for reason, cases in _reasons(document).items():
        printer.say(f"not timed: {reason} ({_listed(cases)})")


def _reasons(document: dict[str, Any]) -> dict[str, list[str]]:
    """Why what was not timed, and in which cases."""
    found: dict[str, list[str]] = {}
    for case in document["cases"]:
        for one in case["results"]:
            if one["status"] != "measured":
                found.setdefault(f"{one['name']}, {one['status']}: {one['reason']}", []).append(case["name"])
    return found


def _listed(cases: list[str]) -> str:
    return cases[0] if len(cases) == 1 else f"{len(cases)} cases"
