"""`robocache inspect`: what is in a recording."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robocache.cli.clocks import clock_offsets, offsets_text
from robocache.cli.console import Printer, milliseconds, number, skipped_streams
from robocache.cli.options import JsonOutput, RecordingPath, SourceRate
from robocache.errors import ArgumentError, OutputError

if TYPE_CHECKING:
    from robocache.cli.suggestion import Suggestion
    from robocache.readers import StreamStatistics
    from robocache.records import Episode

MAX_TABLES = 3
STDOUT = Path("-")
GAPS_SHOWN = 5


def command(
    path: RecordingPath,
    source_rate: SourceRate = None,
    suggest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a description for align --spec there; - prints it, and nothing else."),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Print streams, rates, jitter, gaps, clock offsets and missing values of a recording."""
    from robocache.readers import open_recordings, stream_statistics

    if suggest is not None:
        _check_new(suggest, json_output=json_output)
    printer = Printer(json_output=json_output)
    shown: list[tuple[Episode, list[StreamStatistics]]] = []
    documents: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    with open_recordings(path, rate_hz=source_rate) as recording:
        form, names = recording.format, recording.episode_names
        suggestion = None if suggest is None else _suggestion(path, form)
        with printer.progress("reading", len(names)) as advance:
            for index, name in enumerate(names):
                episode = recording.read_episode(index)
                statistics = [stream_statistics(stream) for stream in episode.streams.values()]
                if json_output:
                    documents.append(episode_document(episode, statistics))
                rows.append(_summary(episode, statistics))
                if suggestion is not None:
                    suggestion.see(episode, statistics)
                # Of the others only numbers stay, so that a dataset may be larger than the memory.
                if index == 0 or len(names) <= MAX_TABLES:
                    shown.append((episode, statistics))
                advance(name)
    if suggest is not None and suggestion is not None:
        _write(suggest, suggestion.text(), printer)
        if suggest == STDOUT:
            return
    printer.document({"path": str(path), "format": form, "episodes": documents})
    if not json_output:
        printer.say(f"{path}: {form}, {len(names)} episode{'s' * (len(names) != 1)}")
        _print_episodes(printer, shown)
        if len(shown) < len(names):
            printer.say("\nall episodes (streams as in the first)")
            printer.table(("episode", "duration", "samples", "gaps"), rows)


def _suggestion(path: Path, form: str) -> Suggestion:
    from robocache.cli.suggestion import Suggestion

    return Suggestion(str(path), form)


def _check_new(suggest: Path, *, json_output: bool) -> None:
    """Before a recording of many gigabytes is read."""
    if suggest == STDOUT:
        if json_output:
            raise ArgumentError("--suggest - and --json both print a document; name a file for one of them")
    elif os.path.lexists(suggest):
        raise OutputError(f"{suggest}: exists; name a new file")
    elif not suggest.parent.is_dir():
        raise OutputError(f"{suggest}: cannot be written (no folder {suggest.parent}); make it, or name another file")


def _write(suggest: Path, text: str, printer: Printer) -> None:
    if suggest == STDOUT:
        printer.say(text.rstrip("\n"))
        return
    try:
        with suggest.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise OutputError(f"{suggest}: exists; name a new file") from error
    except (OSError, ValueError) as error:
        if suggest.is_file():  # begun by this command, for what was there is refused
            suggest.unlink()
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{suggest}: cannot be written ({reason}); name a file that you may write") from error


def episode_document(episode: Episode, statistics: list[StreamStatistics]) -> dict[str, Any]:
    """One episode for machines: durations in nanoseconds, missing numbers as NaN."""
    streams = {}
    for measured in statistics:
        stream = episode.streams[measured.name]
        streams[measured.name] = {
            "samples": measured.count,
            "kind": stream.kind,
            "dtype": str(stream.values.dtype),
            "columns": list(stream.columns) or stream.values.shape[1],
            "clock": measured.clock,
            "start_ns": measured.start_ns,
            "end_ns": measured.end_ns,
            "rate_hz": measured.rate_hz,
            "period_ns": measured.period_ns,
            "jitter_ns": measured.jitter_ns,
            "gaps_ns": [list(gap) for gap in measured.gaps],
            "duplicate_stamps": measured.duplicates,
            "clock_offsets_ns": {name: vars(offset) for name, offset in clock_offsets(stream).items()},
            "nan_fraction": measured.nan_fraction,
            "image_shape": None if measured.image_shape is None else list(measured.image_shape),
        }
    return {"name": episode.name, "streams": streams, "skipped": skipped_streams(episode.attributes)}


def print_streams(printer: Printer, episode: Episode, statistics: list[StreamStatistics]) -> None:
    """One episode for people: a row a stream, then its gaps."""
    header = ("stream", "holds", "clock", "samples", "rate", "jitter", "gaps", "twins", "NaN", "other clocks")
    rows = [_row(episode, measured) for measured in statistics]
    printer.table(header, rows, left=3)
    for measured in statistics:
        for start_ns, end_ns in measured.gaps[:GAPS_SHOWN]:
            after_s = (start_ns - episode.start_ns) / 1e9
            printer.say(
                f"  gap in {measured.name}: {(end_ns - start_ns) / 1e6:.1f} ms, {after_s:.2f} s after the start"
            )
        if len(measured.gaps) > GAPS_SHOWN:
            printer.say(f"  and {len(measured.gaps) - GAPS_SHOWN} more in {measured.name}")


def _row(episode: Episode, measured: StreamStatistics) -> tuple[str, ...]:
    stream = episode.streams[measured.name]
    holds = f"{stream.kind} {stream.values.dtype}[{stream.values.shape[1]}]"
    if stream.kind == "image":
        height, width, _ = measured.image_shape or ("?", "?", 3)
        holds = f"image {height}x{width}"
    return (
        measured.name,
        holds,
        measured.clock,
        str(measured.count),
        f"{number(measured.rate_hz, 4)} Hz",
        milliseconds(measured.jitter_ns),
        str(len(measured.gaps)),
        str(measured.duplicates),
        f"{measured.nan_fraction:.1%}",
        offsets_text(stream) or "-",
    )


def _print_episodes(printer: Printer, episodes: list[tuple[Episode, list[StreamStatistics]]]) -> None:
    for episode, statistics in episodes:
        printer.say(f"\n{episode.name}: {_duration_s(statistics):.1f} s, {len(statistics)} streams")
        print_streams(printer, episode, statistics)
        printer.skipped(episode.attributes)
        if any(stream.has_synthetic_times for stream in episode.streams.values()):
            printer.say("  the file has no time axis: clock 'synthetic' is row / rate")


def _summary(episode: Episode, statistics: list[StreamStatistics]) -> tuple[str, ...]:
    samples = sum(measured.count for measured in statistics)
    gaps = sum(len(measured.gaps) for measured in statistics)
    return episode.name, f"{_duration_s(statistics):.1f} s", str(samples), str(gaps)


def _duration_s(statistics: list[StreamStatistics]) -> float:
    return max((measured.duration_ns for measured in statistics), default=0) / 1e9
