"""A long run from the command line: its log, signals, deadline, live view, verdict, report and exit code."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

import robocache
from robocache.benchmarks.whole_file import write_whole
from robocache.cli.console import Printer
from robocache.cli.devices import checked_device
from robocache.cli.long_options import LongOptions
from robocache.cli.monitoring import Monitoring
from robocache.errors import ArgumentError, OutputError

if TYPE_CHECKING:
    from robocache.stress.long_run import LongHooks
    from robocache.stress.report import Report
    from robocache.stress.run_log import RunLog
    from robocache.stress.settings import Settings
    from robocache.stress.tasks import Task

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INVALID": 4}
WORDS = {
    "PASS": "passed: every result was right, and nothing that was watched leaks beyond its budget",
    "FAIL": "FAILED",
    "INCONCLUSIVE": "inconclusive: nothing is wrong so far, and some counters need a longer run",
    "INVALID": "INVALID: something could not be measured, so that nothing is shown",
}
MakeTask = Callable[["Settings", Callable[[], object]], "Task"]


@dataclass(frozen=True)
class Wanted:
    """What a command runs.

    Args:
        scenario: Its name, for log and report.
        make_task: Takes settings and a sign of life.
        source: The recordings, for a run that has some.
    """

    scenario: str
    make_task: MakeTask
    source: str = ""


def endure(options: LongOptions, wanted: Wanted) -> None:
    """Run, print, write and exit.

    Raises:
        typer.Exit: With 1, 3 or 4, unless it passed.
    """
    from robocache.stress.long_run import long_run
    from robocache.stress.long_settings import run_header

    printer = Printer(json_output=options.json_output)
    deadline_s = options.deadline_s  # checked before a log is there
    _check_writable(options)
    settings = _settings(options)
    thresholds = options.thresholds()
    header = run_header(wanted.scenario, settings, thresholds, environment(), source=wanted.source)
    monitoring = Monitoring(options, header, thresholds)
    with _log(options, header) as log, _signs(options, printer, log, wanted.scenario) as (hooks, watch):
        task = monitoring.watched(wanted.make_task(settings, watch.beat))
        watch.limit(deadline_s or task.deadline_s)
        for line in (_first_line(wanted.scenario, log), *monitoring.first_lines()):
            hooks.lines(line)
        try:
            report = long_run(
                task,
                log,
                thresholds=thresholds,
                monitors=monitoring.monitors,
                hooks=monitoring.told(hooks),
                reading_share=options.reading_share,
            )
        finally:
            task.close()
        records = log.records()
    _print(printer, options, report, records[0])  # first: a full disk takes no verdict away
    _write(options, report, records)
    if code := EXIT_CODES[report.outcome]:
        raise typer.Exit(code)


def environment() -> dict[str, Any]:
    """What a verdict is of: the code, the machine, the versions. No names of hosts or folders."""
    import torch

    from robocache.benchmarks import machine

    found = machine.describe()
    return {
        **machine.commit(),
        "code": code_hash(),
        "machine": hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest(),
        "torch": torch.__version__,
        "robocache": robocache.__version__,
        "python": platform.python_version(),
        **{name: found[name] for name in ("gpu", "cpu", "cores", "memory_bytes", "system")},
    }


def code_hash() -> str:
    """Of every source and library of this package: one verdict is of one code, committed or not."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(robocache.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".so"):
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _settings(options: LongOptions) -> Settings:
    from robocache.stress.run_log import read_run
    from robocache.stress.settings import settings_from_environment

    from_environment = settings_from_environment()
    seconds = options.duration_s
    if seconds is None and options.resume and options.log is not None and (run := read_run(options.log)):
        seconds = float(run["seconds"])
    return replace(
        from_environment,
        seconds=from_environment.seconds if seconds is None else seconds,
        batch_size=options.batch_size or from_environment.batch_size,
        device=from_environment.device if options.device is None else checked_device(options.device),
        seed=options.seed,
    )


@contextlib.contextmanager
def _log(options: LongOptions, header: dict[str, Any]) -> Iterator[RunLog]:
    from robocache.stress.run_log import RunLog

    if options.log is not None:
        with RunLog(options.log, header, resume=options.resume) as log:
            yield log
        return
    if options.resume:
        raise ArgumentError("--resume goes on with a log; name it with --log FILE")
    with (
        tempfile.TemporaryDirectory(prefix="robocache-run-") as folder,
        RunLog(Path(folder, "run.jsonl"), header, resume=False) as log,
    ):
        yield log


def _first_line(scenario: str, log: RunLog) -> str:
    from robocache.stress.long_report import standing

    done, total_s = standing(log.records()), float(log.header["seconds"])
    length = f"{scenario} of {total_s:.0f} s ({total_s / 3600:.2f} h) on {log.header['device']}"
    if not done.processes:
        return f"{length}; --seconds, --minutes or --hours set its length"
    if done.is_over:
        return f"{length}: its log is complete, and nothing is run"
    return f"{length}: process {done.processes + 1} goes on after {done.iteration} iterations and {done.seconds:.0f} s"


class _Watch:
    """The deadline, which begins once there is work.

    The stacks of a hang go to stderr; with a log, into a file beside it, so that a resumed run knows of the hang.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._beat: Callable[[], object] = int

    def beat(self) -> None:
        """Work goes on."""
        self._beat()

    def limit(self, seconds: float) -> None:
        """Begin.

        Args:
            seconds: Without a beat for so long it is a hang.
        """
        from robocache.testing import HangWatch

        watch = HangWatch(limit_s=seconds, file=self._file)
        self._beat = watch.beat
        watch.beat()


@contextlib.contextmanager
def _signs(options: LongOptions, printer: Printer, log: RunLog, scenario: str) -> Iterator[tuple[LongHooks, _Watch]]:
    """Signals in, lines and the live view out, and the watch over hangs; all ended on every way out."""
    from robocache.cli.live import LiveView
    from robocache.stress.long_run import LongHooks

    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in handled:  # who asks twice does not want to wait for the end of a round
            signal.signal(each, before[each])

    with contextlib.ExitStack() as stack:
        watch = _Watch(stack.enter_context(_stacks(options, log)))
        stack.callback(faulthandler.cancel_dump_traceback_later)
        handled = (signal.SIGTERM, signal.SIGINT)
        before = {each: signal.signal(each, receive) for each in handled}
        for each in handled:
            stack.callback(signal.signal, each, before[each])
        line: Callable[[str], None] = printer.say
        on_progress = None
        if sys.stdout.isatty() and not options.json_output:
            view = stack.enter_context(LiveView(f"robocache {scenario}"))
            line, on_progress = view.line, view.update
        yield LongHooks(line, on_progress, watch.beat, lambda: bool(received)), watch


@contextlib.contextmanager
def _stacks(options: LongOptions, log: RunLog) -> Iterator[int]:
    if options.log is None:
        yield sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
        return
    path = options.log.with_name(options.log.name + ".hang")
    if _holds_something(path) and not any(record["kind"] == "failure" for record in log.records()):
        log.append({"kind": "failure", "text": f"an earlier process hung; {path.name} beside the log has its stacks"})
    with path.open("ab") as file:
        try:
            yield file.fileno()
        finally:
            if not _holds_something(path):
                path.unlink(missing_ok=True)


def _holds_something(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _check_writable(options: LongOptions) -> None:
    """Before a day has passed."""
    named: dict[Path, str] = {}
    for option in ("log", "report", "junit", "profile"):
        path: Path | None = getattr(options, option)
        if path is None:
            continue
        if not (path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()):
            raise OutputError(f"{path}: cannot be written; name a file in a folder that is there")
        if (before := named.setdefault(path.resolve(), option)) != option:
            raise ArgumentError(
                f"{path}: --{before} and --{option} name the same file, and one would replace the other"
            )


def _write(options: LongOptions, report: Report, records: list[dict[str, Any]]) -> None:
    from robocache.cli.junit import junit_xml
    from robocache.cli.stress_page import stress_page

    again = "" if options.log is None else f", and make it from the log with --resume --log {options.log}"
    remedy = f"name another file{again}"
    if options.report is not None:
        write_whole(options.report, stress_page(report, records), remedy=remedy)
    if options.junit is not None:
        write_whole(options.junit, junit_xml(report), remedy=remedy)


def _print(printer: Printer, options: LongOptions, report: Report, run: dict[str, Any]) -> None:
    kept = {name: run.get(name) for name in ("commit", "code", "machine", "torch", "gpu", "cpu", "source", "time")}
    exit_code = EXIT_CODES[report.outcome]
    printer.document(
        report.as_dict(with_series=False)
        | {"command": report.scenario, "exit_code": exit_code, "run": kept, "log": options.log and str(options.log)}
    )
    if options.json_output:
        return
    so_far = "" if report.measured["is_complete"] == "True" else " so far"
    printer.say()
    for problem in (*report.problems, *report.undecided):
        printer.say(f"  {problem}")
    for verdict in report.verdicts:
        if verdict.outcome == "PASS":
            printer.say(f"  {verdict}" + (f"; minimum detectable: {verdict.detectable}" if verdict.detectable else ""))
    for name, value in report.measured.items():
        if name.startswith(("note_", "profile_")):
            printer.say(f"  {value}")
    done = f"{report.iterations} iterations in {report.seconds:.0f} s, {report.measured['processes']} processes"
    printer.say(f"{report.scenario}{so_far} {WORDS[report.outcome]} ({done})")
