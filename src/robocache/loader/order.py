"""Which sample comes when: a pure function of seed, epoch and step, for any number of ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import SupportsFloat

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError
from robocache.loader.mixture import Interleaving
from robocache.loader.order_arguments import checked_counts, checked_integer, checked_lengths, checked_switch
from robocache.loader.order_state import OrderState
from robocache.loader.permutation import KeyedPermutation

__all__ = ["OrderState", "SampleOrder"]

Integers = npt.NDArray[np.int64]

_VERSION = 1  # of the order itself: another one would resume somewhere else
_WALKS = 2**62  # after so many, a dataset's first walk comes again
# Samples computed at a time while iterating, so that numpy's calls cost little for small batches; a mixture's datasets
# are computed one by one, each with calls of its own.
_AHEAD, _MOST_AHEAD = 2**14, 2**18


class SampleOrder:
    """The batches of one rank, epoch after epoch; a `batch_sampler` for `torch.utils.data.DataLoader`.

    ```python
    order = SampleOrder(len(samples), batch_size=64, seed=0, rank=rank, world_size=world_size)
    loader = DataLoader(samples, batch_sampler=order, num_workers=2)
    ```

    The global order of samples depends on `lengths`, `weights`, `seed`, `shuffle` and the epoch, never on ranks,
    workers or batches. A step takes the next `batch_size * world_size` samples of it, and each rank the next
    `batch_size` of those. Nothing is stored for a sample, so that 2**48 of them cost no more than ten.

    Several datasets are numbered one after the other, as `torch.utils.data.ConcatDataset` numbers them; `locate` tells
    dataset and row. Without weights every sample comes once an epoch. With weights an epoch has as many samples as
    all datasets together, shared in proportion (largest remainder) and spread evenly; a dataset is walked through,
    across epochs, before any sample of it comes again.

    Iterating gives the epoch from its beginning, or from where a loaded state stood. Iterating again after the end
    gives the next epoch; after a `break`, the same batches again.

    Args:
        lengths: Samples in each dataset, or in the only one; 2**48 in all at most.
        batch_size: Samples a rank gets at each step. For the same steps with another number of ranks, keep
            `batch_size * world_size`.
        seed: Any integer.
        shuffle: False keeps each dataset's own order, in every epoch.
        drop_last: Leave out the samples that do not fill a step. Otherwise the last step's are shared among the
            ranks, whose batches are then smaller and may differ by a sample.
        weights: Each dataset's part of an epoch, 0 or more, in any unit; None takes every sample once.
        rank: Which of the ranks this one is.
        world_size: How many ranks there are.

    Raises:
        ArgumentError: An argument that cannot be right; a last step with fewer samples than ranks, of which some would
            have no batch and the others wait for them; or no step at all.
    """

    def __init__(  # noqa: PLR0913  the extra ones are keyword-only
        self,
        lengths: int | Sequence[int],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        weights: Sequence[SupportsFloat] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._lengths = checked_lengths(lengths)
        self._total = sum(self._lengths)
        self._batch_size = checked_integer("batch_size", batch_size, at_least=1)
        self._world_size = checked_integer("world_size", world_size, at_least=1)
        self._rank = checked_integer("rank", rank)
        if self._rank >= self._world_size:
            raise ArgumentError(f"rank must be below world_size, got rank={rank} and world_size={world_size}")
        self._seed = checked_integer("seed", seed, at_least=None)
        self._shuffle, self._drop_last = checked_switch("shuffle", shuffle), checked_switch("drop_last", drop_last)
        self._counts = checked_counts(weights, self._lengths)
        self._step_samples = self._batch_size * self._world_size
        self._offsets = np.cumsum([0, *self._lengths])
        # Every sample once is one walk through all datasets as if they were one.
        walks = [self._total] if self._counts is None else self._lengths
        self._interleaving = None if self._counts is None else Interleaving(self._counts)
        self._permutations = [
            KeyedPermutation(length, f"robocache order {_VERSION}: {self._seed}, {place}".encode()) if length else None
            for place, length in enumerate(walks)
        ]
        self._epoch, self._first, self._progress = 0, 0, _Progress()
        if self._steps_from(0) == 0:
            raise ArgumentError(
                f"drop_last leaves no step: {self._total} samples, and a step takes {self._step_samples} "
                f"(batch_size={self._batch_size} times world_size={self._world_size})"
            )
        self._check_last_step(0)

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives, or gave last."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterating gives next.

        A loaded state's place in it is kept if that is its epoch and it was not iterated to the end since; so a
        training loop may call this before every epoch, also before the one that is resumed.

        Args:
            epoch: 0 or more.
        """
        epoch = checked_integer("epoch", epoch)
        if epoch != self._epoch or self._progress.is_finished:
            self._first = 0
        self._epoch, self._progress = epoch, _Progress()

    def __len__(self) -> int:
        """Batches of this epoch, the same on every rank; after `load_state_dict` those that are left of it."""
        return self._steps_from(self._first)

    def batch(self, step: int) -> Integers:
        """Sample numbers of this rank's batch `step` of the epoch; `list(order)[step]`, without those before it.

        Args:
            step: 0 or more, below `len(order)`.
        """
        step = checked_integer("step", step)
        if step >= len(self):
            raise ArgumentError(f"step must be below {len(self)}, the steps of this epoch, got {step}")
        start, stop = self._part(step, self._first)
        return self.samples_at(np.arange(start, stop), epoch=self._epoch)

    def spans(self) -> Iterator[tuple[int, int]]:
        """This rank's places in the epoch's global order, first and end, batch by batch: what iterating looks up."""
        return (self._part(step, self._first) for step in range(len(self)))

    def samples_at(self, positions: npt.ArrayLike, *, epoch: int | None = None) -> Integers:
        """Sample numbers at places of an epoch's global order, which all ranks share.

        Args:
            positions: [sample] numbers of [0, samples of an epoch), in any order.
            epoch: None takes the present one.
        """
        epoch = self._epoch if epoch is None else checked_integer("epoch", epoch)
        slots = np.asarray(positions, dtype=np.int64)
        if slots.ndim != 1 or (slots.size and (slots.min() < 0 or slots.max() >= self._total)):
            raise ArgumentError(f"positions must be [sample] numbers from 0 to {self._total - 1}, got {positions!r}")
        if self._interleaving is None or self._counts is None:
            return self._walk(0, epoch, slots)
        samples = np.empty(len(slots), np.int64)
        for dataset, where, own_slots in self._interleaving.shares(slots):
            # Walks go on where the last epoch left them. Whole walks are split off first: epochs may be many.
            walks, begun = divmod(epoch * self._counts[dataset], self._lengths[dataset])
            more, rows = np.divmod(own_slots + begun, self._lengths[dataset])
            samples[where] = self._offsets[dataset] + self._walk(dataset, walks % _WALKS + more, rows)
        return samples

    @property
    def permutation(self) -> KeyedPermutation | None:
        """Sends a place of an epoch's order to its sample, pass by epoch; None for weighted or unshuffled orders."""
        return self._permutations[0] if self._counts is None and self._shuffle else None

    def locate(self, samples: npt.ArrayLike) -> tuple[Integers, Integers]:
        """Dataset and row of sample numbers.

        Args:
            samples: Numbers as `batch` gives them, in any shape.

        Returns:
            Two arrays of that shape.
        """
        numbers = np.asarray(samples, dtype=np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self._total):
            raise ArgumentError(f"samples must be numbers from 0 to {self._total - 1}, got {samples!r}")
        datasets = np.searchsorted(self._offsets, numbers, side="right") - 1
        return datasets, numbers - self._offsets[datasets]

    def __iter__(self) -> Iterator[Integers]:
        if self._progress.is_finished:
            self._epoch, self._first = self._epoch + 1, 0
        self._progress = _Progress()
        return self._batches(self._epoch, self._first, self._progress)

    def state_dict(self, batches: int | None = None) -> OrderState:
        """Where training stands, in samples that all ranks together have taken.

        Args:
            batches: How many batches the training loop has taken since it began to iterate. None: as many as were
                handed out, which is the same without worker processes; with them, `DataLoader` asks ahead.
        """
        batches = self._progress.batches if batches is None else checked_integer("batches", batches)
        if batches > len(self):
            raise ArgumentError(f"batches must be at most {len(self)}, the batches of this epoch, got {batches}")
        is_over = batches == len(self)
        return OrderState(
            version=_VERSION,
            fingerprint=self._fingerprint(),
            samples=self._summary(),
            seed=self._seed,
            epoch=self._epoch + 1 if is_over else self._epoch,
            consumed=0 if is_over else self._first + batches * self._step_samples,
        )

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where `state` was taken, with as many ranks and as large batches as this order has.

        Args:
            state: What `state_dict` gave, on any rank.

        Raises:
            ArgumentError: It is no such state, or one of other datasets, weights, seed or `shuffle`.
        """
        given: object = state
        missing = sorted(OrderState.__annotations__.keys() - (given.keys() if isinstance(given, Mapping) else ()))
        if missing:
            raise ArgumentError(f"state has no {', '.join(missing)}: it is not the state of a SampleOrder")
        own = (_VERSION, self._fingerprint())
        if (state["version"], state["fingerprint"]) != own:
            raise ArgumentError(
                f"state is of {state['samples']} (version {state['version']}, fingerprint {state['fingerprint']}), "
                f"this order of {self._summary()} (version {own[0]}, fingerprint {own[1]})"
            )
        epoch, consumed = (
            checked_integer("state['epoch']", state["epoch"]),
            checked_integer("state['consumed']", state["consumed"]),
        )
        if consumed >= self._total:
            raise ArgumentError(f"state['consumed'] is {consumed}, but an epoch has {self._total} samples")
        if self._steps_from(consumed) == 0:  # too few for a step of this order, and drop_last
            epoch, consumed = epoch + 1, 0
        self._check_last_step(consumed)
        self._epoch, self._first, self._progress = epoch, consumed, _Progress()

    def __repr__(self) -> str:
        return (
            f"SampleOrder({self._summary()}, epoch {self._epoch}, rank {self._rank} of {self._world_size}, "
            f"batch_size={self._batch_size})"
        )

    def _walk(self, place: int, walks: Integers | int, rows: Integers) -> Integers:
        permutation = self._permutations[place]
        return rows if permutation is None or not self._shuffle else permutation.forward(rows, walks)

    def _steps_from(self, first: int) -> int:
        left = self._total - first
        return left // self._step_samples if self._drop_last else -(-left // self._step_samples)

    def _part(self, step: int, first: int) -> tuple[int, int]:
        """This rank's places in the global order at a step."""
        start = first + step * self._step_samples
        samples = min(self._step_samples, self._total - start)
        bounds = (samples * self._rank // self._world_size, samples * (self._rank + 1) // self._world_size)
        return start + bounds[0], start + bounds[1]

    def _batches(self, epoch: int, first: int, progress: _Progress) -> Iterator[Integers]:
        steps = self._steps_from(first)
        ahead = min(_AHEAD * len(self._permutations), _MOST_AHEAD)
        at_once = max(1, ahead // self._batch_size)
        for block in range(0, steps, at_once):
            parts = [self._part(step, first) for step in range(block, min(block + at_once, steps))]
            samples = self.samples_at(np.concatenate([np.arange(*part) for part in parts]), epoch=epoch)
            for number, batch in enumerate(np.split(samples, np.cumsum([stop - start for start, stop in parts])[:-1])):
                progress.batches = block + number + 1
                progress.is_finished = progress.batches == steps
                yield batch.copy()  # a caller may keep or change it

    def _check_last_step(self, first: int) -> None:
        last = (self._total - first) % self._step_samples
        if not self._drop_last and 0 < last < self._world_size:
            raise ArgumentError(
                f"the last step has {last} samples for world_size={self._world_size} ranks, and some would have no "
                f"batch ({self._total - first} samples, {self._step_samples} a step); pass drop_last=True or another "
                "batch_size"
            )

    def _summary(self) -> str:
        datasets = "" if len(self._lengths) == 1 else f" in {len(self._lengths)} datasets"
        weighted = "" if self._counts is None else ", weighted"
        return f"{self._total} samples{datasets}{weighted}, seed={self._seed}, shuffle={self._shuffle}"

    def _fingerprint(self) -> str:
        text = repr((_VERSION, self._lengths, self._counts, self._seed, self._shuffle))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Progress:  # how far one iteration is; an older one that goes on counts for itself
    def __init__(self) -> None:
        self.batches = 0
        self.is_finished = False
