"""Where the videos of a LeRobot v3.0 dataset's episodes are: several episodes lie in one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robocache.errors import DamagedRecordingError
from robocache.readers.lerobot_table import CHECK

_PARTS = ("chunk_index", "file_index", "from_timestamp")


def video_columns(videos: Iterable[str]) -> dict[str, list[str]]:
    """The columns of meta/episodes that say where a video is, by video."""
    return {name: [f"videos/{name}/{part}" for part in _PARTS] for name in videos}


def video_places(
    file: Path, row: Mapping[str, Any], columns: Mapping[str, list[str]]
) -> dict[str, tuple[int, int, float]]:
    """Chunk, file and first second in it of an episode's videos, without those that are said to be nowhere.

    Raises:
        DamagedRecordingError: What is said is no place.
    """
    found: dict[str, tuple[int, int, float]] = {}
    for name, names in columns.items():
        chunk, number, start_s = (row.get(column) for column in names)
        if chunk is None and number is None and start_s is None:
            continue
        is_place = all(isinstance(value, int) and value >= 0 for value in (chunk, number))
        if not (is_place and isinstance(start_s, int | float) and 0 <= start_s < 2**32):
            raise DamagedRecordingError(file, f"has the video {[chunk, number, start_s]} of {name}", remedy=CHECK)
        found[name] = int(chunk or 0), int(number or 0), float(start_s)
    return found
