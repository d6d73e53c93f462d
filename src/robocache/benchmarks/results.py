"""Results on disk: strict JSON, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robocache.benchmarks.whole_file import write_whole
from robocache.errors import ArgumentError

SCHEMA = 1
FOLDER = Path("benchmarks/results")


def save(document: dict[str, Any], path: Path) -> None:
    """Write a result.

    Args:
        document: What `measure` returned.
        path: The file; its folder is made.

    Raises:
        OutputError: It cannot be written; nothing partial is left behind.
    """
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_whole(path, text, remedy="give another --out", makes_folder=True)


def load(path: Path) -> dict[str, Any]:
    """Read a result.

    Args:
        path: The file.

    Raises:
        ArgumentError: No such file, not JSON, or not a result of this schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path}: not a readable result of `robocache bench ops` ({error})") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ArgumentError(f"{path}: has schema {schema}, but this RoboCache reads {SCHEMA}; measure again")
    result: dict[str, Any] = document
    return result
