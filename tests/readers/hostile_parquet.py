"""Parquet files of a LeRobot dataset that take a few kB, and would take gigabytes of memory: what writes each.

All are opened as `LeRobotDataset`, which reads the table of tasks too. Without `chunk_bytes` six of them fill it.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .test_lerobot import DATA, EPISODES, LENGTHS, write_dataset  # noqa: TID252 -- tests are not an installed package
from .test_rlds import varint  # noqa: TID252

TASKS = "meta/tasks.parquet"
LONG = 2**26


def write_whole(root):
    """A dataset that the drop-in reads: with tasks, a text in each row, and no video."""
    write_dataset(root)
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"]["observation.images.top"]
    numbers = {"dtype": "int64", "shape": [1], "names": None}
    names = dict.fromkeys(("frame_index", "episode_index", "task_index"), numbers)
    info["features"] |= {**names, "said": {"dtype": "string", "shape": [1], "names": None}}
    (root / "meta/info.json").write_text(json.dumps(info))
    table = pq.read_table(root / DATA).append_column("task_index", [[0] * sum(LENGTHS)])
    pq.write_table(table.append_column("said", [["go"] * sum(LENGTHS)]), root / DATA)
    pq.write_table(pa.table({"task_index": [0], "task": ["pick"]}), root / TASKS)
    return root


def _whole(folder):
    return write_whole(folder / "set")


def repeated(value, count):
    """A column of one value: a few bytes in the file, whatever the count."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), pa.array([value]))


def long_texts(rows):
    return repeated("\0" * LONG, rows)


def written(file, columns, **options):
    """Some columns of a file of the dataset replaced."""

    def write_it(folder):
        root = _whole(folder)
        table = pq.read_table(root / file)
        made = columns(len(table))
        kept = {name: table[name] for name in table.column_names if name not in made} if file != TASKS else {}
        unlimited = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30}
        pq.write_table(pa.table(kept | made), root / file, **unlimited | options)
        return root

    return write_it


def lying(write_it, file, name):
    """What the file says of a column's size is changed to 1000 bytes."""

    def changed(folder):
        path = write_it(folder) / file
        metadata = pq.read_metadata(path)
        chunk = metadata.row_group(0).column(pq.read_schema(path).names.index(name))
        data, true = path.read_bytes(), varint(2 * chunk.total_uncompressed_size)  # zigzag
        place = data.rindex(true)
        said = bytearray(varint(2000))
        said[-1] |= 128
        said += b"\x80" * (len(true) - len(said) - 1) + b"\0"
        path.write_bytes(data[:place] + said + data[place + len(true) :])
        return folder / "set"

    return changed


def _columns(folder):
    """A million columns, and no rows."""
    schema = b"\x48\1s\x15" + varint(2 * (10**6 - 2)) + b"\0" + b"\x15\2\x25\2\x18\1a\0" * (10**6 - 2)
    footer = b"\x15\2\x19\xfc" + varint(10**6 - 1) + schema + b"\x16\0\x19\x0c\0"
    root = _whole(folder)
    (root / TASKS).write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return root


def _json(folder):
    root = _whole(folder)
    info = (root / "meta/info.json").read_text()
    (root / "meta/info.json").write_text(info[:-1] + ', "more": [' + "{}," * 4_000_000 + "{}]}")
    return root


def tasks(count, texts, **options):
    """A table of so many tasks; `texts` makes them."""
    return written(TASKS, lambda _: {"task_index": np.zeros(count, np.int64), "task": texts(count)}, **options)


BOMB = tasks(8, long_texts)
PARQUET = {
    "whole": (_whole, None),
    "tasks": (BOMB, "tasks.parquet: declares"),
    "tasks_lying": (lying(BOMB, TASKS, "task"), "tasks.parquet at byte"),
    "tasks_repeated": (
        tasks(500, lambda count: repeated("x" * 2**20, count)),
        "tasks.parquet, column task: has pages that take",
    ),
    "tasks_beginning_alike": (
        tasks(300, lambda count: ["x" * 2**20] * count, use_dictionary=False,
              column_encoding={"task": "DELTA_BYTE_ARRAY"}),
        "tasks.parquet, column task: has pages that take",
    ),
    "tasks_of_one_width": (
        tasks(500, lambda count: repeated(bytes(2**20), count).cast(pa.binary(2**20)), use_dictionary=["task"]),
        "tasks.parquet: declares",
    ),
    "tasks_many": (tasks(10**6, lambda count: repeated("a", count)), "tasks.parquet: has 1000000 rows that take some"),
    "tasks_columns": (_columns, "declares 999999 columns or row groups in its footer, and 100000 are allowed"),
    "episodes": (
        lying(written(EPISODES, lambda rows: {"tasks": long_texts(rows)}), EPISODES, "tasks"),
        "000.parquet at byte",
    ),
    "texts": (lying(written(DATA, lambda rows: {"said": long_texts(rows)}), DATA, "said"), "000.parquet at byte"),
    "texts_for_numbers": (
        lying(written(DATA, lambda rows: {"frame_index": long_texts(rows)}), DATA, "frame_index"),
        "000.parquet at byte",
    ),
    "json": (_json, "info.json: has an object of"),
}  # fmt: skip
