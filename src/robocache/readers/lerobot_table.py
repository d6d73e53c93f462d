"""Parquet files of a LeRobot dataset, read with their declared sizes checked first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robocache.errors import DamagedRecordingError, RecordingError, RecordingLimitError, RecordingNotFoundError
from robocache.readers.limits import Limits, MiB

WHOLE_FILE_BYTES = 64 * MiB  # a file of smaller columns is read at once, for its episodes are mostly read in order
CHECK = "download or write the dataset again"
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, UnicodeDecodeError)
_VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def read_columns(
    path: Path, columns: Sequence[str] | None, limits: Limits, *, optional: Collection[str] = ()
) -> pa.Table:
    """Columns of one Parquet file; None for all of them.

    Args:
        path: The file.
        columns: Top-level names.
        limits: How much the columns may take in memory.
        optional: Which of the columns may be missing.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It is no Parquet file, is damaged, or lacks a column.
        RecordingLimitError: The columns declare more bytes than the limits allow.
    """
    with opened_table(path) as file:
        names = file.schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        missing = [] if columns is None else [name for name in columns if name not in names and name not in optional]
        _check_size(path, file.metadata, wanted, limits, range(file.metadata.num_row_groups))
        table = None if missing else file.read(wanted, use_threads=False)
    if table is None:
        raise DamagedRecordingError(path, f"has no column {missing[0]!r}; it has {', '.join(names)}", remedy=CHECK)
    return table


def read_episode_columns(path: Path, columns: Sequence[str], episode: int, limits: Limits) -> pa.Table | None:
    """Columns of those row groups of a large Parquet file that hold rows of an episode.

    The groups are found by the numbers in `episode_index`, not by what the file says of them.

    Args:
        path: The file.
        columns: Top-level names; those that the file lacks are left out.
        episode: Its number in `episode_index`.
        limits: How much the columns may take in memory.

    Returns:
        None for a file that is small, has one row group only or lacks `episode_index`: `read_columns` is right for it.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It is no Parquet file, is damaged, or lacks the episode.
        RecordingLimitError: The columns declare more bytes than the limits allow.
    """
    with opened_table(path) as file:
        names, groups = file.schema_arrow.names, range(file.metadata.num_row_groups)
        wanted = [name for name in columns if name in names]
        declared = sum(size for group in groups for _, size in _sizes(file.metadata, wanted, group))
        if declared <= WHOLE_FILE_BYTES or len(groups) < 2 or len(wanted) < len(columns):
            return None
        found = []
        for group in groups:
            _check_size(path, file.metadata, ["episode_index"], limits, [group])
            numbers = file.read_row_group(group, ["episode_index"], use_threads=False)
            if np.any(column_numbers(path, numbers, "episode_index", 1) == episode):
                found.append(group)
        if not found:
            raise DamagedRecordingError(path, f"has no row of episode {episode}", remedy=CHECK)
        _check_size(path, file.metadata, wanted, limits, found)
        return file.read_row_groups(found, wanted, use_threads=False)


def first_row_of_episode(path: Path, episode: int, limits: Limits) -> int:
    """The first row of an episode in a Parquet file; 0 in a file without `episode_index`.

    Args:
        path: The file.
        episode: Its number in `episode_index`.
        limits: How much that column of a row group may take in memory.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It is no Parquet file, is damaged, or lacks the episode.
        RecordingLimitError: The column declares more bytes than the limits allow.
    """
    with opened_table(path) as file:
        if "episode_index" not in file.schema_arrow.names:
            return 0
        first = 0
        for group in range(file.metadata.num_row_groups):
            _check_size(path, file.metadata, ["episode_index"], limits, [group])
            numbers = file.read_row_group(group, ["episode_index"], use_threads=False)
            rows = np.flatnonzero(column_numbers(path, numbers, "episode_index", 1) == episode)
            if len(rows):
                return first + int(rows[0])
            first += len(numbers)
    raise DamagedRecordingError(path, f"has no row of episode {episode}", remedy=CHECK)


@contextmanager
def opened_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, open for reading; whatever pyarrow raises meanwhile becomes our error.

    Raises:
        RecordingNotFoundError: There is no such file.
        DamagedRecordingError: It is no Parquet file, or is damaged.
    """
    if not path.is_file():
        raise RecordingNotFoundError(path, "is missing from the dataset", remedy=CHECK)
    try:
        # Opened here, since pyarrow closes what it opened itself only when an error is forgotten. The checksums of
        # pages are verified where the writer made them.
        with pa.OSFile(str(path)) as source, pq.ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except RecordingError:
        raise
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        raise DamagedRecordingError(path, f"cannot be read as Parquet ({text})", remedy=CHECK) from error


def _sizes(metadata: pq.FileMetaData, wanted: Collection[str], group: int) -> Iterator[tuple[int, int]]:
    """Of each wanted column in a row group: its bytes in the file, and those that it takes in memory."""
    row_group = metadata.row_group(group)
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        if chunk.path_in_schema.split(".list.")[0] in wanted or chunk.path_in_schema in wanted:
            # Equal values in a row take no bytes in the file, and still do in memory.
            values_bytes = chunk.num_values * _VALUE_BYTES.get(chunk.physical_type, 8)
            yield chunk.total_compressed_size, max(chunk.total_uncompressed_size, values_bytes)


def _check_size(
    path: Path, metadata: pq.FileMetaData, wanted: Collection[str], limits: Limits, groups: Collection[int]
) -> None:
    stored = declared = 0
    for group in groups:
        for compressed, uncompressed in _sizes(metadata, wanted, group):
            stored += compressed
            declared += uncompressed
    size = path.stat().st_size
    allowed = limits.decompressed_bytes(min(stored, size), of_block=False)
    # Run lengths make rows out of nothing, so rows are bounded as well as bytes.
    rows_allowed = limits.decompressed_bytes(size, of_block=False)
    for what, value, limit in (
        ("stored bytes", stored, size),
        ("decompressed bytes", declared, allowed),
        ("rows", metadata.num_rows, rows_allowed),
    ):
        if not 0 <= value <= limit:
            problem = f"declares {value} {what}, and {limit} are possible or allowed"
            raise RecordingLimitError(path, problem, remedy="open it with larger Limits(...) if you trust it")


def column_numbers(path: Path, table: pa.Table, name: str, width: int) -> npt.NDArray[np.generic]:
    """A column of numbers, or of lists of `width` numbers, as [rows, width]; its missing numbers are an error.

    Raises:
        DamagedRecordingError: It holds something else.
    """
    column = table.column(name)
    depth = 0
    while (
        pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type) or pa.types.is_large_list(column.type)
    ):
        depth += 1
        if column.null_count or depth > 1:
            problem = "misses whole rows" if column.null_count else f"holds {column.type} inside lists, not numbers"
            raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
        lengths = np.asarray(pc.list_value_length(column))
        if np.any(lengths != width):
            row = int(np.argmax(lengths != width))
            problem = f"has {lengths[row]} numbers in row {row}, not {width}"
            raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
        column = pc.list_flatten(column)
    is_number = (
        pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)
    )
    if not is_number or column.null_count or len(column) != len(table) * width:
        problem = f"holds {column.type} with {column.null_count} missing, not {width} numbers a row"
        raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
    return np.asarray(column.to_numpy()).reshape(len(table), width)
