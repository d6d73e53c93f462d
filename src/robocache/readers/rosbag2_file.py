"""One SQLite file of a rosbag2 folder, read as what a stranger wrote.

SQLite runs what a schema says: views, generated columns, checks. So the tables must be tables with nothing computed,
what is not reading a column is refused, a value may not be longer than the file, all rows together
may not hold more than the file does, and the work is counted. SQLite's own check of its pages comes first, because
the format has no checksums and a page that lost rows reads like one that never had them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import REACH_NS, Limits
from robocache.readers.recording import open_binary

MAGIC = b"SQLite format 3\0"
STEPS_BETWEEN_LOOKS = 10_000
FREE_STEPS = 5_000_000
STEPS_A_BYTE = 8  # a row costs about forty steps, and no fewer bytes than ROW_BYTES in the file
ROW_BYTES = 8
MAX_SQL_BYTES = 100_000
MAX_TOPICS = 100_000
MAX_COLUMNS = 2_000
EVERY_ROW = (-(2**63), 2**63 - 1)
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA})
REMEDY = "copy or record it again, or recover what is left with `sqlite3 bag.db3 .recover`"


class Rosbag2File:
    """An open SQLite file with the tables of rosbag2; use `opened`.

    Args:
        path: The file, for errors.
        connection: To it.
        size: Its bytes.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, size: int) -> None:
        self.path = path
        self._connection = connection
        self._size = size

    @classmethod
    @contextmanager
    def opened(
        cls, path: Path, limits: Limits, *, is_checked: bool = False, shown: Path | None = None
    ) -> Iterator[Rosbag2File]:
        """Open a file, check it, and close it at the end; whatever SQLite raises meanwhile becomes our error.

        Args:
            path: The file.
            limits: What it may make SQLite allocate.
            is_checked: Whether it was checked before; the check reads all of it.
            shown: The file that it was made from, for errors; None: it is itself.

        Raises:
            DamagedRecordingError: It is no intact database with the tables of rosbag2.
            RecordingLimitError: A value in it is longer than the file or the limits.
        """
        connection: sqlite3.Connection | None = None
        try:
            with open_binary(path) as opened:  # SQLite does not say why it cannot open one
                size = opened.seek(0, 2)
            for suffix in ("-wal", "-journal"):
                beside = path.with_name(path.name + suffix)
                if beside.exists() and beside.stat().st_size:
                    raise _unfinished(path, beside)
            connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
            file = cls(path if shown is None else shown, connection, size)
            file.restrict(limits)
            if not is_checked:
                file.check()
            yield file
        except (sqlite3.Error, OSError, MemoryError, UnicodeError) as error:  # SQLite quotes damaged names
            raise _translated(path if shown is None else shown, error) from error
        finally:
            if connection is not None:
                connection.close()

    def restrict(self, limits: Limits) -> None:
        """Let SQLite do nothing but read, for as long as a file of this size can need."""
        connection = self._connection
        longest = max(MAX_SQL_BYTES, min(self._size, limits.block_bytes))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(longest, 2**31 - 1))
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        looks_left = (FREE_STEPS + STEPS_A_BYTE * self._size) // STEPS_BETWEEN_LOOKS

        def is_too_long() -> int:
            nonlocal looks_left
            looks_left -= 1
            return int(looks_left < 0)

        connection.set_progress_handler(is_too_long, STEPS_BETWEEN_LOOKS)
        connection.execute("PRAGMA trusted_schema=OFF").close()
        connection.execute("PRAGMA ignore_check_constraints=ON").close()
        connection.execute("PRAGMA cell_size_check=ON").close()
        connection.set_authorizer(_only_reading)

    def check(self) -> None:
        """See that the pages are intact and the tables are there.

        Raises:
            DamagedRecordingError: They are not.
        """
        for table in ("topics", "messages"):
            if not self._has_table(table):
                remedy = "name a rosbag2 folder, or one of its .db3 files"
                raise DamagedRecordingError(self.path, f"the database has no table {table}", remedy=remedy)
        page_bytes = int(self._rows("PRAGMA page_size", 1)[0][0])
        if self._size % page_bytes:  # SQLite takes what is missing of the last page for zeros
            problem = f"has {self._size} bytes, which is no whole number of pages of {page_bytes}: it was truncated"
            raise DamagedRecordingError(self.path, problem, offset=self._size, remedy=REMEDY)
        verdict = self._rows("PRAGMA quick_check", 1)[0][0]
        if verdict != "ok":
            raise DamagedRecordingError(self.path, f"SQLite finds it damaged ({_one_line(verdict)})", remedy=REMEDY)

    def topics(self) -> dict[int, tuple[str, str, str]]:
        """Name, type and encoding of every topic, by its number.

        Raises:
            DamagedRecordingError: A row that is no topic.
        """
        found: dict[int, tuple[str, str, str]] = {}
        for row in self._rows("SELECT id, name, type, serialization_format FROM topics", MAX_TOPICS):
            if [type(value) for value in row] != [int, str, str, str]:
                raise self.damage(
                    "topics", len(found), f"has the values {_one_line(row)}, not a number and three texts"
                )
            found[row[0]] = row[1:]
        return found

    def definitions(self) -> dict[str, str]:
        """The message definitions that the file carries (since ROS 2 Iron), by type."""
        if not self._has_table("message_definitions"):
            return {}
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        rows = self._rows(query, MAX_TOPICS)
        return {str(name): str(text) for name, encoding, text in rows if encoding == "ros2msg" and text}

    def messages(self, rows: tuple[int, int]) -> Iterator[tuple[int, int, int, bytes]]:
        """Row number, topic, log time and bytes of the messages, in the file's order.

        Args:
            rows: The first number and the last; `EVERY_ROW` for all.

        Raises:
            DamagedRecordingError: A row that is no message, or more rows than the file can hold.
        """
        held = 0
        query = "SELECT rowid, topic_id, timestamp, data FROM messages WHERE rowid BETWEEN ? AND ?"
        for index, (number, *row) in enumerate(self._connection.execute(query, rows)):
            topic, log_ns, data = row
            if not (type(topic) is int and type(log_ns) is int and type(data) is bytes):
                raise self.damage("messages", index, f"has the values {_one_line(row)}, not two numbers and bytes")
            if not 0 <= log_ns <= REACH_NS:
                raise self.damage("messages", index, f"is stamped {log_ns} ns, which is no time before the year 2116")
            held += len(data) + ROW_BYTES
            if held > self._size:
                raise self.damage(
                    "messages", index, f"and those before it hold more than the {self._size} bytes there are"
                )
            yield number, topic, log_ns, data

    def message(self, row_id: int) -> bytes:
        """The bytes of one message, by its row number.

        Raises:
            DamagedRecordingError: It is no longer there.
        """
        rows = self._connection.execute("SELECT data FROM messages WHERE rowid = ?", (row_id,)).fetchmany(1)
        if not rows or type(rows[0][0]) is not bytes:
            raise self.damage("messages", row_id, "changed while it was read")
        return bytes(rows[0][0])

    def damage(self, table: str, index: int, problem: str) -> DamagedRecordingError:
        """The error for a row of a table."""
        return DamagedRecordingError(self.path, f"it {problem}", offset=index, place=f"{table} row", remedy=REMEDY)

    def _has_table(self, name: str) -> bool:
        # A view has no root page of its own, and neither has a virtual table.
        query = f"SELECT type, rootpage FROM sqlite_master WHERE name = '{name}'"
        rows = self._rows(query, 2)
        if [(kind, root > 0) for kind, root in rows if isinstance(root, int)] != [("table", True)]:
            return False
        # A generated column is an expression: it could take any time, whatever the authorizer forbids.
        if any(column[-1] for column in self._rows(f"PRAGMA table_xinfo({name})", MAX_COLUMNS)):
            raise DamagedRecordingError(self.path, f"the table {name} has columns that are computed", remedy=REMEDY)
        return True

    def _rows(self, query: str, at_most: int) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(query).fetchmany(at_most)
        return rows


def _only_reading(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _unfinished(path: Path, beside: Path) -> DamagedRecordingError:
    problem = f"its recording never finished: {beside.name} beside it holds what is not in it yet"
    return DamagedRecordingError(path, problem, remedy=f"open and close it once with `sqlite3 {path.name} .schema`")


def _translated(path: Path, error: Exception) -> DamagedRecordingError | RecordingLimitError:
    text = _one_line(error)
    if isinstance(error, sqlite3.DataError | MemoryError) or "too big" in text:
        problem = f"a value in it is longer than the file or the limit ({text or 'out of memory'})"
        return RecordingLimitError(path, problem, remedy="raise Limits(block_bytes=...) if you trust it")
    if "interrupted" in text:
        problem = "reading it takes more steps than a file of its size can need"
        return RecordingLimitError(path, problem, remedy=REMEDY)
    return DamagedRecordingError(path, f"SQLite cannot read it ({text})", remedy=REMEDY)


def _one_line(value: object) -> str:
    text = str(value) if isinstance(value, str | Exception) else ", ".join(repr(part)[:40] for part in value)  # type: ignore[attr-defined]
    return ascii(text)[1:-1][:200]
