"""What the readers of ROS messages share: topics found on the way through a file, and the episode they become."""

from __future__ import annotations

from array import array
from collections.abc import Collection

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits
from robocache.readers.ros2_layout import LayoutError
from robocache.readers.ros2_recipes import POINT_CLOUD, RECIPES
from robocache.readers.ros2_schema import SchemaError, parse_definitions, short_name
from robocache.readers.ros2_topic import Topic
from robocache.readers.ros_clouds import CloudTopic
from robocache.readers.ros_images import COMPRESSED, IMAGE, ImageTopic
from robocache.readers.ros_places import Payloads, PlacedTopic
from robocache.records import RecordedStream

# First and last stamp of some messages by the log's clock (True) and by that of headers (False).
Reach = dict[bool, tuple[int, int]]
AnyTopic = Topic | PlacedTopic
_KINDS: dict[str, type[PlacedTopic]] = {IMAGE: ImageTopic, COMPRESSED: ImageTopic, POINT_CLOUD: CloudTopic}
_NOWHERE = (2**62, -(2**62))


class Topics:
    """The topics of one pass over a file.

    Args:
        path: The file, for errors.
        limits: How many bytes the topics may hold.
        streams: Names of the streams that were asked for; None means all.
        ros1: Whether definitions and messages are those of ROS 1, not ROS 2 (CDR).
    """

    def __init__(self, path: str, limits: Limits, streams: Collection[str] | None, *, ros1: bool = False) -> None:
        self.path = path
        self.skipped: dict[str, str] = {}
        self._limits = limits
        self._streams = streams
        self._ros1 = ros1
        self._topics: dict[str, AnyTopic] = {}

    def is_wanted(self, name: str, type_name: str) -> bool:
        """Whether a topic's messages become numbers and are asked for; the reason why not goes to `skipped`."""
        if short_name(type_name) not in RECIPES and short_name(type_name) not in _KINDS:
            self.skipped[name] = f"{type_name} is not a message that becomes numbers"
            return False
        return self._streams is None or any(_belongs(stream, name) for stream in self._streams)

    def topic(self, name: str, type_name: str, text: bytes, *, ros1: bool | None = None) -> AnyTopic | None:
        """Where the messages of a topic go; None when they are skipped, or not asked for.

        Args:
            name: The topic.
            type_name: Its message type.
            text: Definition of the type and of every message in it.
            ros1: Whether it, and the messages, are those of ROS 1; None: as said of all topics.

        Raises:
            UnicodeDecodeError: The definition is no text.
        """
        if not self.is_wanted(name, type_name):
            return None
        ros1 = self._ros1 if ros1 is None else ros1
        try:
            definitions = parse_definitions(type_name, text.decode("utf-8"), ros1=ros1)
        except SchemaError as error:
            self.skipped[name] = f"its schema cannot be understood: {error}"
            return None
        kind = _KINDS.get(short_name(type_name), Topic)
        known = self._topics.setdefault(name, kind(name, type_name, definitions, cdr=not ros1))
        if (known.type_name, known.definitions) != (short_name(type_name), definitions):
            self.skipped[name] = f"those of its messages that are {type_name} by another definition than its first ones"
            return None
        return known

    def add(
        self,
        topic: AnyTopic,
        payload: bytes,
        log_ns: int,
        publish_ns: int | None = None,
        *,
        place: tuple[int, int],
    ) -> None:
        """Take one message.

        Args:
            topic: From `topic`.
            payload: Its bytes.
            log_ns: When it was recorded.
            publish_ns: When it was sent; None where the format does not say.
            place: Block, and start in it, where the recording finds the message again.

        Raises:
            DamagedRecordingError: It does not fit its definition.
        """
        try:
            if isinstance(topic, PlacedTopic):
                topic.add(payload, log_ns, publish_ns, place)
            else:
                topic.add(payload, log_ns, publish_ns)
        except LayoutError as error:
            raise self._unfit(topic, error) from error

    def add_many(self, topic: Topic, payloads: list[bytes], stamps: array[int]) -> None:
        """Take messages that follow each other.

        Args:
            topic: From `topic`.
            payloads: Their bytes.
            stamps: Of each in turn when it was recorded, and when it was sent.

        Raises:
            DamagedRecordingError: One does not fit its definition.
        """
        try:
            topic.add_many(payloads, stamps)
        except LayoutError as error:
            raise self._unfit(topic, error) from error

    def emptied(self) -> Topics:
        """The same topics without their messages; see `Topic.emptied`."""
        topics = Topics(self.path, self._limits, self._streams, ros1=self._ros1)
        topics.skipped = dict(self.skipped)
        topics._topics = {name: topic.emptied() for name, topic in self._topics.items()}
        return topics

    def forget(self) -> Reach:
        """Drop the messages; what is said is the first and the last of their stamps, by the log and by headers.

        Raises:
            DamagedRecordingError: A message that does not fit its definition.
        """
        reach: Reach = {True: _NOWHERE, False: _NOWHERE}
        for topic in self._topics.values():
            try:
                for clock, first_ns, last_ns in topic.reach():
                    reach[clock] = (min(reach[clock][0], first_ns), max(reach[clock][1], last_ns))
            except LayoutError as error:
                raise self._unfit(topic, error) from error
            topic.forget()
        return reach

    @property
    def held_bytes(self) -> int:
        """Bytes of the messages taken, decoded or not."""
        return sum(topic.held_bytes for topic in self._topics.values())

    def clocks_used(self) -> set[bool]:
        """Which clocks the streams use: True for the log's, False for that of headers."""
        return {clock for topic in self._topics.values() for clock in topic.clocks_used()}

    def check_held(self) -> None:
        """See that the topics hold no more than the limit.

        Raises:
            RecordingLimitError: They do.
        """
        held = sum(topic.nbytes for topic in self._topics.values())
        if held > self._limits.episode_bytes:
            problem = f"its streams take {held} bytes or more, and the limit is {self._limits.episode_bytes}"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, remedy=remedy)

    def streams(self, payloads: Payloads) -> dict[str, RecordedStream]:
        """The streams of all topics, by name.

        Args:
            payloads: Reads messages of images and clouds again.

        Raises:
            DamagedRecordingError: A message that does not fit its definition.
            RecordingLimitError: They hold more than the limit.
        """
        found: dict[str, RecordedStream] = {}
        for topic in self._topics.values():
            try:
                if isinstance(topic, PlacedTopic):
                    made = topic.streams(self.path, self._limits, payloads)
                else:
                    made = topic.streams()
                found.update((stream.name, stream) for stream in made)
                if topic.why_skipped is not None:
                    self.skipped[topic.name] = topic.why_skipped
            except LayoutError as error:
                raise self._unfit(topic, error) from error
            self.check_held()
        return found

    def _unfit(self, topic: AnyTopic, error: LayoutError) -> DamagedRecordingError:
        problem = f"a {topic.type_name} message {error}"
        remedy = "record it again, or leave the topic out with streams=[...]"
        return DamagedRecordingError(self.path, problem, place=f"topic {topic.name}", remedy=remedy)


def _belongs(stream: str, topic: str) -> bool:
    """Whether a stream's name, such as "/imu.orientation" or "/joints#2.position", is one of a topic's."""
    owner = stream.rpartition(".")[0]
    return owner == topic or (owner.startswith(f"{topic}#") and owner[len(topic) + 1 :].isdecimal())
