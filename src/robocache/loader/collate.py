"""Samples into a buffer: index arithmetic, then one gather a feature. No Python per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from robocache.errors import EpisodeError
from robocache.loader.batch import PackedPoints
from robocache.loader.episodes import Episodes, Part, Where
from robocache.loader.gather import Runs, gather
from robocache.loader.joined import Integers, Joined, Key
from robocache.loader.layout import Field, Layout
from robocache.loader.reading import FileRows, RowError, read_rows


@dataclass(frozen=True)
class CloudRuns:
    """The clouds of a batch before they are copied.

    Args:
        first: [cloud] first point of each in its episode's points.
        offsets: [cloud + 1] where each goes.
    """

    first: Integers
    offsets: Integers


class Collate:
    """Fills buffers.

    Args:
        joined: The datasets.
        layout: How a batch lies.
        threads: How many a gather may use.
    """

    def __init__(self, joined: Joined, layout: Layout, threads: int) -> None:
        self._joined = joined
        self._layout = layout
        self._threads = threads
        self._place: dict[Key, int] = {key: place for place, key in enumerate(layout.slots)}

    def fill(self, source: Episodes, tensors: Mapping[Key, torch.Tensor], episodes: Integers, frames: Integers) -> None:
        """Write the batch of these samples.

        Args:
            source: Where the episodes lie.
            tensors: On the CPU, by slot: `layout.tensors` of a buffer.
            episodes: [sample] of the joined datasets.
            frames: [sample] first frames.
        """
        out = {key: part.numpy() for key, part in tensors.items()}
        dataset = self._joined.dataset_of(episodes)
        out["dataset", ""][:] = dataset
        out["episode", ""][:] = episodes - self._joined.first_episode[dataset]
        out["frame", ""][:] = frames
        for part in source.parts(episodes):
            where = part.where
            chosen = (episodes, frames) if where is None else (episodes[where], frames[where])
            last = self._joined.lengths[chosen[0]] - 1
            for field in self._layout.fields[3:]:
                try:
                    self._fill_field(field, out[field.key], part, (chosen[1], last))
                except RowError as error:
                    episode = int(chosen[0][error.run // field.shape[0]])
                    message = f"{self._joined.name(episode)}: an image of {field.key[1]!r} cannot be read"
                    raise EpisodeError(f"{message}: {error.strerror}") from error

    def clouds(self, source: Episodes, name: str, episodes: Integers, frames: Integers) -> CloudRuns:
        """Which points a batch takes of a feature, before room for them is made."""
        per = self._layout.rows(name)
        spans = np.zeros((len(episodes) * per, 2), np.int64)
        for where, addresses, _ in source.parts(episodes):
            chosen = (episodes, frames) if where is None else (episodes[where], frames[where])
            last = self._joined.lengths[chosen[0]] - 1
            scans = self._rows(name, addresses, self._first(name, chosen[1]), last)
            bases = np.repeat(addresses[:, self._place["offsets", name]], per)
            gather(Runs(bases, scans, scans + 1, 2, _starts(where, per, 2)), 8, spans)
        counts = spans[:, 1] - spans[:, 0]
        return CloudRuns(spans[:, 0], np.concatenate([[0], np.cumsum(counts)]))

    def points(self, source: Episodes, name: str, episodes: Integers, runs: CloudRuns) -> PackedPoints:
        """The clouds, copied to memory of their own."""
        per = self._layout.rows(name)
        slot = self._layout.slots["data", name]
        out = np.empty((int(runs.offsets[-1]), *slot.shape), slot.dtype)
        starts, counts = runs.offsets[:-1].reshape(-1, per), np.diff(runs.offsets).reshape(-1, per)
        first = runs.first.reshape(-1, per)
        for where, addresses, _ in source.parts(episodes):
            own = [part if where is None else part[where] for part in (first, starts, counts)]
            flat = [np.ascontiguousarray(part).reshape(-1) for part in own]
            bases = np.repeat(addresses[:, self._place["data", name]], per)
            last = flat[0] + flat[2] - 1
            gather(Runs(bases, flat[0], last, 1, flat[1], flat[2]), slot.row_bytes, out, threads=self._threads)
        return PackedPoints(torch.from_numpy(out), torch.from_numpy(runs.offsets), (len(episodes), per))

    def _fill_field(self, field: Field, out: np.ndarray, part: Part, span: tuple[Integers, Integers]) -> None:
        where, addresses, files = part
        frames, last = span
        role, name = field.key
        slot, per = self._layout.slots[field.key], field.shape[0]
        first = frames if role == "times" else self._first(name, frames)
        bases = np.ascontiguousarray(addresses[:, self._place[field.key]])
        if role == "data" and self._layout.features[name].kind == "image":
            rows = self._rows(name, addresses, first, last)
            bases, starts = np.repeat(bases, per), _starts(where, per, 1)
            if files is not None and (of_rows := files[:, self._place[field.key]]).max(initial=-1) >= 0:
                wanted = FileRows(np.repeat(of_rows, per), bases, rows, starts)
                read_rows(wanted, slot.row_bytes, out, threads=self._threads)
                return
            runs = Runs(bases, rows, rows, 1, starts)
        else:
            runs = Runs(bases, first, last, per, None if where is None else where * per)
        gather(runs, slot.row_bytes, out, threads=self._threads)
        if role == "valid" and field.starts_late:
            beyond = first[:, None] + np.arange(per) > last[:, None]
            if where is None:
                out[beyond] = False
            else:
                sample, row = np.nonzero(beyond)
                out[where[sample], row] = False

    def _first(self, name: str, frames: Integers) -> Integers:
        is_late = self._layout.features[name].horizon > 1
        return frames + (self._layout.window - 1) if is_late else frames

    def _rows(self, name: str, addresses: Integers, first: Integers, last: Integers) -> Integers:
        """[sample * row] which image or scan each row uses; -1 where the stream is absent."""
        per = self._layout.rows(name)
        bases = np.ascontiguousarray(addresses[:, self._place["row", name]])
        rows = np.empty(len(first) * per, np.int64)
        gather(Runs(bases, first, last, per), 8, rows)
        rows[np.repeat(bases == 0, per)] = -1
        return rows


def _starts(where: Where, per: int, width: int) -> Integers | None:
    """Where the runs of some samples go, each sample having `per` of `width` rows."""
    if where is None:
        return None
    starts: Integers = (where[:, None] * per + np.arange(per)).reshape(-1) * width
    return starts
