"""One topic's messages on their way to streams: collected, decoded many at a time, put together at the end."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from robocache.readers.limits import REACH_NS
from robocache.readers.recording import ascending_stream
from robocache.readers.ros2_layout import Bytes, Layout, LayoutError, find_layout
from robocache.readers.ros2_recipes import CONSTANT, RECIPES, STAMP, Part
from robocache.readers.ros2_schema import Definitions, short_name
from robocache.records import Int64, RecordedStream

PENDING_BYTES = 4 * 2**20
MAX_GROUPS = 16
LOG, HEADER, NUMBER = 0, 2, 3  # columns of stamps; after "log" is "publish", the last counts the topic's messages
Values = npt.NDArray[np.generic]
# The columns of every part; messages that agree on them become the same streams.
Shape = tuple[tuple[str, ...], ...]


@dataclass
class _Group:
    """Messages with the same columns."""

    parts: tuple[Part, ...]
    columns: Shape
    values: list[list[Values]]
    stamps: list[Int64] = field(default_factory=list)
    first_log_ns: int = REACH_NS
    is_stamped: bool = True

    def take_stamps(self, stamps: Int64) -> None:
        self.stamps.append(stamps)
        self.first_log_ns = min(self.first_log_ns, int(stamps[:, LOG].min()))
        self.is_stamped = self.is_stamped and bool(np.all(stamps[:, HEADER] != 0))

    def emptied(self) -> _Group:
        """The same group without messages: its streams have no rows, but their names, columns and clocks."""
        values = [[blocks[0][:0]] for blocks in self.values]
        return replace(self, values=values, stamps=[np.empty((0, 4), np.int64)])

    def in_order(self) -> tuple[Int64, list[Values]]:
        """Stamps and values of the messages as they were recorded: decoded, they are sorted by their sizes."""
        stamps, values = np.concatenate(self.stamps), [np.concatenate(blocks) for blocks in self.values]
        if np.any(stamps[1:, NUMBER] < stamps[:-1, NUMBER]):
            order = np.argsort(stamps[:, NUMBER])
            stamps, values = stamps[order], [block[order] for block in values]
        return stamps, values


class Topic:
    """Collects the messages of one topic.

    Args:
        name: The topic.
        type_name: Its message type, "package/msg/Name" or "package/Name".
        definitions: From `parse_definitions`.
        cdr: Whether messages are CDR (ROS 2), not the packed bytes of ROS 1.
    """

    def __init__(self, name: str, type_name: str, definitions: Definitions, *, cdr: bool = True) -> None:
        self.name = name
        self.type_name = short_name(type_name)
        self.definitions = definitions
        self.cdr = cdr
        self.nbytes = 0
        self.why_skipped: str | None = None
        self._is_published = True
        self._layouts: dict[int, list[tuple[Layout, Int64, Bytes]]] = {}
        self._groups: dict[Shape, _Group] = {}
        self._payloads: list[bytes] = []
        self._stamps = array("q")  # log and publish of each message in turn
        self._pending_bytes = 0
        self._decoded = 0  # messages

    def add(self, payload: bytes, log_ns: int, publish_ns: int | None = None) -> None:
        """Take one message; it is decoded together with others, at the latest by `streams`.

        Args:
            payload: Its bytes.
            log_ns: When it was recorded.
            publish_ns: When it was sent; None where the format does not say, and there is no clock "publish" then.
        """
        self._payloads.append(payload)
        self._is_published = self._is_published and publish_ns is not None
        self._stamps.append(log_ns)
        self._stamps.append(log_ns if publish_ns is None else publish_ns)
        self._pending_bytes += len(payload)
        if self._pending_bytes > PENDING_BYTES:
            self.decode()

    def add_many(self, payloads: list[bytes], stamps: array[int]) -> None:
        """Take messages; the same as `add` of each.

        Args:
            payloads: Their bytes.
            stamps: Of each in turn when it was recorded, and when it was sent.
        """
        self._payloads += payloads
        self._stamps.extend(stamps)
        self._pending_bytes += sum(map(len, payloads))
        if self._pending_bytes > PENDING_BYTES:
            self.decode()

    def decode(self) -> None:
        """Decode what was collected.

        Raises:
            LayoutError: A message that does not fit its definition.
        """
        if self.why_skipped is not None:
            self._payloads = []
        if not self._payloads:
            return
        numbers = np.arange(self._decoded, self._decoded + len(self._payloads))
        stamps = np.column_stack([np.frombuffer(self._stamps, np.int64).reshape(-1, 2), numbers])
        self._decoded += len(numbers)
        sizes = np.fromiter(map(len, self._payloads), np.int64, len(self._payloads))
        for size in np.unique(sizes):
            rows = np.flatnonzero(sizes == size)
            joined = b"".join([self._payloads[row] for row in rows.tolist()])
            messages = np.frombuffer(joined, np.uint8).reshape(len(rows), size)
            self._decode_equal_sizes(messages, stamps[rows])
        self._payloads, self._stamps, self._pending_bytes = [], array("q"), 0

    def _decode_equal_sizes(self, messages: Bytes, stamps: Int64) -> None:
        known = self._layouts.setdefault(messages.shape[1], [])
        left = np.arange(len(messages))
        for layout, fixed, content in known:
            left = self._take_fitting(layout, (fixed, content), messages, stamps, left)
        while len(left):
            example = messages[left[0]]
            constant = CONSTANT.get(self.type_name, ())
            layout = find_layout(self.definitions, self.type_name, example.tobytes(), constant, cdr=self.cdr)
            fixed = np.array(layout.fixed, dtype=np.int64)
            left = self._take_fitting(layout, (fixed, example[fixed]), messages, stamps, left)
            if len(known) < MAX_GROUPS:
                known.append((layout, fixed, example[fixed]))

    def _take_fitting(
        self, layout: Layout, fixed: tuple[Int64, Bytes], messages: Bytes, stamps: Int64, left: Int64
    ) -> Int64:
        """Take those of the messages left that have a layout; say which are left then."""
        places, content = fixed
        fits = (messages[left[:, None], places] == content).all(axis=1)
        if fits.all() and len(left) == len(messages):  # as nearly always: a copy less
            self._take(layout, messages, stamps)
        else:
            self._take(layout, messages[left[fits]], stamps[left[fits]])
        others: Int64 = left[~fits]
        return others

    def _take(self, layout: Layout, messages: Bytes, stamps: Int64) -> None:
        if not len(messages) or self.why_skipped is not None:
            return
        parts = [part for part in RECIPES[self.type_name] if _width(layout, part)]
        if not parts:  # joints before the first of them is known: no numbers, no row
            return
        group = self._group(tuple(parts), tuple(_columns(layout, part) for part in parts))
        if group is None:
            self.why_skipped = f"its messages have more than {MAX_GROUPS} different sets of columns"
            self.forget()
            return
        clocks = with_header(layout, messages, stamps[:, :HEADER])
        group.take_stamps(np.concatenate([clocks, stamps[:, HEADER:]], axis=1))
        for part, collected in zip(parts, group.values, strict=True):
            values = np.concatenate([layout.values(path, messages) for path in part.paths], axis=1)
            collected.append(values)
            self.nbytes += values.nbytes

    def _group(self, parts: tuple[Part, ...], columns: Shape) -> _Group | None:
        """Where messages of these columns go; None where the topic has too many others."""
        # The suffixes belong to the key: a lone velocity is not a lone effort.
        key = (tuple(part.suffix for part in parts), *columns)
        if key not in self._groups:
            if len(self._groups) == MAX_GROUPS:
                return None
            self._groups[key] = _Group(parts, columns, [[] for _ in parts])
        return self._groups[key]

    def emptied(self) -> Topic:
        """The same topic without its messages; whatever it takes next belongs to the streams that those were of."""
        topic = Topic(self.name, self.type_name, self.definitions, cdr=self.cdr)
        topic.why_skipped = self.why_skipped
        topic._is_published = self._is_published
        topic._layouts = self._layouts
        topic._groups = {shape: group.emptied() for shape, group in self._groups.items()}
        return topic

    @property
    def held_bytes(self) -> int:
        """Bytes of the messages taken, decoded or not."""
        return self.nbytes + self._pending_bytes

    def forget(self) -> None:
        """Drop the messages; the streams that they were of stay known."""
        self._groups = {shape: group.emptied() for shape, group in self._groups.items()}
        self.nbytes = 0

    def reach(self) -> Iterator[tuple[bool, int, int]]:
        """For every group of messages and each clock: whether it is the log's, its first and its last stamp.

        Raises:
            LayoutError: A message that does not fit its definition.
        """
        self.decode()
        for group in self._groups.values():
            stamps = np.concatenate(group.stamps)
            if len(stamps):
                yield True, int(stamps[:, LOG].min()), int(stamps[:, LOG].max())
                yield False, int(stamps[:, HEADER].min()), int(stamps[:, HEADER].max())

    def clocks_used(self) -> set[bool]:
        """True for a group of messages whose streams use the log's clock, False for one that uses the header's."""
        return {not group.is_stamped for group in self._groups.values()}

    def streams(self) -> Iterator[RecordedStream]:
        """The streams of all messages taken; ascending in the header's clock where every message has one, else log.

        Messages with other columns than those logged first (two publishers of joint states on one topic) become
        streams of their own: "/joint_states#2.position". With too many of such there are none, and `why_skipped`.
        """
        self.decode()
        if self.why_skipped is not None:
            return
        for number, group in enumerate(sorted(self._groups.values(), key=lambda group: group.first_log_ns), start=1):
            topic = self.name if number == 1 else f"{self.name}#{number}"
            stamps, values = group.in_order()
            clocks = {"log": stamps[:, LOG]}
            if self._is_published:
                clocks["publish"] = stamps[:, 1]
            if group.is_stamped:
                clocks = {"header": stamps[:, HEADER], **clocks}
            for part, columns, rows in zip(group.parts, group.columns, values, strict=True):
                name = f"{topic}.{part.suffix}"
                yield ascending_stream(name, rows, clocks, next(iter(clocks)), columns=columns, kind=part.kind)


def _width(layout: Layout, part: Part) -> int:
    for path in part.paths:
        if path not in layout.places:
            raise LayoutError(f"has no number {path}, which {part.suffix} is made of")
        if part.columns and layout.places[path].count != 1:
            raise LayoutError(f"has {layout.places[path].count} numbers in {path}, not one")
    return sum(layout.places[path].count for path in part.paths)


def _columns(layout: Layout, part: Part) -> tuple[str, ...]:
    width = _width(layout, part)
    # Some drivers publish no names at all, or an effort of the gripper alone: those are numbered.
    if part.names is not None and layout.sizes.get(part.names, 0) == width:
        names = [layout.texts.get(f"{part.names}[{index}]") for index in range(width)]
        if None in names:
            raise LayoutError(f"has no texts in {part.names}, which name the numbers in {part.suffix}")
        return tuple(map(str, names))
    return part.columns if part.columns else tuple(str(index) for index in range(width))


def with_header(layout: Layout, messages: Bytes, stamps: Int64) -> Int64:
    """Columns log, publish, header; header is 0 where the message has none.

    Raises:
        LayoutError: A stamp that is no time; a damaged definition can make it of any number.
    """
    header = np.zeros(len(messages), np.int64)
    if all(path in layout.places and layout.places[path].count == 1 for path in STAMP):
        parts = [layout.values(path, messages)[:, 0] for path in STAMP]
        for part in parts:
            if not np.all(np.abs(part.astype(np.float64)) < 2**32):  # also true for NaN
                raise LayoutError(f"has {part.tolist()[:3]} in its header's stamp, which fit no time")
        seconds, nanoseconds = (part.astype(np.int64) for part in parts)
        header = seconds * 1_000_000_000 + nanoseconds
    return np.concatenate([stamps, header[:, None]], axis=1)
