"""The JSON files of a LeRobot dataset's meta/, read within limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robocache.errors import DamagedRecordingError, RecordingLimitError, RecordingNotFoundError
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits, MiB

MAX_LENGTH = 4 * MiB  # of one object; as Python's it takes up to 25 times as much


def json_file(path: Path, limits: Limits) -> dict[str, Any]:
    """The object that a JSON file of a dataset holds.

    Raises:
        RecordingError: It is missing, too large, or not one JSON object.
    """
    return parsed(path, text(path, limits))


def json_lines(path: Path, limits: Limits) -> list[dict[str, Any]]:
    """The objects that a file with one JSON object a line holds.

    Raises:
        RecordingError: It is missing, too large, or a line is not a JSON object.
    """
    numbered = enumerate(text(path, limits).split("\n"), start=1)
    return [parsed(path, line, place=f"line {number}") for number, line in numbered if line.strip()]


def text(path: Path, limits: Limits) -> str:
    """What a file of meta/ holds.

    Raises:
        RecordingError: It is missing, too large, or not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > limits.block_bytes:
            problem = f"has {size} bytes, more than the limit of {limits.block_bytes}"
            raise RecordingLimitError(path, problem, remedy="raise Limits(block_bytes=...)")
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise RecordingNotFoundError(path, problem, remedy="check its permissions") from error
    except UnicodeDecodeError as error:
        raise DamagedRecordingError(path, "is not UTF-8 text", offset=error.start, remedy=CHECK) from error


def parsed(path: Path, line: str, place: str | None = None) -> dict[str, Any]:
    """The object that a text in JSON says.

    Raises:
        DamagedRecordingError: It says none.
        RecordingLimitError: It is longer than any that a dataset needs.
    """
    if len(line) > MAX_LENGTH:
        problem = f"has an object of {len(line)} characters in JSON, and {MAX_LENGTH} are allowed"
        raise RecordingLimitError(path, problem, place=place, remedy=CHECK)
    try:
        made = json.loads(line)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        offset = error.pos if isinstance(error, json.JSONDecodeError) and place is None else None
        raise DamagedRecordingError(path, f"is not JSON ({error})", place=place, offset=offset, remedy=CHECK) from error
    if not isinstance(made, dict):
        raise DamagedRecordingError(path, f"is {type(made).__name__} in JSON, not an object", place=place, remedy=CHECK)
    return made
