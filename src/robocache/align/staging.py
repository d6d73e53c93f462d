"""A folder that appears whole or not at all: written aside, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robocache.errors import OutputError

SUMMARY = "robocache.json"  # says that a folder is ours, and that it may be replaced
_REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.ENAMETOOLONG: "name a shorter one, or leave out the cloud whose name makes it so long",
    errno.EROFS: "write to a disk that is not read-only",
}


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Refuse early to write where something stands.

    Args:
        folder: The folder to be.
        overwrite: Whether a folder that RoboCache wrote before may be replaced. Others never are.

    Raises:
        OutputError: A file stands there, or a folder that may not be replaced.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:  # Parquet's library cannot write there
        raise OutputError(f"{str(folder)!a}: is a name that is not UTF-8; name another folder") from error
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; name a new folder")
    try:
        is_empty = next(folder.iterdir(), None) is None
    except OSError as error:
        raise _output_error(folder, error) from error
    if is_empty:
        return
    if not (folder / SUMMARY).is_file():
        raise OutputError(f"{folder}: exists, and RoboCache did not write it (no {SUMMARY}); name a new folder")
    if not overwrite:
        raise OutputError(f"{folder}: exists; name a new folder, or replace it with --overwrite")


def written_by(folder: Path) -> str | None:
    """Which command wrote the folder, by its summary; None if there is none to read."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    command = summary.get("command") if isinstance(summary, dict) else None
    return command if isinstance(command, str) else None


@contextmanager
def staged_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder beside the one to be; rename it when the block ends, remove it when it fails.

    Args:
        folder: The folder to be; its parents are made, and unmade if the block fails.
        overwrite: As for `check_output`.

    Raises:
        OutputError: It cannot be written. Operating system errors of the block become this too.
    """
    check_output(folder, overwrite=overwrite)
    target = Path(os.path.realpath(folder))  # resolve() raises no OSError on a loop of links
    made = _make_parents(target)
    is_done = False
    staging: Path | None = None
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
        staging.chmod(0o777 & ~_umask())
        yield staging
        _move_into_place(staging, target)
        is_done = True
    except OSError as error:
        raise _output_error(folder, error) from error
    finally:
        if not is_done:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(made)


def _move_into_place(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    # rename() replaces an empty folder only; a full one steps aside first, and back if its place cannot be taken.
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    target.rename(aside)
    try:
        staging.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _make_parents(target: Path) -> list[Path]:
    missing = [parent for parent in target.parents if not parent.exists()]
    made: list[Path] = []
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            made.append(parent)
    except OSError as error:
        _remove_empty(made)
        raise _output_error(target, error) from error
    return made


def _remove_empty(made: list[Path]) -> None:
    for parent in reversed(made):
        try:
            parent.rmdir()
        except OSError:  # somebody else has put something there meanwhile: it stays
            return


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _output_error(folder: Path, error: OSError) -> OutputError:
    remedy = _REMEDIES.get(error.errno or 0, "name a folder that you may write to")
    return OutputError(f"{folder}: cannot be written ({error.strerror or error}); {remedy}")
