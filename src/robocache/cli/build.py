"""`robocache build`: the episodes of a recording, aligned, into a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robocache.cli.align import described, parsed_names, parsed_rate
from robocache.cli.console import Printer, byte_size
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

if TYPE_CHECKING:
    from robocache.cache.aligned_dataset import AlignedDataset
    from robocache.cache.build import BuildProgress, Built


def command(
    path: RecordingPath,
    rate: FrameRate = None,
    spec: SpecFile = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the cache; $ROBOCACHE_CACHE, or one in the user's cache folder, if not given."),
    ] = None,
    cache_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What the cache may hold, such as 20GB or 512MiB.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that build; one for each processor if not given.")
    ] = None,
    streams: StreamNames = None,
    span: ClockSpan = None,
    source_rate: SourceRate = None,
    json_output: JsonOutput = False,
) -> None:
    """Align every episode into a cache, from which training reads; go on where an earlier build ended."""
    from robocache.align import Align, From
    from robocache.cache.folder import unmade_if_empty
    from robocache.cache.opening import default_cache, open_dataset
    from robocache.cache.sizes import size_bytes

    printer = Printer(json_output=json_output)
    names = parsed_names(streams)
    alignment = described(spec, rate=rate, streams=streams, span=span)
    if alignment is None:
        chosen = None if names is None else {name: From(name) for name in names}
        alignment = Align(parsed_rate(rate or ""), chosen, (span or Span.overlap).value)
    folder = default_cache() if cache is None else cache
    limit_bytes = None if cache_limit is None else size_bytes(cache_limit, "--cache-limit")
    with unmade_if_empty(folder):
        dataset = open_dataset(
            path, alignment, cache=folder, cache_limit=limit_bytes, rate_hz=source_rate, workers=workers
        )
        built = _built(dataset, folder, printer)
    printer.document({"command": "build", "path": str(path), "cache": str(folder), **vars(built)})
    if json_output:
        return
    printer.say(
        f"{folder}: {built.episodes} episodes, {built.frames} frames, {byte_size(built.size_bytes)}; "
        f"{built.built} built, {built.episodes - built.built} were there"
    )
    if built.left < built.episodes:
        gone = built.episodes - built.left
        printer.say(f"{gone} of them had to go again: the cache's limit is less than all; they are built when needed")


def _built(dataset: AlignedDataset, folder: Path, printer: Printer) -> Built:
    total, done = len(dataset.episode_names), 0
    with printer.progress("building", total) as advance:

        def show(progress: BuildProgress) -> None:
            nonlocal done
            done = progress.episodes_done
            how = "built" if progress.was_built else "was there"
            advance(f"{progress.episode} {how}, {byte_size(progress.bytes_done)}")

        try:
            return dataset.build(progress=show)
        except KeyboardInterrupt:
            if done:
                printer.hint(f"{done} of {total} episodes are in {folder}; the same command goes on from there")
            raise
