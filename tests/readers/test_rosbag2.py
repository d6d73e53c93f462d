"""rosbag2 folders with SQLite files: the same numbers as the MCAP file, and whatever is wrong is one error, soon."""

import builtins
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from typer.testing import CliRunner

from robocache.cli.main import app
from robocache.errors import (
    ArgumentError,
    BackendUnavailableError,
    ClosedError,
    DamagedRecordingError,
    RecordingLimitError,
    UnknownFormatError,
    UnknownStreamError,
)
from robocache.readers import Limits, Recording, open_recording
from robocache.readers.rosbag2 import _known_definition
from robocache.readers.rosbag2_file import Rosbag2File

from .bag_writing import (  # noqa: TID252 -- tests are not an installed package
    assert_same_streams,
    mcap_messages,
    write_rosbag2,
    write_small_mcap,
)
from .conftest import damaged, errors_in, read_all, recording  # noqa: TID252


@pytest.fixture
def small(tmp_path):
    return write_small_mcap(tmp_path / "small.mcap")


@pytest.fixture
def bag(tmp_path, small):
    return write_rosbag2(tmp_path / "a", mcap_messages(small))


def execute(path, script):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(script)


def test_husky_as_a_rosbag2(tmp_path):
    original = recording("husky_mcap") / "husky.mcap"
    assert_same_streams(write_rosbag2(tmp_path / "h", mcap_messages(original)), original)


def test_a_folder_is_what_the_mcap_file_is(bag, small):
    """Catches topics or times exchanged, the reader's own definitions in place of the file's."""
    assert_same_streams(bag, small)
    assert_same_streams(bag / "a.db3", small)
    with open_recording(bag) as opened:
        assert isinstance(opened, Recording)
        assert (opened.format, opened.episode_names) == ("rosbag2", ("a",))
        skipped = opened.read_episode(0).attributes["skipped"]
    assert skipped == {}
    (bag / "metadata.yaml").unlink()
    assert_same_streams(bag, small)


def test_a_file_older_than_iron_has_no_definitions(bag, small, monkeypatch):
    """Catches `_known_definition` left out; without the library the error names the extra."""
    execute(bag / "a.db3", "DROP TABLE message_definitions; DROP TABLE schema; VACUUM")
    assert_same_streams(bag, small)
    real_import = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "rosbags":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *arguments, **options)

    _known_definition.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with (
        open_recording(bag) as opened,
        pytest.raises(BackendUnavailableError, match=r'pip install "robocache\[rosbag\]"'),
    ):
        opened.read_episode(0)


def test_a_split_recording_is_one_episode(bag, small):
    (bag / "b.db3").write_bytes((bag / "a.db3").read_bytes())
    assert "does not list 'b.db3', which is there" in str(read_all(bag))
    execute(bag / "a.db3", "DELETE FROM messages WHERE id > 90")
    execute(bag / "b.db3", "DELETE FROM messages WHERE id <= 90")
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("  - a.db3\n", "  - a.db3\n  - 'x/b.db3'\n"))
    assert_same_streams(bag, small)


def test_the_librarys_own_reading(bag):
    store, rows = get_typestore(Stores.ROS2_HUMBLE), []
    with Reader(bag) as reader:
        for connection, log_ns, raw in reader.messages():
            if connection.topic == "/cmd":
                message = store.deserialize_cdr(raw, connection.msgtype)
                rows.append((log_ns, message.linear.x, message.linear.y, message.linear.z))
    with open_recording(bag) as opened:
        stream = opened.read_episode(0, ["/cmd.linear_velocity"]).streams["/cmd.linear_velocity"]
    np.testing.assert_array_equal(stream.times_ns, [row[0] for row in rows])
    np.testing.assert_array_equal(stream.values, [row[1:] for row in rows])


def test_the_rules_of_every_reader(bag):
    with pytest.raises(ArgumentError, match="has times of its own"):
        open_recording(bag, rate_hz=10)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with open_recording(bag) as opened:
        with pytest.raises(UnknownStreamError, match=r"has no stream 'nope'; it has /joints\.position"):
            opened.read_episode(0, ["nope"])
        assert list(opened.read_episode(0, ["/points.points"]).streams) == ["/points.points"]
    with pytest.raises(ClosedError):
        opened.read_episode(0)
    with (
        open_recording(bag, limits=Limits(episode_bytes=100)) as opened,
        pytest.raises(RecordingLimitError, match="the limit is 100"),
    ):
        opened.read_episode(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_inspect_shows_a_folder(bag):
    result = CliRunner().invoke(app, ["inspect", str(bag), "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["format"]) == (0, "rosbag2")
    assert found["episodes"][0]["streams"]["/cmd.linear_velocity"]["samples"] == 60


# ── damaged, or made to do damage ───────────────────────────────────────────────────────────────

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT"


# Long work in one step of SQLite's machine, which no count of steps ends.
SLOW = "replace(hex(zeroblob(40000)), ''0'', ''1'') = 1"


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        ("DROP TABLE messages", DamagedRecordingError, "has no table messages"),
        ("DROP TABLE topics; CREATE TABLE a(b)", DamagedRecordingError, "has no table topics"),
        (f"DROP TABLE messages; CREATE VIEW messages AS {COUNT} 1 topic_id, i timestamp, x'' data FROM n",
         DamagedRecordingError, "has no table messages"),
        (f"DROP TABLE message_definitions; CREATE VIEW message_definitions AS {COUNT} i topic_type FROM n",
         None, ""),
        ("DROP TABLE messages; CREATE TABLE messages(topic_id, timestamp)", DamagedRecordingError, "no such column"),
        ("DROP TABLE messages; CREATE TABLE messages(topic_id, timestamp, data AS (zeroblob(1000000000)));"
         "INSERT INTO messages VALUES (1, 2)", DamagedRecordingError, "table messages has columns that are computed"),
        ("DROP TABLE messages; CREATE TABLE messages(topic_id, timestamp, data AS (x'00010000'));"
         "INSERT INTO messages " + COUNT.replace("1000000000", "100000") + " 1, 2 FROM n",
         DamagedRecordingError, "table messages has columns that are computed"),
        (f"UPDATE sqlite_schema SET sql = replace(sql, 'data BLOB NOT NULL', 'data BLOB CHECK ({SLOW})')", None, ""),
        ("UPDATE messages SET timestamp = -1", DamagedRecordingError, "messages row 0: it is stamped -1 ns"),
        ("UPDATE messages SET timestamp = 1 << 62 | 1", DamagedRecordingError, "which is no time"),
        ("UPDATE messages SET data = 'text'", DamagedRecordingError, "has the values .*, not two numbers and bytes"),
        ("UPDATE messages SET topic_id = 99", DamagedRecordingError, "is of topic 99, which the table of topics"),
        ("UPDATE messages SET data = x''", DamagedRecordingError, "is not the header of plain CDR"),
        ("UPDATE topics SET name = 5, type = x'00'", DamagedRecordingError, "not a number and three texts"),
        ("UPDATE topics SET type = CAST(x'ff' AS TEXT)", DamagedRecordingError, "SQLite cannot read it"),
        ("UPDATE message_definitions SET encoded_message_definition = 'float64[1000000000000] position'",
         DamagedRecordingError, "needs|has no number"),
    ],
    ids=["other", "none", "view", "definitions", "column", "generated", "many", "check", "early", "late", "text",
         "topic", "empty", "names", "utf8", "sizes"],
)  # fmt: skip
def test_databases_that_cannot_be(bag, script, kind, says):
    execute(bag / "a.db3", f"PRAGMA writable_schema=ON; {script}")
    error = read_all(bag)
    if kind is None:
        assert isinstance(error, list)
        return
    assert type(error) is kind
    assert re.search(says, str(error))


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_files(tmp_path, kind):
    bag = write_rosbag2(tmp_path / "a", mcap_messages(write_small_mcap(tmp_path / "small.mcap", rows=12)))
    data, found = (bag / "a.db3").read_bytes(), []
    for seed in range(25 if kind == "truncated" else 60):
        (bag / "a.db3").write_bytes(damaged(data, kind, seed))
        found.append(read_all(bag))
    assert len(errors_in(found)) >= ({"truncated": 25, "flipped": 10, "sizes": 3}[kind])


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("", DamagedRecordingError, "does not list 'a.db3', which is there"),
        ("  relative_file_paths:\n  - a.db3\n  - a.db3\n", DamagedRecordingError, "does not list its files, once each"),
        ("  relative_file_paths:\n  - a.db3\n  - ../../etc/passwd\n", DamagedRecordingError, "lists 'passwd', which"),
        ("  compression_mode: FILE\n", UnknownFormatError, "compressed by file with nothing; write it without"),
        ("\xff" * 5_000_000, RecordingLimitError, "and 4194304 are allowed"),
        ("\udcff", DamagedRecordingError, "is no text"),
    ],
    ids=["empty", "twice", "outside", "compressed", "huge", "bytes"],
)  # fmt: skip
def test_metadata_that_cannot_be(bag, text, kind, says):
    (bag / "metadata.yaml").write_bytes(text.encode(errors="surrogateescape"))
    error = read_all(bag)
    assert type(error) is kind
    assert says in str(error)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_recording_that_never_finished(bag, suffix):
    """Catches the look beside the file left out: what is in the journal would be missing in silence."""
    (bag / f"a.db3{suffix}").write_bytes(b"x")
    assert f"its recording never finished: a.db3{suffix} beside it" in str(read_all(bag))


@pytest.mark.parametrize("is_checked", [True, False], ids=["checked", "unchecked"])
def test_pages_that_hold_one_page_many_times(bag, monkeypatch, is_checked):
    """A tree of such pages has billions of rows. Catches SQLite's check left out, and the sum of the rows as well."""
    path = bag / "a.db3"
    with closing(sqlite3.connect(path)) as connection:
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'")
        [(size,)] = connection.execute("PRAGMA page_size")
    data, at = bytearray(path.read_bytes()), (root - 1) * size
    assert data[at] == 5  # an inner page: its cells are pointers to pages, and the last pointer is in its header
    cells = [int.from_bytes(data[at + 12 + 2 * cell : at + 14 + 2 * cell]) for cell in range(data[at + 4])]
    copy = data[at : at + size]
    for place in [*cells, 8]:
        data[at + place : at + place + 4] = (len(data) // size + 1).to_bytes(4)
    data += copy
    data[28:32] = (len(data) // size).to_bytes(4)
    path.write_bytes(data)
    if not is_checked:
        monkeypatch.setattr(Rosbag2File, "check", lambda self: None)
    error = read_all(bag)
    assert type(error) is DamagedRecordingError
    assert ("SQLite finds it damaged" if is_checked else "hold more than") in str(error)


def test_a_schema_that_is_no_text(bag):
    """SQLite's own message then holds those bytes. Catches `UnicodeError` left out of what is translated."""
    data = (bag / "a.db3").read_bytes()
    (bag / "a.db3").write_bytes(data.replace(b"CREATE TABLE topics(", b"CREATE TABLE \xff\xfe(((("))
    assert "SQLite cannot read it" in str(read_all(bag))
