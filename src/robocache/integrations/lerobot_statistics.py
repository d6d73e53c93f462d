"""The statistics of a LeRobot dataset's features: as v3.0 stores them, or v2.1's of each episode put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError
from robocache.readers.lerobot_json import json_file, json_lines
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits

Array = npt.NDArray[Any]
Statistics = dict[str, dict[str, Array]]
_POOLED = ("min", "max", "mean", "std", "count")


def read_statistics(root: Path, limits: Limits) -> Statistics | None:
    """By feature, then by name ("min", "max", "mean", "std", "count", ...); None where there are none.

    Args:
        root: The dataset's folder.
        limits: How large the file may be.

    Raises:
        DamagedRecordingError: They are not numbers.
    """
    whole, of_episodes = root / "meta" / "stats.json", root / "meta" / "episodes_stats.jsonl"
    if whole.is_file():
        return _arrays(whole, json_file(whole, limits))
    if not of_episodes.is_file():
        return None
    parts = [_arrays(of_episodes, line.get("stats", {})) for line in json_lines(of_episodes, limits)]
    names = dict.fromkeys(name for part in parts for name in part)
    try:
        return {name: _together([part[name] for part in parts if name in part]) for name in names}
    except (IndexError, ValueError) as error:
        problem = f"has statistics of episodes that do not fit each other ({error})"
        raise DamagedRecordingError(of_episodes, problem, remedy=CHECK) from error


def _arrays(path: Path, stored: Mapping[str, Any]) -> Statistics:
    try:
        return {
            name: {key: _numbers(value) for key, value in entries.items() if value is not None}
            for name, entries in stored.items()
        }
    except (AttributeError, ValueError) as error:
        raise DamagedRecordingError(path, f"does not hold numbers by feature ({error})", remedy=CHECK) from error


def _numbers(value: object) -> Array:
    found = np.array(value)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{str(value)[:60]!r} is none")
    return found


def _together(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Of all frames, from those of each episode: the mean and the variance are weighted by the counts."""
    parts = [part for part in parts if all(key in part for key in _POOLED)]
    if not parts:
        return {}
    shape = (-1, *(1,) * parts[0]["mean"].ndim)
    counts = np.array([part["count"].reshape(-1)[0] for part in parts]).reshape(shape)
    means, deviations = (np.stack([part[key] for part in parts]) for key in ("mean", "std"))
    total = counts.sum()
    mean = (means * counts).sum(axis=0) / total
    variance = ((deviations**2 + (means - mean) ** 2) * counts).sum(axis=0) / total
    return {
        "min": np.stack([part["min"] for part in parts]).min(axis=0),
        "max": np.stack([part["max"] for part in parts]).max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([total]),
    }
