"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from robocache.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, text: str, *, remedy: str, makes_folder: bool = False) -> None:
    """Write a file; what was there before stays until the new one is whole. A device or a pipe is written to.

    Args:
        path: Which file.
        text: Its content.
        remedy: What to do where it cannot be written.
        makes_folder: Make its folder where there is none.

    Raises:
        OutputError: It cannot be written.
    """
    is_special = path.exists() and not path.is_file()
    partial = path if is_special else path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if makes_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        if not is_special:
            partial.replace(path)
    except OSError as error:
        if not is_special:
            with contextlib.suppress(OSError):  # the first reason is the one to tell
                partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}") from error
