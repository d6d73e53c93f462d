"""A batch that consists of gathered records: its tensors are views, made when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

from torch import Tensor

from robocache.loader.batch import Batch
from robocache.loader.layout import Field
from robocache.loader.record_layout import RecordLayout


class RecordBatch(Batch):
    """A batch whose tensors are views of records, made when they are first asked for.

    Args:
        what: The records' layout.
        taken: By group: [sample, row, byte].
        block: [place] dataset, episode and first frame of the samples of many batches.
        samples: Which of the block.
    """

    _what: RecordLayout
    _taken: list[Tensor]
    _block: tuple[Tensor, Tensor, Tensor]
    _samples: slice

    def __init__(
        self, what: RecordLayout, taken: list[Tensor], block: tuple[Tensor, Tensor, Tensor], samples: slice
    ) -> None:
        self.__dict__.update(
            _what=what, _taken=taken, _block=block, _samples=samples, points={}, fuses=what.layout.fuses
        )

    @cached_property
    def data(self) -> Mapping[str, Tensor]:
        return self._views("data")

    @cached_property
    def valid(self) -> Mapping[str, Tensor]:
        return self._views("valid")

    @cached_property
    def age(self) -> Mapping[str, Tensor]:
        return self._views("age")

    @cached_property
    def times_ns(self) -> Tensor:
        group, at, field = self._what.places["times", ""]
        return view(self._taken[group], at, field)

    @cached_property
    def dataset(self) -> Tensor:
        return self._block[0][self._samples]

    @cached_property
    def episode(self) -> Tensor:
        return self._block[1][self._samples]

    @cached_property
    def frame(self) -> Tensor:
        return self._block[2][self._samples]

    @property
    def samples(self) -> int:
        """How many."""
        return int(self._samples.stop) - int(self._samples.start)

    def _views(self, role: str) -> Views:
        return Views(self._what, self._taken, role)


class Views(Mapping[str, Tensor]):
    """Tensors that are parts of gathered records, made when they are first asked for.

    Args:
        what: The records' layout.
        taken: By group: [sample, row, byte].
        role: "data", "valid" or "age".
    """

    def __init__(self, what: RecordLayout, taken: list[Tensor], role: str) -> None:
        self._what, self._taken, self._role = what, taken, role
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        made = self._made.get(name)
        if made is None:
            group, at, field = self._what.places[self._role, name]
            made = self._made[name] = view(self._taken[group], at, field)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._what.layout.features)

    def __len__(self) -> int:
        return len(self._what.layout.features)


def view(records: Tensor, at: int, field: Field) -> Tensor:
    """[sample, row, *shape] of one field, without a copy.

    Args:
        records: [sample, row, byte].
        at: Where in each the value begins.
        field: What it is.
    """
    values = records.view(field.dtype)
    row, size = values.stride(1), field.dtype.itemsize
    inner = field.shape[1:]
    strides = [math.prod(inner[axis + 1 :]) for axis in range(len(inner))]
    sizes = (records.shape[0], *field.shape)
    return values.as_strided(sizes, (values.stride(0), row, *strides), values.storage_offset() + at // size)
