"""A batch made at once, that PyTorch's `DataLoader` takes for a list of items and does not collate again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from torch.utils.data import default_collate
from torch.utils.data._utils.collate import collate, default_collate_fn_map


class Item(dict[str, Any]):
    """One item of a batch; `default_collate` recognises it."""


class BatchItems(Sequence[Item]):
    """The items of a batch, views of its tensors, each made when it is asked for.

    Args:
        batch: By key: tensors with the item as their first axis, or lists with one text an item.
        size: How many items.
    """

    def __init__(self, batch: Mapping[str, Any], size: int) -> None:
        self.batch = dict(batch)
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, number: int) -> Item: ...

    @overload
    def __getitem__(self, number: slice) -> list[Item]: ...

    def __getitem__(self, number: int | slice) -> Item | list[Item]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(self._size))]
        if not -self._size <= number < self._size:
            raise IndexError(f"{number} is not one of {self._size} items")
        return Item({name: values[number] for name, values in self.batch.items()})


def _collate_items(items: Sequence[Item], *, collate_fn_map: Mapping[Any, Callable[..., Any]] | None = None) -> Any:  # noqa: ANN401
    if isinstance(items, BatchItems):
        return items.batch
    plain = [dict(item) for item in items]
    return default_collate(plain) if collate_fn_map is None else collate(plain, collate_fn_map=dict(collate_fn_map))


# PyTorch's documented place for types of one's own.
default_collate_fn_map[Item] = _collate_items
