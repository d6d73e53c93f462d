"""What a LeRobot dataset says of itself: meta/info.json, its episodes and its tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from string import Formatter
from typing import Any, TypeGuard, TypeVar

import numpy as np

from robocache.errors import DamagedRecordingError, UnknownFormatError
from robocache.readers.lerobot_json import json_file, parsed, text
from robocache.readers.lerobot_table import CHECK, read_rows
from robocache.readers.lerobot_videos import video_columns, video_places
from robocache.readers.limits import Limits
from robocache.records import Int64

CLOCK_COLUMNS = ("frame_index", "timestamp", "episode_index")
BOOKKEEPING = frozenset({*CLOCK_COLUMNS, "index", "task_index"})
VERSIONS = ("v3.0", "v2.1", "v2.0")  # v2.0 differs from v2.1 in where the statistics are
MAX_EPISODES = 10_000_000
MAX_COUNT = 2**40  # of rows, files and episodes: sums of them stay in 64 bits
_FIELD = re.compile(r"\w+:0?\d{0,2}d?")  # of a path: its name, and the width of a number
_Kind = TypeVar("_Kind")
_INTEGERS = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_VIDEO, _IMAGE = (f"its values are {kind}, not numbers" for kind in ("video", "image"))
_NUMBERS = frozenset({"float16", "float32", "float64", "bool", *_INTEGERS})


@dataclass(frozen=True)
class Feature:
    """A column of numbers."""

    name: str
    dtype: np.dtype[np.generic]
    width: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class EpisodeEntry:
    """Where an episode is, how long, and what it is about."""

    index: int
    length: int
    task: str
    chunk: int
    file: int
    videos: Mapping[str, tuple[int, int, float]] = field(default_factory=dict)  # chunk, file, first second in it


@dataclass(frozen=True)
class Dataset:
    """An opened dataset: its metadata read and checked, none of its rows."""

    root: Path
    version: str
    fps: float
    robot: str
    data_path: str
    features: Mapping[str, Feature]
    skipped: dict[str, str]
    episodes: tuple[EpisodeEntry, ...]
    videos: tuple[str, ...] = ()
    video_path: str = ""
    images: tuple[str, ...] = ()

    def video_files(self, entry: EpisodeEntry) -> dict[str, tuple[Path, float]]:
        """The file that holds each video of an episode, and the second in it at which the episode begins.

        Left out are videos of a v3.0 dataset of which meta/episodes does not say where they are: they could be anywhere
        in a file with those of other episodes.
        """
        known = [name for name in self.videos if name in entry.videos or self.version != "v3.0"]
        return {name: self._video_file(entry, name) for name in known}

    def _video_file(self, entry: EpisodeEntry, name: str) -> tuple[Path, float]:
        chunk, number, start_s = entry.videos.get(name, (entry.chunk, entry.file, 0.0))
        path = inside(
            self.root,
            self.video_path,
            video_key=name,
            chunk_index=chunk,
            file_index=number,
            episode_chunk=entry.chunk,
            episode_index=entry.index,
        )
        return path, start_s

    def data_file(self, entry: EpisodeEntry) -> Path:
        """The Parquet file that holds an episode."""
        return inside(
            self.root,
            self.data_path,
            chunk_index=entry.chunk,
            file_index=entry.file,
            episode_chunk=entry.chunk,
            episode_index=entry.index,
        )

    def frame_times_ns(self, frames: Int64) -> Int64:
        """Frame / fps, rounded to nanoseconds once and exactly, however long the episode."""
        period = Fraction(1_000_000_000) / Fraction(self.fps).limit_denominator(1_000_000)
        top, bottom = period.numerator, period.denominator
        if top * bottom < 2**61:
            # Whole multiples of the denominator apart from the rest, so that no product leaves int64.
            whole, rest = np.divmod(frames, bottom)
            return np.asarray(whole * top + (2 * rest * top + bottom) // (2 * bottom), dtype=np.int64)
        return np.array([round(int(frame) * period) for frame in frames], dtype=np.int64)


def _filled(template: str, numbers: Mapping[str, int | str]) -> str:
    fields = [part for part in Formatter().parse(template) if part[1] is not None]
    # A width is a request for memory, and an attribute is a way into the program.
    if not all(_FIELD.fullmatch(f"{name}:{spec}") and kind is None for _, name, spec, kind in fields):
        raise ValueError("more than a name and a width of two digits")
    return template.format(**numbers)


def inside(root: Path, template: str, **numbers: int | str) -> Path:
    """A path of the dataset from a template of info.json.

    Raises:
        DamagedRecordingError: The template cannot be filled in, or leads out of the dataset.
    """
    info = root / "meta" / "info.json"
    try:
        path = root / _filled(template, numbers)
        real_root, real = root.resolve(), path.resolve()
        is_inside = real.is_relative_to(real_root) or real.is_relative_to(_hub_blobs(real_root))
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise DamagedRecordingError(
            info, f"has the path {template[:100]!r}, which cannot be filled in", remedy=CHECK
        ) from error
    if not is_inside:
        problem = f"has the path {template[:100]!r}, which leads out of the dataset"
        raise DamagedRecordingError(info, problem, remedy="do not trust this dataset")
    return path


def _hub_blobs(root: Path) -> Path:
    """Where Hugging Face's cache keeps the files of a snapshot, which is a folder of links; else the folder itself."""
    return root.parent.parent / "blobs" if root.parent.name == "snapshots" else root


def open_dataset(root: Path, limits: Limits) -> Dataset:
    """Read and check the metadata of a dataset.

    Raises:
        UnknownFormatError: A version that is not read.
        DamagedRecordingError: Metadata that is missing, malformed or contradicts itself.
    """
    info = json_file(root / "meta" / "info.json", limits)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        remedy = f"RoboCache reads {', '.join(VERSIONS)}; convert it with LeRobot's own script"
        raise UnknownFormatError(root / "meta" / "info.json", f"is of version {version!r}", remedy=remedy)
    declared_fps = info.get("fps")
    # Compared as it is: an int may be beyond every float. True is an int too.
    if not isinstance(declared_fps, int | float) or declared_fps is True or not 1e-3 <= declared_fps <= 1e6:
        raise _wrong(root, f"fps is {str(declared_fps)[:60]!r}, not between 0.001 and 1000000")
    fps = float(declared_fps)
    declared = _entry(root, info, "features", dict)
    features, skipped = _features(root, declared)
    video_path, total = info.get("video_path"), info.get("total_episodes")
    videos = [name for name, why in skipped.items() if why == _VIDEO] if isinstance(video_path, str) else []
    episodes = _episodes_v30(root, limits, videos) if version == "v3.0" else _episodes_v21(root, info, limits)
    if isinstance(total, int) and total > len(episodes):
        problem = f"total_episodes is {total}, but {len(episodes)} are described beside it: part of meta/ is missing"
        raise _wrong(root, problem)
    return Dataset(
        root=root,
        version=version,
        fps=fps,
        robot=str(info.get("robot_type")),
        data_path=_entry(root, info, "data_path", str),
        features=features,
        skipped={name: why for name, why in skipped.items() if name not in videos and why != _IMAGE},
        videos=tuple(videos),
        video_path=str(video_path),
        images=tuple(name for name, why in skipped.items() if why == _IMAGE),
        episodes=episodes,
    )


def _features(root: Path, declared: Mapping[str, Any]) -> tuple[dict[str, Feature], dict[str, str]]:
    features: dict[str, Feature] = {}
    skipped: dict[str, str] = {}
    for name, entry in declared.items():
        if name in BOOKKEEPING:
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list):
            raise _wrong(root, f"feature {name!r} is {str(entry)[:60]!r}, not a dtype and a shape")
        dtype, shape = entry.get("dtype"), entry["shape"]
        if not isinstance(dtype, str):
            raise _wrong(root, f"feature {name!r} has the dtype {str(dtype)[:60]!r}")
        if dtype not in _NUMBERS:
            skipped[name] = f"its values are {dtype}, not numbers"
        elif len(shape) != 1:
            skipped[name] = f"it has {len(shape)} axes, not one"
        elif not (isinstance(shape[0], int) and 0 < shape[0] <= 1_000_000):
            raise _wrong(root, f"feature {name!r} has the shape {shape!r}")
        else:
            features[name] = Feature(name, np.dtype(dtype), shape[0], _columns(entry.get("names"), shape[0]))
    return features, skipped


def _columns(names: object, width: int) -> tuple[str, ...]:
    """Names of columns: a list, a list in a list, a dictionary of lists or of places; () where they do not fit."""
    if isinstance(names, dict):
        is_placed = len(names) == width and {*map(repr, names.values())} == {*map(repr, range(width))}
        names = sorted(names, key=names.__getitem__) if is_placed else list(names.values())
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    if isinstance(names, list) and len(names) == width and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def _episodes_v30(root: Path, limits: Limits, videos: list[str]) -> tuple[EpisodeEntry, ...]:
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    files = _episode_files(root)
    if not files:
        raise DamagedRecordingError(root / "meta" / "episodes", "holds no chunk-*/file-*.parquet", remedy=CHECK)
    entries = []
    for file in files:
        of_videos = video_columns(videos)
        wanted = [*columns, *(column for names in of_videos.values() for column in names)]
        optional = wanted[len(columns) :]
        for row in read_rows(file, wanted, limits, optional=optional):
            numbers = [row[name] for name in ("episode_index", "length", "data/chunk_index", "data/file_index")]
            tasks = row["tasks"]
            if not (all(_is_count(number) for number in numbers) and isinstance(tasks, list)):
                raise DamagedRecordingError(file, f"has the episode {str(row)[:100]}", remedy=CHECK)
            index, length, chunk, number = numbers
            places = video_places(file, row, of_videos)
            entries.append(EpisodeEntry(index, length, "; ".join(map(str, tasks)), chunk, number, places))
    return _in_order(files[0], entries)


def _episode_files(root: Path) -> list[Path]:
    folder = root / "meta" / "episodes"
    for entry in (folder, *folder.glob("chunk-*")):
        if entry.is_dir():
            os.scandir(entry).close()  # a pattern leaves out, in silence, what cannot be listed
    return sorted(folder.glob("chunk-*/file-*.parquet"))


def _episodes_v21(root: Path, info: Mapping[str, Any], limits: Limits) -> tuple[EpisodeEntry, ...]:
    path = root / "meta" / "episodes.jsonl"
    chunks_size = _entry(root, info, "chunks_size", int)
    if chunks_size < 1:
        raise _wrong(root, f"chunks_size is {chunks_size!r}, not 1 or more")
    entries = []
    for number, line in enumerate(text(path, limits).split("\n"), start=1):
        if not line.strip():
            continue
        row = parsed(path, line, place=f"line {number}")
        index, length, tasks = (row.get(name) for name in ("episode_index", "length", "tasks"))
        if not (_is_count(index) and _is_count(length) and isinstance(tasks, list)):
            raise DamagedRecordingError(path, f"has the episode {line[:100]}", place=f"line {number}", remedy=CHECK)
        entries.append(EpisodeEntry(index, length, "; ".join(map(str, tasks)), index // chunks_size, 0))
    return _in_order(path, entries)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < MAX_COUNT


def _in_order(path: Path, entries: list[EpisodeEntry]) -> tuple[EpisodeEntry, ...]:
    if len({entry.index for entry in entries}) != len(entries):
        raise DamagedRecordingError(path, "has two episodes with the same index", remedy=CHECK)
    if not entries or len(entries) > MAX_EPISODES:
        raise DamagedRecordingError(path, f"has {len(entries)} episodes, not 1 to {MAX_EPISODES}", remedy=CHECK)
    return tuple(sorted(entries, key=lambda entry: entry.index))


def _entry(root: Path, info: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = info.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(root, f"{name} is {str(value)[:60]!r}")
    return value


def _wrong(root: Path, problem: str) -> DamagedRecordingError:
    return DamagedRecordingError(root / "meta" / "info.json", problem, remedy=CHECK)
