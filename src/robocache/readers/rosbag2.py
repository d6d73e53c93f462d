"""rosbag2 folders with SQLite files, without a ROS installation.

Messages are decoded by what reads MCAP files. A file says what its messages look like only since ROS 2 Iron; for older
ones the definitions come from the rosbags library (the `rosbag` extra).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robocache.errors import (
    BackendUnavailableError,
    DamagedRecordingError,
    RecordingLimitError,
    UnknownFormatError,
)
from robocache.readers.limits import Limits
from robocache.readers.messages import SEGMENT_BYTES, MessageRecording, Segment, Unit
from robocache.readers.recording import unreadable
from robocache.readers.rosbag2_compression import ZSTD_MAGIC, plain_file, plain_message
from robocache.readers.rosbag2_file import EVERY_ROW, Rosbag2File
from robocache.readers.topics import AnyTopic, Topics
from robocache.records import Int64

METADATA = "metadata.yaml"
MAX_METADATA_BYTES = 4 * 2**20
REMAKE = "remake it with `ros2 bag reindex`"
_FILES = re.compile(r"^ *relative_file_paths:[ \t]*\n((?: *- [^\n]*\n?)+)", re.MULTILINE)
_COMPRESSION_FORMAT = re.compile(r"^ *compression_format: *[\"']?(\w+)", re.MULTILINE)
_COMPRESSION = re.compile(r"^ *compression_mode: *[\"']?(\w+)", re.MULTILINE)


class Rosbag2Recording(MessageRecording):
    """A rosbag2 folder with SQLite files, or one such file, as a `Recording` of one episode.

    A message becomes the same rows and streams as in an MCAP file; the files of a folder are one recording that was
    split. Files that were compressed whole are decompressed into a temporary folder (TMPDIR says where) until the
    recording is closed; compressed messages one by one. The clocks are "header" (where every message has a stamp; then
    it is the one used) and "log", the time in the table. Topics that cannot become numbers are listed, with the reason,
    in the episode's attributes under "skipped".

    Args:
        path: The folder, with its metadata.yaml, or a file.
        limits: What it may make the reader allocate.
    """

    format = "rosbag2"

    def __init__(self, path: Path, *, limits: Limits) -> None:
        super().__init__(str(path), (path.stem if path.is_file() else path.absolute().name,))
        self._limits = limits
        self._plain_files: TemporaryDirectory[str] | None = None
        self._listed = [path] if path.is_file() else []
        self._files = self._listed if path.is_file() else self._plain_ones(path)

    def close(self) -> None:
        """Remove what was decompressed. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        if self._plain_files is not None:
            self._plain_files.cleanup()

    def _plain_ones(self, folder: Path) -> list[Path]:
        """The files to be read; beside them, in `_listed`, those of the folder, which errors name."""
        if compression_mode(folder) != "FILE":  # a message says itself whether it is compressed
            self._listed = listed_files(folder, ".db3")
            return self._listed
        self._listed = listed_files(folder, ".db3.zstd")
        self._plain_files = TemporaryDirectory(prefix="robocache-bag-")
        try:
            return [plain_file(file, Path(self._plain_files.name), self._limits) for file in self._listed]
        except BaseException:
            self._plain_files.cleanup()
            raise

    def _opened(self, number: int, *, is_checked: bool = False) -> AbstractContextManager[Rosbag2File]:
        path, shown = self._files[number], self._listed[number]
        return Rosbag2File.opened(path, self._limits, is_checked=is_checked, shown=shown)

    def _plain(self, path: Path, row: int, data: bytes) -> bytes:
        return plain_message(path, row, data, self._limits) if data.startswith(ZSTD_MAGIC) else data

    def _topics(self, streams: Collection[str] | None) -> Topics:
        return Topics(self.path, self._limits, streams)

    def _pass(self, topics: Topics) -> Iterator[Unit]:
        for number in range(len(self._files)):
            with self._opened(number) as file:
                for first, last in self._read_file(file, number, topics, EVERY_ROW):
                    yield (number, first), (number, last)

    def _again(self, topics: Topics, segment: Segment) -> Iterator[object]:
        (first_file, first_row), (last_file, last_row) = segment.first, segment.last
        for number in range(first_file, last_file + 1):
            rows = (
                first_row if number == first_file else EVERY_ROW[0],
                last_row if number == last_file else EVERY_ROW[1],
            )
            with self._opened(number, is_checked=True) as file:
                yield from self._read_file(file, number, topics, rows)

    def _payloads(self, places: Int64) -> Iterator[bytes]:
        self._check_episode(0)
        for number in np.unique(places[:, 0]).tolist():  # numbers ascend, and with them the files
            with self._opened(number, is_checked=True) as file:
                for row_id in places[places[:, 0] == number, 1].tolist():
                    yield self._plain(file.path, row_id, file.message(row_id))

    def _attributes(self) -> dict[str, Any]:
        return {"profile": "ros2"}

    def _read_file(
        self, file: Rosbag2File, file_number: int, topics: Topics, rows: tuple[int, int]
    ) -> Iterator[tuple[int, int]]:
        """Yields the first and the last number of rows that were given to topics."""
        definitions = file.definitions()
        destinations: dict[int, AnyTopic | None] = {}
        for number, (name, type_name, encoding) in file.topics().items():
            destinations[number] = None
            if encoding != "cdr":
                topics.skipped[name] = f"{encoding or 'unknown'} messages"
            elif topics.is_wanted(name, type_name):
                text = definitions.get(type_name) or _known_definition(self.path, type_name)
                destinations[number] = topics.topic(name, type_name, text.encode())
        first, last, unyielded_bytes = rows[0], rows[0] - 1, 0
        for index, (row, number, log_ns, data) in enumerate(file.messages(rows)):
            if number not in destinations:
                raise file.damage("messages", index, f"is of topic {number}, which the table of topics does not have")
            topic = destinations[number]
            if topic is not None:
                topics.add(topic, self._plain(file.path, row, data), log_ns, place=(file_number, row))
            last = row
            unyielded_bytes += len(data)
            if unyielded_bytes > SEGMENT_BYTES:
                yield first, last
                first, unyielded_bytes = last + 1, 0
        yield first, last


def compression_mode(folder: Path) -> str:
    """How a folder's metadata.yaml says that it is compressed: "NONE", "FILE" or "MESSAGE".

    Args:
        folder: Of the bag.

    Raises:
        RecordingLimitError: The metadata is larger than any.
        UnknownFormatError: In another way, or not with zstd.
    """
    text, _ = _look_into(folder, ())
    mode = _COMPRESSION.search(text)
    if mode is None or mode[1].upper() in ("NONE", "STORAGE"):
        return "NONE"
    used = _COMPRESSION_FORMAT.search(text)
    if mode[1].upper() not in ("FILE", "MESSAGE") or used is None or used[1].lower() != "zstd":
        how = f"compressed by {mode[1][:20].lower()} with {'nothing' if used is None else used[1][:20].lower()}"
        remedy = "write it without compression, or with zstd, with `ros2 bag convert`"
        raise UnknownFormatError(folder / METADATA, f"says that the bag is {how}", remedy=remedy)
    return mode[1].upper()


def listed_files(folder: Path, suffix: str) -> list[Path]:
    """The files that a folder's metadata.yaml lists, all of them there, and no others beside them.

    Args:
        folder: Of the bag.
        suffix: What their names end in.

    Raises:
        DamagedRecordingError: Files are missing, or not listed.
        RecordingLimitError: The metadata is larger than any.
    """
    path = folder / METADATA
    text, there = _look_into(folder, (suffix,))
    found = _FILES.search(text)
    lines = [] if found is None else found[1].splitlines()
    # Early versions wrote the folder before the name; the files lie in the folder whatever a path says.
    names = [line.strip().removeprefix("- ").strip("\"' ").rpartition("/")[2] for line in lines]
    missing, unlisted = [name for name in names if name not in there], sorted(there - set(names))
    problem = ""
    if missing:
        problem = f"lists {ascii(missing[0])[:80]}, which is not there"
    elif unlisted:
        problem = f"does not list {ascii(unlisted[0])[:80]}, which is there"
    elif not names or len(set(names)) != len(names):
        problem = "does not list its files, once each"
    if problem:
        raise DamagedRecordingError(path, problem, remedy=f"{REMAKE}, or name one {suffix} file")
    return [folder / name for name in names]


def _look_into(folder: Path, suffixes: tuple[str, ...]) -> tuple[str, set[str]]:
    """The text of a folder's metadata.yaml, and the names of its files that end so."""
    path = folder / METADATA
    try:
        size = path.stat().st_size
        if size > MAX_METADATA_BYTES:
            problem = f"has {size} bytes, and {MAX_METADATA_BYTES} are allowed"
            raise RecordingLimitError(path, problem, remedy=REMAKE)
        there = {entry.name for entry in folder.iterdir() if entry.name.endswith(suffixes) and entry.is_file()}
        return path.read_text("utf-8"), there
    except UnicodeDecodeError as error:
        raise DamagedRecordingError(path, f"is no text ({error.reason})", offset=error.start, remedy=REMAKE) from error
    except OSError as error:
        raise unreadable(path, error) from error


@cache
def _known_definition(path: str, type_name: str) -> str:
    """What a message of ROS 2 Humble, or older, looks like; later files carry their definitions."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ModuleNotFoundError as error:
        problem = f"{path} does not say what its messages look like, and rosbags, which knows, is not installed"
        raise BackendUnavailableError(f'{problem}; pip install "robocache[rosbag]"') from error
    parts = type_name.split("/")
    full_name = "/".join((parts[0], "msg", parts[-1]))
    text: str = get_typestore(Stores.ROS2_HUMBLE).generate_msgdef(full_name, ros_version=2)[0]
    return text
