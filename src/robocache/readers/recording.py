"""What every reader gives: a recording of one or more episodes, and the rules they share."""

from __future__ import annotations

import dataclasses
import errno
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, ClosedError, RecordingNotFoundError, UnknownStreamError
from robocache.readers.limits import REACH_NS
from robocache.readers.span import Span
from robocache.readers.stored_points import StoredPoints
from robocache.records import Episode, Frames, Int64, Kind, RecordedStream

_REMEDIES = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.ENOENT: "check where its link leads",
    errno.ELOOP: "check where its link leads",
    errno.EMFILE: "close other files, or allow more with `ulimit -n`",
}


@runtime_checkable
class Recording(Protocol):
    """One file or folder, open for reading. Use it as a context manager, or call `close`."""

    @property
    def path(self) -> str:
        """Where it came from."""
        ...

    @property
    def format(self) -> str:
        """Such as "mcap", "hdf5", "lerobot-v3.0" or "synthetic"."""
        ...

    @property
    def episode_names(self) -> tuple[str, ...]:
        """One name an episode, unique in this recording; a format without episodes has one."""
        ...

    def read_episode(
        self,
        index: int,
        streams: Collection[str] | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Episode:
        """Read one episode, or a part of it, into host memory.

        A stream without a sample in the part is there all the same, with no rows.

        Args:
            index: Which of `episode_names`.
            streams: Names of the streams to read; None reads all.
            start_ns: First moment to read, on each stream's own clock (`RecordedStream.times_ns`); None: from the
                beginning.
            end_ns: First moment not to read any more; None: to the end.

        Raises:
            ArgumentError: An index that the recording does not have, or an `end_ns` before `start_ns`.
            UnknownStreamError: A name that the episode does not have; the message lists those it does.
            DamagedRecordingError: The bytes are not what the format says.
            RecordingLimitError: A declared size exceeds the file or the limits.
        """
        ...

    def close(self) -> None:
        """Release the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class OpenRecording(ABC):
    """The part that readers share: a path, names of episodes, closing, and the checks of `read_episode`."""

    format = ""

    def __init__(self, path: str, episode_names: Iterable[str]) -> None:
        self.path = path
        self.episode_names = tuple(episode_names)
        self._is_closed = False

    def close(self) -> None:
        """Release the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        self._is_closed = True

    def read_episode(
        self,
        index: int,
        streams: Collection[str] | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Episode:
        """Read one episode, or a part of it; see `Recording.read_episode`."""
        self._check_episode(index)
        with refusals_named(Path(self.path)):
            return self._read(index, streams, Span(start_ns, end_ns))

    @abstractmethod
    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """What a format does for `read_episode`: the index is good, and nothing outside of `span` is in the result."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_episode(self, index: int) -> None:
        if self._is_closed:
            raise ClosedError(f"{self.path} is closed; open it again to read from it")
        if not 0 <= index < len(self.episode_names):
            message = f"index must be 0 to {len(self.episode_names) - 1} for {self.path}, got {index}"
            raise ArgumentError(message)


def unreadable(path: Path, error: OSError) -> RecordingNotFoundError:
    """What to raise where the system does not let a file be read."""
    remedy = _REMEDIES.get(error.errno or 0, "check its permissions, and the disk that it is on")
    return RecordingNotFoundError(path, f"cannot be read ({error.strerror or error})", remedy=remedy)


@contextmanager
def refusals_named(path: Path) -> Iterator[None]:
    """Turn what the system refuses inside, such as a look into a folder, into one error that names the file.

    Args:
        path: What to name where the system names nothing.

    Raises:
        RecordingNotFoundError: It refuses.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from error


def open_binary(path: Path) -> BinaryIO:
    """The file, open for reading; whoever asked closes it.

    Raises:
        RecordingNotFoundError: It cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error


def requested_streams(
    path: str,
    requested: Collection[str] | None,
    available: Collection[str],
    skipped: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """The requested names in the file's order; None means all.

    Args:
        path: The recording, for errors.
        requested: What was asked for.
        available: What there is.
        skipped: What there is too and cannot be read, and why; also by topic.

    Raises:
        UnknownStreamError: A name that is not available.
    """
    if requested is None:
        return tuple(available)
    if isinstance(requested, str):
        raise ArgumentError(
            f"streams must be a collection of names, got the string {requested!r}: write [{requested!r}]"
        )
    unknown = [name for name in requested if name not in available]
    if unknown:
        name, listed = unknown[0], ", ".join(available) or "none at all"
        owner, why = name.rpartition(".")[0], ""
        if skipped and (name in skipped or owner in skipped):
            why = f" ({skipped[name]})" if name in skipped else f" ({owner}: {skipped[owner]})"
        raise UnknownStreamError(f"{path} has no stream {name!r}{why}; it has {listed}")
    return tuple(name for name in available if name in requested)


def synthetic_times_ns(count: int, rate_hz: float, rows: range | None = None) -> Int64:
    """T = k / rate, each rounded on its own so that the error never grows.

    Args:
        count: How many rows there are.
        rate_hz: How many a second.
        rows: Whose times are wanted; None: of all.

    Raises:
        ValueError: The last would be beyond `REACH_NS`.
    """
    if count * 1e9 / rate_hz > REACH_NS:
        raise ValueError(f"its {count} rows at {rate_hz:g} Hz would last more than 146 years")
    wanted = np.arange(count) if rows is None else np.arange(rows.start, rows.stop)
    return np.asarray(np.rint(wanted * 1e9 / rate_hz), dtype=np.int64)


def ascending_stream(
    name: str,
    values: npt.NDArray[Any],
    clocks: Mapping[str, Int64],
    clock: str,
    *,
    columns: tuple[str, ...] = (),
    kind: Kind = "vector",
) -> RecordedStream:
    """A stream whose rows, and every clock with them, are ordered by `clock`; equal stamps keep the file's order."""
    times_ns = clocks[clock]
    if len(times_ns) > 1 and bool(np.any(times_ns[1:] < times_ns[:-1])):
        order = np.argsort(times_ns, kind="stable")
        values = values[order]
        clocks = {other: stamps[order] for other, stamps in clocks.items()}
    return RecordedStream(name, values, clocks[clock], dict(clocks), clock, columns, kind)


def image_stream(
    name: str, frames: Frames, clocks: Mapping[str, Int64], clock: str, rows: range | None = None
) -> RecordedStream:
    """A stream of images ordered by `clock`: of every clock, row k is that of image `rows[k]`; None: of image k."""
    wanted = range(len(frames)) if rows is None else rows
    numbers = np.arange(wanted.start, wanted.stop, dtype=np.int64)[:, None]
    ordered = ascending_stream(name, numbers, clocks, clock, columns=("frame",), kind="image")
    return dataclasses.replace(ordered, frames=frames)


def stored_cloud(
    name: str, points: StoredPoints, clocks: Mapping[str, Int64], clock: str, *, columns: tuple[str, ...]
) -> RecordedStream:
    """A stream of scans ordered by `clock`; the points stay in their file."""
    times_ns = clocks[clock]
    if len(times_ns) > 1 and bool(np.any(times_ns[1:] < times_ns[:-1])):
        order = np.argsort(times_ns, kind="stable")
        points = points.ordered(order)
        clocks = {other: stamps[order] for other, stamps in clocks.items()}
    values = cast("npt.NDArray[np.generic]", points)  # numpy takes it for one
    return RecordedStream(name, values, clocks[clock], dict(clocks), clock, columns, "points", points.offsets)
