"""What lies where in records: all of a frame's values side by side.

A record holds the frame's time, and data, valid and age of each feature, the widest values first, so that each lies as
its dtype wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robocache.loader.joined import Joined, Key
from robocache.loader.layout import Field, Layout

PLACES = 2**16  # computed at a time, rather than batch by batch
_PLACE_BYTES = 6 * 8  # first record, end, episode and frame of a sample; dataset and its episode
_RECORD_ALIGNMENT = 16  # the widest access
_INDEX_FIELDS = 3


@dataclass(frozen=True)
class Group:
    """Values that a batch has for the same frames, and so one record a frame.

    Args:
        rows: Frames of a sample.
        starts_late: They begin with the sample's last frame.
        places: By slot: where in the record its bytes begin, and what they are.
        record_bytes: Of a record.
    """

    rows: int
    starts_late: bool
    places: Mapping[Key, tuple[int, Field]]
    record_bytes: int


class RecordLayout:
    """What lies where in the records of a dataset.

    Args:
        joined: The episodes.
        layout: What a batch consists of.
    """

    def __init__(self, joined: Joined, layout: Layout) -> None:
        self.joined, self.layout = joined, layout
        self.frames = int(joined.lengths.sum())
        fields: dict[tuple[int, bool], list[Field]] = {}
        for field in layout.fields[_INDEX_FIELDS:]:
            fields.setdefault((field.shape[0], field.starts_late), []).append(field)
        self.groups = [self._group(rows, late, members) for (rows, late), members in fields.items()]
        self.places = {
            key: (number, *place) for number, group in enumerate(self.groups) for key, place in group.places.items()
        }
        self.nbytes = self.frames * sum(group.record_bytes for group in self.groups)

    @staticmethod
    def serves(joined: Joined, layout: Layout) -> bool:
        """Whether all features are numbers, and every dataset has them."""
        is_numbers = all(feature.kind == "numbers" for feature in layout.features.values())
        return is_numbers and all(dataset.features.keys() == layout.features.keys() for dataset in joined.datasets)

    def batch_bytes(self, samples: int) -> int:
        """Bytes of a batch."""
        return samples * sum(group.rows * group.record_bytes for group in self.groups)

    def places_bytes(self, step_samples: int) -> int:
        """Bytes of the places computed ahead: those in use and those that follow."""
        return 2 * _PLACE_BYTES * max(PLACES, step_samples)

    def _group(self, rows: int, late: bool, fields: list[Field]) -> Group:  # noqa: FBT001
        fused = {("data", name): place for place, name in enumerate(self.layout.fuses)}

        def order(field: Field) -> tuple[int, int]:
            # Those that `Batch.fused` joins are neighbours, in its order, and so joined already.
            return -field.dtype.itemsize, fused.get(field.key, len(fused))

        places, at = {}, 0
        for field in sorted(fields, key=order):
            places[field.key] = (at, field)
            at += field.sample_bytes // rows
        return Group(rows, late, places, -(-max(at, 1) // _RECORD_ALIGNMENT) * _RECORD_ALIGNMENT)
