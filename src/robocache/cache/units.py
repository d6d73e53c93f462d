"""What is to be built: a recipe that any process can follow, and one unit of work for each episode, with its key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from robocache.align import Align, align_episode, plan_alignment
from robocache.align.absent import stand_in
from robocache.cache.aligned import ALIGNED_VERSION, episode_contents
from robocache.cache.description import described
from robocache.cache.key import ShardKey, shard_key
from robocache.cache.layout import Contents, Pieces
from robocache.errors import ArgumentError, BuildError, CacheError, RoboCacheError
from robocache.ops.backends import choose_backend
from robocache.readers import Recording, open_recordings
from robocache.readers.sources import recording_sources
from robocache.records import Episode, RecordedStream
from robocache.version import __version__

Source = str | Path | Sequence[str | Path] | Callable[[], Recording]


@dataclass(frozen=True)
class Unit:
    """One episode, which becomes one shard.

    Args:
        index: Which of the recording's `episode_names`.
        name: The episode's.
        key: Of its shard.
        files: What it is read from.
    """

    index: int
    name: str
    key: ShardKey
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Recipe:
    """How shards are made, for any process.

    Args:
        source: As for `open_source`.
        spec: How episodes are aligned.
        rate_hz: As for `open_recording`.
    """

    source: Source
    spec: Align
    rate_hz: float | None = None

    def open(self) -> Recording:
        """The recording, to be closed."""
        return open_source(self.source, self.rate_hz)

    def document(self) -> dict[str, object]:
        """Everything that decides the bytes of a shard, apart from what it is read from."""
        # Backends agree to one rounding, not to the bit; processors of one backend do.
        versions = {"aligned": ALIGNED_VERSION, "robocache": __version__, "backend": choose_backend(None, "cpu")}
        return {"spec": described(self.spec), "rate_hz": self.rate_hz, "versions": versions}

    def units(self, recording: Recording) -> tuple[Unit, ...]:
        """One unit an episode. The files are hashed, each once; those that are remembered are not read.

        Args:
            recording: Open.

        Raises:
            RecordingError: A file cannot be read.
        """
        document = self.document()
        named = zip(recording.episode_names, recording_sources(recording), strict=True)
        return tuple(
            Unit(
                index, name, shard_key(made.files, document | {"place": dict(made.place)}, ALIGNED_VERSION), made.files
            )
            for index, (name, made) in enumerate(named)
        )

    def contents(self, recording: Recording, unit: Unit) -> Contents:
        """Read and align one episode; its images are decoded while they are written.

        Args:
            recording: Open, until all is written.
            unit: Which episode.

        Raises:
            BuildError: That cannot be done, now or while it is written; names the recording and the episode.
        """

        def named(pieces: Pieces) -> Iterator[NDArray[Any]]:
            try:
                yield from pieces.make()
            except RoboCacheError as error:
                raise _cannot_be_built(recording, unit, error) from error

        try:
            episode = recording.read_episode(unit.index, self._streams())
            aligned = align_episode(episode, self.spec, device="cpu", like=self._like(recording, episode))
            found = episode_contents(aligned)
        except CacheError:
            raise
        except RoboCacheError as error:
            raise _cannot_be_built(recording, unit, error) from error
        arrays = {
            name: replace(array, make=partial(named, array)) if isinstance(array, Pieces) else array
            for name, array in found.arrays.items()
        }
        return Contents(arrays, found.description)

    def frames(self, recording: Recording, unit: Unit) -> int:
        """How many frames an episode will have; its images are not decoded.

        Args:
            recording: Open.
            unit: Which episode.

        Raises:
            BuildError: It cannot be aligned; names the recording and the episode.
        """
        try:
            episode = recording.read_episode(unit.index, self._streams())
            return len(plan_alignment(episode, self.spec, like=self._like(recording, episode)).times_ns)
        except RoboCacheError as error:
            raise _cannot_be_built(recording, unit, error) from error

    def _streams(self) -> Collection[str] | None:
        streams = self.spec.streams
        if streams is None or self._optional():
            return None  # a reader refuses names that the episode lacks
        return tuple(dict.fromkeys(source.source for source in streams.values()))

    def _optional(self) -> set[str]:
        return {source.source for source in (self.spec.streams or {}).values() if source.optional}

    def _like(self, recording: Recording, episode: Episode) -> dict[str, RecordedStream]:
        """What the optional streams look like that an episode lacks: as in the first episode that has them."""
        like: dict[str, RecordedStream] = {}
        absent = self._optional() - set(episode.streams)
        for index in range(len(recording.episode_names) if absent else 0):
            if absent <= like.keys():
                break
            streams = recording.read_episode(index).streams
            like |= {name: stand_in(streams[name], at_ns=0) for name in absent & set(streams) if name not in like}
        return like


def open_source(source: Source, rate_hz: float | None = None) -> Recording:
    """Open whatever a user may name as a source of episodes.

    Args:
        source: What `open_recordings` takes, or a function without arguments that gives a `Recording`; other processes
            import it by its name.
        rate_hz: As for `open_recording`.

    Raises:
        RecordingError: It cannot be opened.
        ArgumentError: It is neither.
    """
    if isinstance(source, str | Path | Sequence):
        return open_recordings(source, rate_hz=rate_hz)
    if not callable(source):
        raise ArgumentError(
            f"source must be a path, a pattern, a list of them, or a function that opens a recording, got {source!r}"
        )
    return source()


def runs(units: Sequence[Unit], workers: int) -> list[list[Unit]]:
    """The units in runs that one worker takes one after the other, in the order of the recording.

    A run is made of neighbours from the same files, so that what a file holds is decoded once and in order; where there
    are fewer files than workers, the longest runs are halved.

    Args:
        units: In the order of the recording.
        workers: How many runs are wanted, where there are so many units.
    """
    made: list[list[Unit]] = []
    for unit in units:
        if made and made[-1][-1].files == unit.files and made[-1][-1].index + 1 == unit.index:
            made[-1].append(unit)
        else:
            made.append([unit])
    while len(made) < min(workers, len(units)):
        longest = max(range(len(made)), key=lambda number: len(made[number]))
        whole = made[longest]
        made[longest : longest + 1] = [whole[: len(whole) // 2], whole[len(whole) // 2 :]]
    return made


def _cannot_be_built(recording: Recording, unit: Unit, error: RoboCacheError) -> BuildError:
    return BuildError(f"{recording.path}, {unit.name}: cannot be built: {error}")
