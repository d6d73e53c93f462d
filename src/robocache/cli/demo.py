"""`robocache demo`: the whole way, on a robot whose true motion is known."""

from __future__ import annotations

import importlib.util
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robocache.cli.align import print_conversion
from robocache.cli.console import Printer, json_text
from robocache.cli.options import JsonOutput
from robocache.errors import OutputError

if TYPE_CHECKING:
    from robocache.align import Align
    from robocache.cli.truth import PictureTimes, StreamError
    from robocache.readers import SyntheticRobot
    from robocache.records import Episode

RATE_HZ = 50
EPISODES = 3
LOAD_S = 1.0
CAMERA = (72, 96)  # small: the demo shall end soon
DEFAULT_OUT = Path("robocache-demo")


def command(
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier demo there is replaced.")] = DEFAULT_OUT,
    seconds: Annotated[float, typer.Option(help="Length of the recording, 1 to 600.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Another robot, the same for the same number.", min=0)] = 0,
    json_output: JsonOutput = False,
) -> None:
    """Record a simulated robot, align and voxelize it, build a cache, load batches; write a report."""
    from robocache.align import Rate
    from robocache.align.staging import SUMMARY, staged_folder
    from robocache.cli.conversion import convert
    from robocache.cli.conversion_settings import Settings
    from robocache.cli.inspect import print_streams
    from robocache.cli.loading import build_and_load, loading_lines, loading_sections
    from robocache.cli.report import report
    from robocache.cli.truth import errors_against_truth, picture_times, truth_section
    from robocache.readers import stream_statistics

    printer = Printer(json_output=json_output)
    robots = _robots(seed, seconds)
    with robots() as robot, staged_folder(out, overwrite=_may_replace(out)) as folder:
        printer.say(f"1. record: a simulated arm, IMU, cameras and lidar for {seconds:g} s (seed {seed})")
        if robot.camera is None:
            printer.say("   without pictures: their video needs PyAV, pip install 'robocache[video]'")
        episode = robot.read_episode(0)
        printer.say("2. inspect: rates, jitter, gaps and clock offsets of what was recorded")
        print_streams(printer, episode, [stream_statistics(stream) for stream in episode.streams.values()])
        printer.say(f"3. align to {RATE_HZ} Hz, fuse, voxelize, write a LeRobot dataset")
        with printer.progress("aligning", 1) as advance:
            conversion = convert(robot, Settings(Rate(RATE_HZ)), folder, advance)
        conversion.measure_again()
        errors = errors_against_truth(robot, conversion)
        aligned = conversion.document("demo")
        if not json_output:
            print_conversion(printer, conversion, aligned)
        printer.say(f"4. build: {EPISODES} episodes into a cache; load: shuffled batches out of it, for a second")
        several = partial(robots, episodes=EPISODES)
        loading = build_and_load(several, _spec(episode), folder / "cache", seconds=LOAD_S, seed=seed)
        pictures = picture_times(loading.batch)
        printer.say("\n".join(loading_lines(loading)))
        document = aligned | {
            "errors": {error.stream: error.document() for error in errors},
            "pictures": {each.stream: each.document() for each in pictures},
            "loading": loading.document(),
        }
        html = report(
            conversion,
            title="RoboCache demo",
            intro="The robot is simulated, so the true value at any time is known.",
            extra_sections=[truth_section(errors, pictures), *loading_sections(loading)],
        )
        (folder / "report.html").write_text(html, encoding="utf-8")
        (folder / SUMMARY).write_text(json_text(document), encoding="utf-8")
    printer.document(document | {"out": str(out)})
    if not json_output:
        _print_errors(printer, errors, pictures)
        printer.say(f"\nwrote {out}: LeRobot v3.0, {conversion.frames} frames; look at {out / 'report.html'}")


def _robots(seed: int, seconds: float) -> partial[SyntheticRobot]:
    """Makes the robot; with a camera where its video can be written."""
    from robocache.readers import SyntheticRobot

    if not (math.isfinite(seconds) and 1 <= seconds <= 600):
        raise typer.BadParameter(f"{seconds} is not from 1 to 600", param_hint="'--seconds'")
    camera = CAMERA if importlib.util.find_spec("av") else None
    return partial(SyntheticRobot, seed, duration_s=seconds, camera=camera)


def _may_replace(out: Path) -> bool:
    """Is there an earlier demo? What is anything else raises."""
    from robocache.align.staging import check_output, written_by

    overwrite = written_by(out) == "demo"
    if not overwrite and written_by(out) is not None:
        raise OutputError(f"{out}: holds the result of another command; name a new folder with --out")
    check_output(out, overwrite=overwrite)
    return overwrite


def _spec(episode: Episode) -> Align:
    """Everything but the clouds, which have as many points as came back and no fixed size; pictures as recorded."""
    from robocache.align import Align, From, Rate, Resize

    streams = {
        name: From(name, then=Resize(*CAMERA) if stream.kind == "image" else None)
        for name, stream in episode.streams.items()
        if stream.kind != "points"
    }
    return Align(Rate(RATE_HZ), streams)


def _print_errors(printer: Printer, errors: list[StreamError], pictures: list[PictureTimes]) -> None:
    from robocache.cli.truth import error_rows

    printer.say("5. compare with the truth, on valid frames, and with the shortcut: the sample that arrived nearest")
    header = ("stream", "unit", "RMS", "95 %", "shortcut RMS", "shortcut 95 %", "better by")
    printer.table(header, error_rows(errors), left=2)
    for each in pictures:
        printer.say(f"   {each.text}")
