"""What an episode is made from: the files whose bytes count, and its place in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from robocache.errors import RecordingError
from robocache.readers.recording import Recording, refusals_named


@dataclass(frozen=True)
class EpisodeSources:
    """What one episode is read from.

    Args:
        files: Every file whose bytes can change the episode, in a fixed order.
        place: What else decides it, as JSON can say it: its number in the file, a rate that stands elsewhere. It says
            nothing of other episodes, so that the result of this one outlives their coming and going.
    """

    files: tuple[Path, ...]
    place: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class NamesItsSources(Protocol):
    """A recording that knows which of its files an episode needs; others are taken to need all they have."""

    def episode_sources(self, index: int) -> EpisodeSources:
        """What one episode is made from.

        Args:
            index: Which of `episode_names`.
        """
        ...


def episode_sources(recording: Recording, index: int) -> EpisodeSources:
    """What one episode of a recording is made from.

    Args:
        recording: Open.
        index: Which of `episode_names`.

    Raises:
        RecordingError: It lies in no file, and does not say itself what it is made from.
    """
    with refusals_named(Path(recording.path)):
        return _episode_sources(recording, index)


def _episode_sources(recording: Recording, index: int) -> EpisodeSources:
    if isinstance(recording, NamesItsSources):
        return recording.episode_sources(index)
    path = Path(recording.path)
    if path.is_file():
        return EpisodeSources((path,), {"episode": index})
    if not path.is_dir():
        problem = "is neither a file nor a folder, so that nothing can be named after its bytes"
        raise RecordingError(path, problem, remedy="give its reader a method episode_sources")
    files = tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    names = [file.relative_to(path).as_posix() for file in files]
    return EpisodeSources(files, {"episode": index, "files": names})


def recording_sources(recording: Recording) -> list[EpisodeSources]:
    """What each episode of a recording is made from; the errors are those of `episode_sources`."""
    return [episode_sources(recording, index) for index in range(len(recording.episode_names))]
