"""`robocache cache`: what a cache of shards holds, whether it is whole, and how to shrink it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robocache.cli.console import Printer, byte_size
from robocache.cli.options import JsonOutput

if TYPE_CHECKING:
    from robocache.cache import ShardInfo

EXIT_DAMAGED = 1
SHOWN_DIGITS = 12
app = typer.Typer(help="Look after a folder of cached shards.", no_args_is_help=True)
Folder = Annotated[
    Path | None,
    typer.Argument(
        help="The folder of the cache; $ROBOCACHE_CACHE, or the one in the user's cache folder, if not given.",
        show_default=False,
    ),
]


@app.callback()
def _group() -> None:
    """Look after a folder of cached shards."""


@app.command("ls")
def ls(cache: Folder = None, json_output: JsonOutput = False) -> None:
    """Print the shards and what they are made from, the one used longest ago first."""
    from robocache.cache import ShardStore
    from robocache.cache.manifest import shard_names

    printer, folder = Printer(json_output=json_output), _folder(cache)
    infos = ShardStore(folder, create=False).ls()
    size_bytes = sum(info.size_bytes for info in infos)
    named = shard_names(folder)
    origins = [named.get(info.digest, (None, None)) for info in infos]
    shards = [
        _document(info) | {"source": source, "episode": episode}
        for info, (source, episode) in zip(infos, origins, strict=True)
    ]
    printer.document({"command": "cache ls", "path": str(folder), "shards": shards, "size_bytes": size_bytes})
    if json_output:
        return
    if infos:
        rows = [
            (
                info.digest[:SHOWN_DIGITS],
                source or "-",
                episode or "-",
                byte_size(info.size_bytes),
                _ago(info.last_used_ns),
            )
            for info, (source, episode) in zip(infos, origins, strict=True)
        ]
        printer.table(("shard", "source", "episode", "size", "last used"), rows, left=3)
    printer.say(f"{folder}: {_counted(len(infos))}, {byte_size(size_bytes)}")


@app.command("verify")
def verify(
    cache: Folder = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged, unless it is open.")] = False,
    json_output: JsonOutput = False,
) -> None:
    """Compare every checksum of every shard; exit code 1 if one is damaged."""
    from robocache.cache import ShardStore

    printer, folder = Printer(json_output=json_output), _folder(cache)
    store = ShardStore(folder, create=False)
    found, size_bytes = [], 0
    with printer.progress("checking", len(store.ls())) as advance:
        for checked in store.verify(remove=remove):
            found.append(checked)
            size_bytes += checked.info.size_bytes
            advance(checked.info.digest[:SHOWN_DIGITS])
    damaged = [checked for checked in found if checked.problem is not None]
    printer.document(
        {
            "command": "cache verify",
            "path": str(folder),
            "checked": len(found),
            "size_bytes": size_bytes,
            "damaged": [
                _document(one.info) | {"problem": one.problem, "is_removed": one.is_removed} for one in damaged
            ],
        }
    )
    if not json_output:
        for one in damaged:
            printer.say(f"DAMAGED{', removed' if one.is_removed else ''}: {one.problem}")
        printer.say(f"{folder}: {_counted(len(found))}, {byte_size(size_bytes)}: {len(damaged)} damaged")
    if damaged:
        raise typer.Exit(EXIT_DAMAGED)


@app.command("gc")
def gc(
    cache: Folder = None,
    limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What may stay, such as 20GB or 512MiB; 0 for nothing.")
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Remove what killed writers left, and with --limit the shards used longest ago that nobody has open."""
    from robocache.cache import ShardStore
    from robocache.cache.sizes import size_bytes

    limit_bytes = None if limit is None else size_bytes(limit, "--limit", at_least=0)
    printer, folder = Printer(json_output=json_output), _folder(cache)
    collected = ShardStore(folder, create=False).gc(limit_bytes)
    freed_bytes = sum(info.size_bytes for info in collected.evicted)
    printer.document(
        {
            "command": "cache gc",
            "path": str(folder),
            "evicted": [_document(info) for info in collected.evicted],
            "evicted_bytes": freed_bytes,
            "leftover_bytes": collected.leftover_bytes,
            "left_bytes": collected.left_bytes,
            "limit_bytes": limit_bytes,
        }
    )
    if json_output:
        return
    printer.say(f"{folder}: evicted {_counted(len(collected.evicted))}, {byte_size(freed_bytes)}")
    printer.say(f"removed {byte_size(collected.leftover_bytes)} that killed writers had left")
    printer.say(f"{byte_size(collected.left_bytes)} stay")
    if limit_bytes is not None and collected.left_bytes > limit_bytes:
        printer.say(f"more than {byte_size(limit_bytes)}: the others are open")


def _folder(named: Path | None) -> Path:
    from robocache.cache.opening import default_cache

    return default_cache() if named is None else named


def _document(info: ShardInfo) -> dict[str, object]:
    return {"digest": info.digest, "size_bytes": info.size_bytes, "last_used_ns": info.last_used_ns}


def _counted(count: int) -> str:
    return f"{count} shard{'s' * (count != 1)}"


def _ago(last_used_ns: int) -> str:
    seconds = max(0, time.time_ns() - last_used_ns) // 10**9
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
