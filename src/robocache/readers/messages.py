"""Recordings of ROS messages: one episode, made in one pass, or from those parts of the file that a span needs.

What an index says of times is the log's clock, and not believed here; streams mostly use the header's. So the first
time that a part is asked for, one pass over the file notes where each segment lies and the first and last stamps in it
by both clocks, and keeps none of its values. Which clock a stream uses, and its name, then come from the whole file, as
without a span; only the segments that a span touches are read, and what is read is cut to the span exactly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from robocache.readers.recording import OpenRecording, requested_streams
from robocache.readers.span import Span
from robocache.readers.topics import Reach, Topics
from robocache.readers.turns import Turns
from robocache.records import Episode, Int64

SEGMENT_BYTES = 2**20  # of messages asked for; a unit of the file may be larger
MAX_SURVEYS = 8
Place = tuple[int, int]  # a file and a byte or row in it, or whatever else ascends along a recording

Unit = tuple[Place, Place]  # where it begins, and where the last of it is


@dataclass(frozen=True)
class Segment:
    """Units of a recording, one after the other.

    Args:
        first: Where the first of them is.
        last: Where the last of them is.
        reach: The first and last stamps of the messages in them.
    """

    first: Place
    last: Place
    reach: Reach


@dataclass
class Survey:
    """What one pass over a recording has noted.

    Args:
        topics: Without messages.
        segments: Those with messages that were asked for.
    """

    topics: Topics
    segments: list[Segment] = field(default_factory=list)

    def touched(self, span: Span) -> list[Segment]:
        """The segments that may hold a sample inside."""
        clocks = self.topics.clocks_used()
        return [segment for segment in self.segments if any(span.touches(*segment.reach[clock]) for clock in clocks)]


class MessageRecording(OpenRecording):
    """A recording of one episode, whose topics become streams in one pass."""

    def __init__(self, path: str, episode_names: tuple[str, ...]) -> None:
        super().__init__(path, episode_names)
        self._surveys: dict[frozenset[str] | None, Survey] = {}
        self._turns = Turns()

    def close(self) -> None:
        """Release what was noted. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._surveys.clear()

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read the file in one pass, or the segments that a span touches; one thread after the other."""
        del index  # a file is one episode
        with self._turns.turn():  # a pass has one position in the file
            return self._made(streams, span)

    def _made(self, streams: Collection[str] | None, span: Span) -> Episode:
        topics = self._whole(streams) if span.is_everything else self._read_part(streams, span)
        found = topics.streams(self._payloads)
        if streams is not None and any(name not in found for name in streams):
            of_all = self._survey(None).topics
            requested_streams(self.path, streams, of_all.streams(self._payloads), of_all.skipped)
        names = requested_streams(self.path, streams, found)
        attributes = {**self._attributes(), "skipped": topics.skipped}
        made = {name: span.cut(found[name]) for name in names}
        return Episode(self.episode_names[0], made, self.path, attributes)

    def _whole(self, streams: Collection[str] | None) -> Topics:
        topics = self._topics(streams)
        for _ in self._pass(topics):
            topics.check_held()
        return topics

    def _read_part(self, streams: Collection[str] | None, span: Span) -> Topics:
        survey = self._survey(streams)
        topics = survey.topics.emptied()
        for segment in survey.touched(span):
            for _ in self._again(topics, segment):
                topics.check_held()
        return topics

    def _survey(self, streams: Collection[str] | None) -> Survey:
        key = None if streams is None else frozenset(streams)
        if key not in self._surveys:
            while len(self._surveys) >= MAX_SURVEYS:
                del self._surveys[next(iter(self._surveys))]
            self._surveys[key] = self._made_survey(streams)
        return self._surveys[key]

    def _made_survey(self, streams: Collection[str] | None) -> Survey:
        survey = Survey(self._topics(streams))
        first: Place | None = None
        last: Place = (0, 0)
        for unit_first, last in self._pass(survey.topics):
            survey.topics.check_held()
            first = unit_first if first is None else first
            if survey.topics.held_bytes >= SEGMENT_BYTES:
                survey.segments.append(Segment(first, last, survey.topics.forget()))
                first = None
        if first is not None:
            survey.segments.append(Segment(first, last, survey.topics.forget()))
        return survey

    @abstractmethod
    def _topics(self, streams: Collection[str] | None) -> Topics:
        """Topics to be filled."""

    @abstractmethod
    def _pass(self, topics: Topics) -> Iterator[Unit]:
        """Give the whole file to topics; after each unit of it, where that was."""

    @abstractmethod
    def _again(self, topics: Topics, segment: Segment) -> Iterator[object]:
        """Give one segment to topics, after a pass over the whole file."""

    @abstractmethod
    def _payloads(self, places: Int64) -> Iterator[bytes]:
        """Messages, read again: of each its place (block and start, as given to `Topics.add`) and its bytes."""

    @abstractmethod
    def _attributes(self) -> dict[str, Any]:
        """What else the file says of itself, after a pass over it."""
