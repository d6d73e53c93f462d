"""Many recordings as one: a folder, a pattern or a list, opened one at a time."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, DamagedRecordingError, RecordingNotFoundError
from robocache.readers.limits import Limits
from robocache.readers.recognise import SUFFIXES, open_recording
from robocache.readers.recording import OpenRecording, Recording, refusals_named
from robocache.readers.sources import EpisodeSources, episode_sources
from robocache.readers.span import Span
from robocache.readers.stored_points import StoredPoints
from robocache.readers.turns import Turns
from robocache.records import Episode, Frames, Int64

MAX_OPEN = 8
_WILD = re.compile(r"[*?[]")
_Part = TypeVar("_Part")
PathLike = str | os.PathLike[str]


class SeveralRecordings(OpenRecording):
    """Several recordings as one `Recording`; at most eight of them are open at a time.

    An episode is called "<file>/<episode>", where the file's name is its stem, or as much of its path as tells it from
    the others. Images can be read until all is closed: the file of theirs is opened again where others took its place.
    With more files than may be open, threads read one after the other.

    Args:
        path: What was asked for.
        files: The recordings, in the order of their episodes.
        rate_hz: Of those without times.
        limits: What one file may make the reader allocate.
    """

    def __init__(self, path: str, files: Collection[Path], *, rate_hz: float | None, limits: Limits | None) -> None:
        self._rate_hz, self._limits = rate_hz, limits
        self._open: OrderedDict[Path, Recording] = OrderedDict()
        self._are_many = len(files) > MAX_OPEN
        self._turns = Turns()
        self._places: list[tuple[Path, int]] = []
        names, formats = [], set()
        try:
            for file, name in _names(files).items():
                recording = self._opened(file)
                formats.add(recording.format)
                for index, episode in enumerate(recording.episode_names):
                    names.append(f"{name}/{episode}")
                    self._places.append((file, index))
        except BaseException:
            self._close_all()
            raise
        super().__init__(path, names)
        self.format = ", ".join(sorted(formats))

    def close(self) -> None:
        """Close the files. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._close_all()

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        with self._recording(index) as (recording, number):
            episode = recording.read_episode(number, streams, start_ns=span.start_ns, end_ns=span.end_ns)
        made = dict(episode.streams)
        for name, stream in made.items():
            if stream.frames is not None:
                made[name] = replace(stream, frames=_Frames(self, index, name, recording, stream.frames))
            elif isinstance(stored := cast("object", stream.values), StoredPoints):
                again = replace(stored, fetch=_Points(self, index, name, recording, stored))
                made[name] = replace(stream, values=cast("npt.NDArray[np.generic]", again))
        return replace(episode, name=self.episode_names[index], streams=made)

    def episode_sources(self, index: int) -> EpisodeSources:
        """Those of the recording that has the episode; see `NamesItsSources`."""
        with self._recording(index) as (recording, number):
            return episode_sources(recording, number)

    @contextmanager
    def _recording(self, index: int) -> Iterator[tuple[Recording, int]]:
        """The recording of an episode, open, and the episode's number there."""
        self._check_episode(index)
        file, number = self._places[index]
        # Nobody may close a file in which another thread reads.
        with self._turns.turn() if self._are_many else nullcontext():
            yield self._opened(file), number

    def _opened(self, file: Path) -> Recording:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        while len(self._open) >= MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        self._open[file] = open_recording(file, rate_hz=self._rate_hz, limits=self._limits)
        return self._open[file]

    def _close_all(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class _Lasting(Generic[_Part]):
    """What reads one stream of a recording that may have been closed meanwhile: it is opened again then."""

    def __init__(self, recordings: SeveralRecordings, index: int, name: str, recording: Recording, part: _Part) -> None:
        self._recordings, self._index, self._name = recordings, index, name
        self._recording, self._part = recording, part

    @contextmanager
    def _reading(self) -> Iterator[_Part]:
        with self._recordings._recording(self._index) as (recording, number):  # noqa: SLF001 -- one thing in two classes
            if recording is not self._recording:
                stream = recording.read_episode(number, [self._name]).streams[self._name]
                found: object = stream.values if stream.frames is None else stream.frames
                if not isinstance(found, type(self._part)) or not self._fits(found):
                    raise DamagedRecordingError(recording.path, "changed while it was read", remedy="open it again")
                self._recording, self._part = recording, found
            yield self._part

    def _fits(self, found: _Part) -> bool:
        """Whether what was opened again may be what was there before."""
        del found
        return True


class _Frames(_Lasting[Frames]):
    """Images of one stream of several recordings; see `Frames`."""

    def __len__(self) -> int:
        return len(self._part)

    @property
    def shape(self) -> tuple[int, int, int]:
        with self._reading() as frames:
            return frames.shape

    def read(self, numbers: Int64, *, size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
        with self._reading() as frames:
            return frames.read(numbers, size=size)

    def _fits(self, found: Frames) -> bool:
        return len(found) == len(self._part)


class _Points(_Lasting[StoredPoints]):
    """Scans of one stream of several recordings, for a `StoredPoints`."""

    def __call__(self, numbers: Int64) -> Iterator[npt.NDArray[np.generic]]:
        with self._reading() as stored:
            yield from stored.fetch(numbers)


def open_recordings(
    path: PathLike | Iterable[PathLike], *, rate_hz: float | None = None, limits: Limits | None = None
) -> Recording:
    """Open one recording, or several as one.

    Args:
        path: What `open_recording` takes; a folder with several recordings in it, also below other folders (sorted, the
            numbers in names as numbers); a pattern ("runs/*.mcap", "runs/**/*.bag"); or a list of all these, in its
            own order.
        rate_hz: Rate of those without times; see `open_recording`.
        limits: What one file may make the reader allocate.

    Raises:
        ArgumentError: An empty list, or the same recording twice.
        RecordingNotFoundError: There is nothing, or nothing that a pattern fits.
        RecordingError: One of them cannot be read; the message names it.

    Example:
        >>> with open_recordings("runs/*.mcap") as recording:
        ...     episode = recording.read_episode(0)
    """
    if isinstance(path, str | os.PathLike):
        found = _found(Path(path))
        if found == [Path(path)] or (len(found) == 1 and Path(path).is_dir()):
            return open_recording(found[0], rate_hz=rate_hz, limits=limits)
        name = os.fspath(path)
    else:
        wanted = [Path(part) for part in path]
        if not wanted:
            raise ArgumentError("path must name at least one recording, got an empty list")
        found = [file for part in wanted for file in _found(part)]
        name = ", ".join(map(str, wanted[:3])) + (", …" if len(wanted) > 3 else "")
    twice = [file for file, count in Counter(map(os.path.realpath, found)).items() if count > 1]
    if twice:
        raise ArgumentError(f"path names {twice[0]} twice")
    return SeveralRecordings(name, found, rate_hz=rate_hz, limits=limits)


def _found(path: Path) -> list[Path]:
    """The recordings that a path means; the path itself where that is one, or nothing."""
    if _WILD.search(str(path)) and not os.path.lexists(path):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]  # noqa: PTH207 -- absolute patterns
        if not matches:
            raise RecordingNotFoundError(path, "nothing fits this pattern", remedy="check it, and the folder it is for")
        files = [match for match in matches if not match.is_dir() or _is_recording(match)]
        return sorted(files or matches, key=_natural)
    with refusals_named(path):
        if not path.is_dir() or _is_recording(path):
            return [path]
        return sorted(_below(path), key=_natural) or [path]


def _below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise error  # recordings in there would be left out, and nobody would know

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        inner = [Path(parent, name) for name in folders]
        whole = [entry for entry in inner if _is_recording(entry)]
        folders[:] = [entry.name for entry in inner if entry not in whole]
        found += whole
        found += [Path(parent, name) for name in names if name.endswith(SUFFIXES)]
    return found


def _is_recording(folder: Path) -> bool:
    """Whether a folder is one recording, as `open_recording` sees it, whatever else it may hold."""
    try:
        if (folder / "meta" / "info.json").is_file() or (folder / "meta" / "episode_ends").is_dir():
            return True
        names = os.listdir(folder)  # noqa: PTH208 -- names are enough
    except OSError:
        return False
    is_bag = "metadata.yaml" in names and any(name.endswith((".db3", ".db3.zstd", ".mcap")) for name in names)
    return is_bag or (any(".tfrecord" in name for name in names) and not any(name.endswith(SUFFIXES) for name in names))


def _natural(path: Path) -> tuple[object, ...]:
    """For sorting: "run2" before "run10"."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((int(part), part) if index % 2 else part for index, part in enumerate(parts))


def _names(files: Collection[Path]) -> Mapping[Path, str]:
    """A unique name each: the stem, or with as many folders before it as it takes."""
    stems = {file: (file.name if file.is_dir() else _stem(file.name)) for file in files}
    if len(set(stems.values())) == len(stems):
        return stems
    for depth in range(1, max(len(file.parts) for file in files)):
        names = {file: "/".join((*file.parts[-depth - 1 : -1], stems[file])) for file in files}
        if len(set(names.values())) == len(names):
            return names
    return {file: str(file) for file in files}


def _stem(name: str) -> str:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return Path(name).stem
