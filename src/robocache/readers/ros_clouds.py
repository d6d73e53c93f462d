"""Topics of point clouds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from robocache.errors import DamagedRecordingError
from robocache.readers.recording import stored_cloud
from robocache.readers.ros2_layout import Layout, LayoutError
from robocache.readers.ros2_points import NotXyzError, cloud_size, point_format, points
from robocache.readers.ros2_topic import MAX_GROUPS
from robocache.readers.ros_places import Payloads, PlacedTopic
from robocache.readers.stored_points import Points, StoredPoints
from robocache.records import Int64, RecordedStream

if TYPE_CHECKING:
    from robocache.readers.limits import Limits
    from robocache.readers.ros2_schema import Definitions


@dataclass
class _Group:
    """Messages whose points have the same columns."""

    dtype: np.dtype[np.generic]
    messages: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class CloudTopic(PlacedTopic):
    """Collects where the messages of one topic of clouds lie, and how many points they have; see `PlacedTopic`."""

    def __init__(self, name: str, type_name: str, definitions: Definitions, *, cdr: bool = True) -> None:
        super().__init__(name, type_name, definitions, cdr=cdr)
        self._groups: dict[tuple[str, ...], _Group] = {}

    def streams(self, path: str, limits: Limits, payloads: Payloads) -> Iterator[RecordedStream]:
        """The stream "topic.points"; clouds with other columns than those logged first become "topic#2.points"."""
        if not self._places or self.why_skipped is not None:
            return
        places, stamps = np.array(self._places, np.int64), np.concatenate(self._stamps)

        def fetch(numbers: Int64) -> Iterator[Points]:
            for number, payload in zip(numbers.tolist(), payloads(places[numbers]), strict=True):
                yield self._decoded(path, number, payload)

        def first_log_ns(item: tuple[tuple[str, ...], _Group]) -> int:
            return int(stamps[item[1].messages, 0].min())

        for number, (columns, group) in enumerate(sorted(self._groups.items(), key=first_log_ns), start=1):
            topic = self.name if number == 1 else f"{self.name}#{number}"
            numbers, clocks = np.array(group.messages, np.int64), self._clocks(stamps[group.messages])
            offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(group.counts, np.int64))])
            stored = StoredPoints(path, numbers, offsets, group.dtype, len(columns), fetch, limits)
            yield stored_cloud(f"{topic}.points", stored, clocks, next(iter(clocks)), columns=columns)

    def _note(self, layout: Layout, payload: bytes) -> None:
        if self.why_skipped is not None:
            return
        message = np.frombuffer(payload, np.uint8)[None]
        try:
            form = point_format(layout, message)
        except NotXyzError as error:
            if self._groups:
                raise
            self.why_skipped = f"its first cloud {error}"
            return
        size = cloud_size(form, layout, message)
        group = self._groups.get(form.columns)
        if group is None:
            if len(self._groups) == MAX_GROUPS:
                self.why_skipped = f"its clouds have more than {MAX_GROUPS} different sets of columns"
                return
            group = self._groups[form.columns] = _Group(form.number)
        group.dtype = np.result_type(group.dtype, form.number)
        group.messages.append(len(self._places))
        group.counts.append(size.height * size.width)

    def _decoded(self, path: str, number: int, payload: bytes) -> Points:
        try:
            layout = self._layout(payload)
            message = np.frombuffer(payload, np.uint8)[None]
            return points(point_format(layout, message), layout, message)
        except LayoutError as error:  # it fitted when the file was read first
            problem = f"changed while it was open: a {self.type_name} message {error}"
            raise DamagedRecordingError(path, problem, place=f"topic {self.name}, message", offset=number) from error
