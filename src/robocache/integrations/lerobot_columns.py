"""All rows of a LeRobot dataset's columns, packed: one tensor a column, every episode's rows side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from robocache.errors import DamagedRecordingError
from robocache.readers.lerobot_meta import Dataset, EpisodeEntry
from robocache.readers.lerobot_table import CHECK, read_columns
from robocache.readers.limits import Limits
from robocache.records import Int64

TEXT = "string"
_TENSORS = {"f": torch.float32, "i": torch.int64, "u": torch.int64, "b": torch.bool}
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
Features = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Columns:
    """The rows of the selected episodes.

    Args:
        numbers: By feature, [row, *shape], or [row] for the shape (1,): float32, int64 or bool.
        texts: By feature, one text a row.
        starts: [episode] int64, the first row of each.
        ends: [episode] int64, one beyond the last row of each.
        bounds: [2, row] int64: where the row's episode starts and ends.
        times_ns: [row] int64, from the start of its episode.
        first_rows: [episode] int64, the row of its file that is the first of each.
    """

    numbers: dict[str, Tensor]
    texts: dict[str, list[str]]
    starts: Int64
    ends: Int64
    bounds: Tensor
    times_ns: Tensor
    first_rows: Int64


def read_packed(dataset: Dataset, episodes: Sequence[int], features: Features, limits: Limits) -> Columns:
    """Read every column that is not an image.

    As in LeRobot's items, floats of any width are float32, integers int64.

    Args:
        dataset: Whose.
        episodes: Places in `dataset.episodes`, ascending.
        features: Of info.json.
        limits: What the files may make the reader allocate.

    Raises:
        RecordingError: A file cannot be read, or holds other rows than the metadata say.
    """
    names = [name for name, feature in features.items() if feature["dtype"] not in ("video", "image")]
    entries = [dataset.episodes[index] for index in episodes]
    parts, first_rows = [], []
    for file, of_file in _by_file(dataset, entries).items():
        wanted = list(dict.fromkeys([*names, "episode_index"]))
        table = read_columns(file, wanted, limits)
        part, first = _rows_of(file, table, of_file)
        parts.append(part)
        first_rows.append(first)
    table = pa.concat_tables(parts)
    lengths = np.array([entry.length for entry in entries], dtype=np.int64)
    ends = np.cumsum(lengths)
    bounds = np.repeat(np.stack([ends - lengths, ends]), lengths, axis=1)
    texts = {name: table.column(name).to_pylist() for name in names if features[name]["dtype"] == TEXT}
    numbers = {}
    for name in names:
        if name not in texts:
            values = _numbers(dataset.root, table.column(name), name, tuple(features[name]["shape"]))
            numbers[name] = torch.from_numpy(np.array(values)).to(_TENSORS[values.dtype.kind])
    frames = np.arange(len(table)) - bounds[0]
    if "frame_index" in numbers and not numbers["frame_index"].is_floating_point():
        frames = numbers["frame_index"].numpy().astype(np.int64)
    times_ns = torch.from_numpy(dataset.frame_times_ns(frames))
    starts = ends - lengths
    return Columns(numbers, texts, starts, ends, torch.from_numpy(bounds), times_ns, np.concatenate(first_rows))


def _by_file(dataset: Dataset, entries: Sequence[EpisodeEntry]) -> dict[Path, list[EpisodeEntry]]:
    files: dict[Path, list[EpisodeEntry]] = {}
    for entry in entries:
        files.setdefault(dataset.data_file(entry), []).append(entry)
    return files


def _rows_of(file: Path, table: pa.Table, entries: Sequence[EpisodeEntry]) -> tuple[pa.Table, Int64]:
    """The rows of some episodes, which must lie in order and be as many as the metadata say, and each's first row."""
    column = table.column("episode_index")
    while any(is_kind(column.type) for is_kind in _LISTS):
        column = pc.list_flatten(column)
    if not pa.types.is_integer(column.type) or column.null_count or len(column) != len(table):
        raise DamagedRecordingError(file, f"holds {column.type}", place="column episode_index", remedy=CHECK)
    found = column.to_numpy()
    kept = np.flatnonzero(np.isin(found, [entry.index for entry in entries]))
    lengths = np.array([entry.length for entry in entries])
    is_as_long = len(kept) == sum(lengths.tolist())  # a length may be any number: it is believed only then
    if not is_as_long or not np.array_equal(found[kept], np.repeat([entry.index for entry in entries], lengths)):
        listed = ", ".join(f"{entry.length} of episode {entry.index}" for entry in entries[:3])
        problem = f"does not hold the rows that meta/ lists, in this order: {listed} ..."
        raise DamagedRecordingError(file, problem, remedy=CHECK)
    starts = np.cumsum(lengths) - lengths
    has_rows = lengths > 0
    first = np.where(has_rows, kept[np.minimum(starts, len(kept) - 1)] if len(kept) else 0, 0)
    if np.any((kept[(starts + lengths)[has_rows] - 1] - first[has_rows]) != lengths[has_rows] - 1):
        raise DamagedRecordingError(file, "has rows of other episodes inside an episode", remedy=CHECK)
    return (table if len(kept) == len(table) else table.take(pa.array(kept))), first


def _numbers(root: Path, column: pa.ChunkedArray, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """[row, *shape], or [row] for the shape (1,), from numbers or lists of lists of them."""
    rows = len(column)
    place = f"column {name}"
    for _ in shape:
        if (
            pa.types.is_list(column.type)
            or pa.types.is_large_list(column.type)
            or pa.types.is_fixed_size_list(column.type)
        ):
            column = pc.list_flatten(column)
        elif pa.types.is_struct(column.type) or isinstance(column.type, pa.ExtensionType):
            break
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DamagedRecordingError(root, f"holds {kind}, not numbers", place=place, remedy=CHECK)
    size = math.prod(shape)
    if column.null_count or len(column) != rows * size:
        problem = f"holds {len(column) - column.null_count} numbers in {rows} rows, not {size} a row"
        raise DamagedRecordingError(root, problem, place=place, remedy=CHECK)
    values = np.asarray(column.to_numpy())
    return values.reshape(rows) if shape == (1,) else values.reshape(rows, *shape)
