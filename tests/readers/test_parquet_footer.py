"""Footers of Parquet files on which pyarrow ends the process: refused before it sees them."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robocache.errors import DamagedRecordingError
from robocache.readers import Limits
from robocache.readers.lerobot_table import read_rows
from robocache.readers.parquet_footer import check_footer

from .conftest import IS_NIGHTLY  # noqa: TID252 -- tests are not an installed package
from .hostile_parquet import TASKS, write_whole  # noqa: TID252

WITHOUT_THE_CHECK = """
import sys
import pyarrow.parquet as pq
metadata = pq.read_metadata(sys.argv[1])
for number in range(metadata.num_columns):
    metadata.row_group(0).column(number).compression
"""
# Reads each of the files it is told of; what ends it ends the test.
EACH = """
import sys
from pathlib import Path
from robocache.errors import RecordingError
from robocache.readers import Limits
from robocache.readers.lerobot_table import read_rows
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_rows(path, None, Limits())
    except RecordingError:
        continue
"""


def footer_of(data):
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return start, data[start:-8]


def changed(path, at, value):
    data = bytearray(path.read_bytes())
    start, _ = footer_of(data)
    data[start + at] = value
    path.write_bytes(data)


def tasks(folder):
    return write_whole(folder / "set") / TASKS


# The byte of the footer, its value, and what is wrong then: found by fuzzing.
ENDED_IT = [(20, 6, "repeated in no known way"), (20, 0, "that is described as")]


@pytest.mark.parametrize(("at", "value", "says"), ENDED_IT)
def test_a_byte_on_which_pyarrow_ends_the_process(tmp_path, at, value, says):
    """Catches `check_footer` left out, or what it looks at; pyarrow alone is asked first, in a process of its own."""
    path = tasks(tmp_path)
    assert footer_of(path.read_bytes())[1][at] == 2  # an optional column, by zigzag
    changed(path, at, value)
    alone = subprocess.run([sys.executable, "-c", WITHOUT_THE_CHECK, str(path)], capture_output=True, check=False)
    if alone.returncode >= 0:
        pytest.skip(f"pyarrow {pa.__version__} does not end the process any more")
    with pytest.raises(DamagedRecordingError, match=says):
        read_rows(path, None, Limits())


def test_no_byte_of_a_footer_ends_the_process(tmp_path):
    """Every byte of a footer is changed, in several ways: read or refused."""
    path, folder = tasks(tmp_path), tmp_path / "changed"
    folder.mkdir()
    data = path.read_bytes()
    start, footer = footer_of(data)
    for at in range(len(footer)):
        for bit in range(8) if IS_NIGHTLY else (at % 8, (at + 3) % 8):
            broken = bytearray(data)
            broken[start + at] ^= 1 << bit
            (folder / f"{at}-{bit}.parquet").write_bytes(broken)
    done = subprocess.run([sys.executable, "-c", EACH, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


WRITERS = [
    {},
    {"version": "1.0", "data_page_version": "2.0"},
    {"write_statistics": False, "store_schema": False, "compression": "none"},
    {"row_group_size": 2, "write_page_index": True, "compression": "zstd"},
    {"compression": "lz4", "use_byte_stream_split": ["number"], "use_dictionary": False},
]


@pytest.mark.parametrize("options", WRITERS, ids=str)
def test_what_pyarrow_writes_is_accepted(tmp_path, options):
    """Catches levels counted wrongly: structures in lists in structures, missing and not."""
    rows = 5
    table = pa.table({
        "number": [1.5] * rows,
        "nothing": pa.nulls(rows),
        "text": ["a", None, "b", "c", "d"],
        "lists": [[[1], None], None, [], [[]], [[2, None]]],
        "nested": [{"a": [{"b": 1, "c": [True]}], "d": b"x"}, None, {"a": None, "d": None}, {"a": [], "d": b""}, None],
        "maps": pa.array([[("k", [1])]] * rows, pa.map_(pa.string(), pa.list_(pa.int8()))),
        "fixed": pa.array([[1, 2]] * rows, pa.list_(pa.int32(), 2)),
        "width": pa.array([b"abc"] * rows, pa.binary(3)),
    })  # fmt: skip
    schema = table.schema.set(0, pa.field("number", pa.float64(), nullable=False))
    path = tmp_path / "a.parquet"
    pq.write_table(table.cast(schema), path, **options)
    check_footer(path)
