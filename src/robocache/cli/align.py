"""`robocache align`: a recording becomes a training dataset on one clock."""

from __future__ import annotations

import glob
import os
import re
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robocache.cli.console import Printer, json_text, milliseconds
from robocache.cli.options import (
    ClockSpan,
    FrameRate,
    JsonOutput,
    RecordingPath,
    SourceRate,
    Span,
    SpecFile,
    StreamNames,
)
from robocache.errors import ArgumentError, OutputError

if TYPE_CHECKING:
    from robocache.align import Align, Rate
    from robocache.cli.conversion import Conversion
    from robocache.cli.conversion_settings import Settings
    from robocache.readers import Recording
    from robocache.records import Episode

_RATE = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3}|/[0-9]{1,30})?")


class Backend(str, Enum):  # noqa: UP042  typer shows the values of this kind of enum
    """Backends of the command line."""

    cuda = "cuda"
    native = "native"
    pytorch = "pytorch"


def command(
    path: RecordingPath,
    out: Annotated[Path, typer.Option(help="The folder to write.", show_default=False)],
    rate: FrameRate = None,
    spec: SpecFile = None,
    streams: StreamNames = None,
    span: ClockSpan = None,
    voxel_size: Annotated[float, typer.Option(help="Edge of a voxel in metres, for point clouds.")] = 0.1,
    task: Annotated[
        str | None, typer.Option(help="What the robot does, in words; what the recording says if not given.")
    ] = None,
    source_rate: SourceRate = None,
    backend: Annotated[Backend | None, typer.Option(help="Where to compute; the best there is if not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what RoboCache wrote there before.")] = False,
    json_output: JsonOutput = False,
) -> None:
    """Align one recording or many to one rate; write a LeRobot v3.0 dataset, voxels of its clouds, and a report."""
    from robocache.align.staging import check_output
    from robocache.cli.conversion_settings import Settings
    from robocache.readers import open_recordings

    printer = Printer(json_output=json_output)
    names = parsed_names(streams)
    description = described(spec, rate=rate, streams=streams, span=span)
    clock = _dataset_rate(description, rate)
    where, served_by = span.value if span else "overlap", backend.value if backend else None
    settings = Settings(clock, where, names, served_by, voxel_size, task, description)
    check_output(out, overwrite=overwrite)
    _check_apart(path, out)
    with open_recordings(path, rate_hz=source_rate) as recording:
        conversion, document = _written(recording, settings, printer, out, overwrite=overwrite)
    printer.document(document | {"out": str(out)})
    if not json_output:
        print_conversion(printer, conversion, document)
        printer.say(f"wrote {out}: LeRobot v3.0, {conversion.frames} frames; look at {out / 'report.html'}")


def _check_apart(path: Path, out: Path) -> None:
    written = Path(os.path.realpath(out))  # resolve() fails on a loop of links
    if Path(os.path.realpath(path)).is_relative_to(written):
        raise OutputError(f"{out}: holds the recording that is to be read; name another folder")
    if out.exists():
        read = [path] if os.path.lexists(path) else glob.glob(str(path), recursive=True)  # noqa: PTH207 -- absolute ones
        if any(written.is_relative_to(os.path.realpath(entry)) for entry in read):
            raise OutputError(f"{out}: would be read as one of the recordings in {path}; name a folder elsewhere")


def _written(
    recording: Recording, settings: Settings, printer: Printer, out: Path, *, overwrite: bool
) -> tuple[Conversion, dict[str, Any]]:
    from robocache.align.staging import SUMMARY, staged_folder
    from robocache.cli.conversion import convert  # with PyTorch, for which a mistake need not wait
    from robocache.cli.report import report

    with staged_folder(out, overwrite=overwrite) as folder:
        with printer.progress("aligning", len(recording.episode_names)) as advance:
            conversion = convert(recording, settings, folder, advance)
        document = conversion.document("align")
        (folder / "report.html").write_text(report(conversion), encoding="utf-8")
        (folder / SUMMARY).write_text(json_text(document), encoding="utf-8")
    return conversion, document


def described(spec: Path | None, *, rate: str | None, streams: str | None, span: Span | None) -> Align | None:
    """The description in the file of --spec; None without one, and then there is a --rate."""
    from robocache.align import Align, Rate

    if spec is None:
        if rate is None:
            raise ArgumentError("needs --rate HZ, or --spec FILE that says the clock")
        return None
    for option, value in (("--streams", streams), ("--span", span)):
        if value is not None:
            raise ArgumentError(f"{option} says what {spec} says too: give one of them, or edit the file")
    description = Align.from_yaml(spec)
    if rate is not None and isinstance(description.clock, Rate):
        raise ArgumentError(f"--rate says what {spec} says too: give one of them, or edit the file")
    return description


def _dataset_rate(description: Align | None, rate: str | None) -> Rate:
    from robocache.align import Rate

    if description is not None and isinstance(description.clock, Rate):
        return description.clock
    if rate is None:
        assert description is not None  # `described` asks for one of the two
        message = f"the clock follows a stream ({description.clock}), but a LeRobot dataset has one rate"
        raise ArgumentError(f"{message}: say which with --rate HZ")
    return parsed_rate(rate)


def parsed_names(streams: str | None) -> tuple[str, ...] | None:
    """The names in the option --streams."""
    if streams is None:
        return None
    names = tuple(name.strip() for name in streams.split(",") if name.strip())
    if not names:
        raise ArgumentError(f"--streams names no stream, got {streams!r}; leave it out to take all of them")
    return names


def parsed_rate(text: str) -> Rate:
    """The clock that the option --rate says."""
    from robocache.align import Rate

    message = f"--rate must be a number of frames a second, such as 50 or 30000/1001, got {text[:100]!r}"
    # What Fraction would take hours for, such as 1e999999999, never reaches it.
    if _RATE.fullmatch(text.strip()) is None:
        raise ArgumentError(message)
    try:
        hz = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as error:  # such as 1.5/2, and 1/0
        raise ArgumentError(message) from error
    return Rate(hz)


def _what_limits(episode: Episode) -> str:
    """Which streams of an episode leave little to the others, such as a mode that was published once."""
    starts = {name: int(stream.times_ns[0]) for name, stream in episode.streams.items()}
    ends = {name: int(stream.times_ns[-1]) for name, stream in episode.streams.items()}
    latest, earliest = max(starts, key=lambda name: starts[name]), min(ends, key=lambda name: ends[name])
    first_s, last_s = (stamp / 1e9 for stamp in (starts[latest] - episode.start_ns, ends[earliest] - episode.start_ns))
    limits = f"{latest} starts at {first_s:.1f} s, {earliest} ends at {last_s:.1f} s"
    return f"  in {episode.name} {limits}: leave such a stream out with --streams, or align with --span union"


def print_conversion(printer: Printer, conversion: Conversion, document: dict[str, Any]) -> None:
    """For people: how each stream came through, and how long it took."""
    episodes = document["episodes"]
    count = f"{len(episodes)} episode{'s' * (len(episodes) != 1)}"
    printer.say(
        f"{conversion.source}: {conversion.format}, {count}, aligned to {float(conversion.settings.rate.hz):g} Hz"
    )
    rows = []
    for name in dict.fromkeys(name for episode in episodes for name in episode["streams"]):
        parts = [(episode["frames"], episode["streams"][name]) for episode in episodes if name in episode["streams"]]
        valid = sum(frames * part["valid_fraction"] for frames, part in parts) / conversion.frames
        first = parts[0][1]
        gap = milliseconds(first["max_gap"]) if first["max_gap"] is not None else "any"
        rows.append(
            (
                name,
                first["feature"],
                first["policy"],
                gap,
                f"{valid:.1%}",
                milliseconds(max(part["max_age_ns"] for _, part in parts)),
                str(sum(part["samples"] for _, part in parts)),
            )
        )
    printer.table(("stream", "feature", "between samples", "max gap", "valid", "oldest", "samples"), rows, left=3)
    if conversion.first is not None:
        printer.skipped(conversion.first.episode.attributes)
    for name, voxels in ((name, part["voxels"]) for name, part in episodes[0]["streams"].items() if "voxels" in part):
        size = " x ".join(str(cells) for cells in voxels["grid_size"])
        printer.say(
            f"{name}: {voxels['points']} points of {voxels['scans']} scans in {size} voxels of"
            f" {voxels['voxel_size']:g} m, {voxels['occupied']} occupied"
        )
    covered, recorded = (
        sum(ends) / 1e9
        for ends in zip(*((ep["end_ns"] - ep["start_ns"], ep["recorded_ns"]) for ep in episodes), strict=True)
    )
    where = "every stream has data" if conversion.settings.spec.span == "overlap" else "any stream has data"
    printer.say(f"{conversion.frames} frames cover {covered:.1f} s of {recorded:.1f} s recorded: where {where}")
    if covered < recorded / 2 and conversion.first is not None:
        printer.say(_what_limits(conversion.first.episode))
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in document["seconds"].items())
    printer.say(f"{steps}, on the {document['device']}")
    if conversion.samples_per_second is not None:
        printer.say(f"{conversion.samples_per_second:,.0f} samples/s aligned, once everything is loaded")
