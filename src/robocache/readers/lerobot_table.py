"""Parquet files of a LeRobot dataset, read with their declared sizes checked first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robocache.errors import DamagedRecordingError, RecordingError, RecordingLimitError, RecordingNotFoundError
from robocache.readers.limits import Limits, MiB
from robocache.readers.parquet_footer import MAX_PARTS, check_footer
from robocache.readers.parquet_pages import TRUST
from robocache.readers.parquet_sizes import chunk_bytes
from robocache.readers.recording import open_binary, unreadable

WHOLE_FILE_BYTES = 64 * MiB  # a file of smaller columns is read at once, for its episodes are mostly read in order
ROW_BYTES, VALUE_BYTES = 100, 60  # of Python: a number or a text of a row, and one in a list, without the text itself
CHECK = "download or write the dataset again"
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError, UnicodeDecodeError)
_VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
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


def read_rows(
    path: Path, columns: Sequence[str] | None, limits: Limits, *, optional: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Rows of a small table of numbers, texts and lists of them, each a dictionary; see `read_columns`.

    Raises:
        RecordingError: As `read_columns`; also where Python would need more memory for the rows than is allowed.
    """
    table = read_columns(path, columns, limits, optional=optional)
    held = 0
    for name in table.column_names:
        column = table.column(name)
        held += len(column) * ROW_BYTES
        while any(is_list(column.type) for is_list in _LISTS):
            column = pc.list_flatten(column)
            held += len(column) * VALUE_BYTES
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if any(is_text(column.type) for is_text in _TEXTS):
            held += column.nbytes
        elif not (any(is_number(column.type) for is_number in _NUMBERS) or pa.types.is_null(column.type)):
            problem = f"holds {column.type}, neither numbers nor texts"
            raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
    allowed = limits.decompressed_bytes(path.stat().st_size, of_block=False)
    if held > allowed:
        problem = f"has {len(table)} rows that take some {held} bytes in memory, and {allowed} are allowed"
        raise RecordingLimitError(path, problem, remedy=TRUST)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


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
    place = "footer"
    try:
        check_footer(path)
        # Opened here, since pyarrow closes what it opened itself only when an error is forgotten. The checksums of
        # pages are verified where the writer made them.
        options = {"page_checksum_verification": True, "thrift_container_size_limit": MAX_PARTS}
        with pa.OSFile(str(path)) as source, pq.ParquetFile(source, **options) as file:
            place = "pages"
            yield file
    except RecordingError:
        raise
    except PermissionError as error:
        raise unreadable(path, error) from error
    except _DAMAGE as error:
        text = " ".join(str(error).split())[:200]
        raise DamagedRecordingError(path, f"cannot be read as Parquet ({text})", place=place, remedy=CHECK) from error


def _sizes(metadata: pq.FileMetaData, wanted: Collection[str], group: int) -> Iterator[tuple[int, int]]:
    """Of each wanted column in a row group: its bytes in the file, and those that it takes in memory."""
    row_group = metadata.row_group(group)
    for number, chunk in _chunks(row_group, wanted):
        # Equal values in a row take no bytes in the file, and still do in memory.
        value_bytes = metadata.schema.column(number).length or _VALUE_BYTES.get(chunk.physical_type, 8)
        values_bytes = chunk.num_values * value_bytes
        yield chunk.total_compressed_size, max(chunk.total_uncompressed_size, values_bytes)


def _chunks(group: pq.RowGroupMetaData, wanted: Collection[str]) -> Iterator[tuple[int, pq.ColumnChunkMetaData]]:
    """The chunks of the wanted columns, all of those that a structure or a list has, with their numbers."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema in wanted or any(chunk.path_in_schema.startswith(f"{name}.") for name in wanted):
            yield number, chunk


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
            raise RecordingLimitError(path, problem, remedy=TRUST)
    held = 0
    with open_binary(path) as file:
        for group in groups:
            for _, chunk in _chunks(metadata.row_group(group), wanted):
                held += chunk_bytes(file, path, chunk, limits)
                if held > rows_allowed:
                    problem = f"has pages that take {held} bytes in memory, and {rows_allowed} are allowed"
                    raise RecordingLimitError(path, problem, place=f"column {chunk.path_in_schema}", remedy=TRUST)


def column_numbers(path: Path, table: pa.Table, name: str, width: int) -> npt.NDArray[np.generic]:
    """A column of numbers, or of lists of `width` numbers, as [rows, width]; its missing numbers are an error.

    Raises:
        DamagedRecordingError: It holds something else.
    """
    column = table.column(name)
    depth = 0
    while any(is_list(column.type) for is_list in _LISTS):
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
    if (
        not any(is_number(column.type) for is_number in _NUMBERS)
        or column.null_count
        or len(column) != len(table) * width
    ):
        problem = f"holds {column.type} with {column.null_count} missing, not {width} numbers a row"
        raise DamagedRecordingError(path, problem, place=f"column {name}", remedy=CHECK)
    return np.asarray(column.to_numpy()).reshape(len(table), width)
