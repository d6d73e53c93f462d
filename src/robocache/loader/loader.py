"""Aligned episodes in, shuffled batches on a device out, inside a memory budget, resumable to the sample."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import SupportsFloat, TypedDict

import torch

from robocache.cache.dataset import Dataset
from robocache.errors import ArgumentError, ClosedError, DeviceError
from robocache.loader.batch import Batch
from robocache.loader.budget import ByteBudget
from robocache.loader.joined import Joined
from robocache.loader.layout import Layout, SampleIndex
from robocache.loader.order import OrderState, SampleOrder
from robocache.loader.order_arguments import checked_integer
from robocache.loader.running import Progress, Running
from robocache.loader.sizes import parse_size
from robocache.loader.tiers import Built, Tier, Wanted, build_maker, choose_tier


class LoaderState(TypedDict):
    """Where a loader stands, and of which data; plain numbers and texts, so that JSON can hold it."""

    fingerprint: str
    window: int
    order: OrderState


@dataclass(frozen=True)
class LoaderStatistics:
    """What a loader holds, and who waits.

    Args:
        tier: Where the episodes lie: "disk" (mapped files), "ram" or "gpu" (packed there; on a CPU never "gpu").
        limit_bytes: The budget.
        held_bytes: What is claimed of it now: packed episodes, staging, batches made ahead, buffers to be used again.
        peak_bytes: The most that ever was.
        packed_bytes: Of the packed episodes, once they are there.
        open_episodes: Held open on the tier "disk".
        batches: Delivered in this iteration, or in the last.
        batches_per_s: Of it.
        consumer_waits: The part of its time that the consumer waited for batches: near 1 the data is too slow, near 0
            the training is.
        reader_waits: The thread that makes batches waits for room at this moment.
        failure: What the iteration failed with; None: nothing.
    """

    tier: Tier
    limit_bytes: int
    held_bytes: int
    peak_bytes: int
    packed_bytes: int
    open_episodes: int
    batches: int
    batches_per_s: float
    consumer_waits: float
    reader_waits: bool
    failure: str | None


class Loader:
    """Batches of windows of aligned episodes, epoch after epoch.

    ```python
    with rc.Loader(dataset, batch_size=256, window=2, device="cuda", memory="4GiB") as loader:  # needs CUDA
        for batch in loader:
            batch["observation.state"]  # [256, 2, 7]
    ```

    A sample is an episode and a first frame; it covers `window` consecutive frames. Which sample comes when is
    `SampleOrder`'s: the same global order on any number of ranks. Iterating gives an epoch; iterating again gives the
    next one, and after a `break` the same batches again. A second iteration ends the first. A `with` block, or `close`,
    lets go of everything at its end; a loop without one ends its thread when it ends or is left.

    Args:
        dataset: A `Dataset`, or several, numbered one after the other. A stream that one of them lacks is zeros there,
            and not valid. What has a method `aligned`, as our `LeRobotDataset`, stands for what that gives.
        batch_size: Samples of a batch.
        window: Frames of a sample.
        device: Where batches are made. None: "cpu".
        memory: The most that may be held: packed episodes, staging, batches made ahead, on the host and the device
            together. Bytes, or a text such as "4GiB". Batches that were delivered are the consumer's.
        seed: Of the order.
        rank: Which of the ranks this one is.
        world_size: How many ranks there are.
        shuffle: False keeps the datasets' own order.
        drop_last: Leave out the samples that do not fill a step.
        weights: Each dataset's part of an epoch; None takes every sample once.
        prefetch: Batches made ahead on a thread, as far as `memory` allows; 0 makes them in the calling thread.
        pin: Batches on the CPU in page-locked memory, for copies of your own to a GPU.

    Raises:
        ArgumentError: An argument that cannot be right, or no sample.
        ShapeError: Datasets that differ in a feature.
        BudgetError: A batch that does not fit `memory`; nothing was allocated.
    """

    def __init__(  # noqa: PLR0913  the extra ones are keyword-only
        self,
        dataset: Dataset | Sequence[Dataset],
        *,
        batch_size: int,
        window: int = 1,
        device: torch.device | str | None = None,
        memory: int | str = "1GiB",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        weights: Sequence[SupportsFloat] | None = None,
        prefetch: int = 2,
        pin: bool = False,
    ) -> None:
        self._process = os.getpid()
        self._window = checked_integer("window", window, at_least=1)
        self._prefetch = checked_integer("prefetch", prefetch)
        self._budget = ByteBudget(parse_size("memory", memory))
        where = _device(device)
        several = isinstance(dataset, Sequence) and not isinstance(dataset, str)
        joined = Joined(list(dataset) if several else [dataset])  # type: ignore[arg-type, list-item]
        index = SampleIndex(joined.lengths, self._window)
        bounds = zip(joined.first_episode[:-1].tolist(), joined.first_episode[1:].tolist(), strict=True)
        self._arguments = {
            "lengths": [int(index.counts[start:stop].sum()) for start, stop in bounds],
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "drop_last": drop_last,
            "weights": weights,
            "rank": rank,
            "world_size": world_size,
        }
        self._order = self._new_order()
        self._joined = joined
        layout, step = Layout(joined, self._window), batch_size * world_size
        self._wanted = Wanted(joined, index, layout, where, batch_size, self._prefetch, pin=pin, step_samples=step)
        self._plan = choose_tier(self._wanted, self._budget.limit_bytes)
        self._built: Built | None = None
        self._progress = Progress()
        self._running: weakref.ref[Running] | None = None
        self._is_closed = False

    @property
    def epoch(self) -> int:
        """The epoch that iterating gives, or gave last."""
        return self._order.epoch

    @property
    def window(self) -> int:
        """Frames of a sample."""
        return self._window

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iterating gives next; ends an iteration under way.

        The place in it that a loaded state has is kept, if that is its epoch and it was not iterated to the end since.

        Args:
            epoch: 0 or more.
        """
        epoch = checked_integer("epoch", epoch)
        self._end_running()
        if self._is_over():
            self._order.set_epoch(self._order.epoch + 1)
        self._order.set_epoch(epoch)
        self._progress = Progress()

    def __len__(self) -> int:
        """Batches of this epoch, the same on every rank; after `load_state_dict` those that are left of it."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        self._check_usable()
        self._end_running()
        if self._is_over():
            self._order.set_epoch(self._order.epoch + 1)
        if self._built is None:
            self._built = build_maker(self._wanted, self._plan, self._budget)
        order = self._new_order()  # the reader is ahead of the consumer, whose place the other one keeps
        order.load_state_dict(self._order.state_dict(batches=0))
        prefetch = 0 if self._plan.tier == "gpu" else self._prefetch
        running = Running(self, order, self._built.maker, self._budget, prefetch)
        self._progress, self._running = running.progress, weakref.ref(running)
        return running

    def state_dict(self) -> LoaderState:
        """Where training stands: behind the batches that were delivered, whatever was read ahead."""
        state = self._order.state_dict(batches=self._progress.batches)
        return LoaderState(fingerprint=self._joined.fingerprint, window=self._window, order=state)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where `state` was taken, with any number of ranks; ends an iteration under way.

        Args:
            state: What `state_dict` gave, on any rank.

        Raises:
            ArgumentError: It is no such state, or one of other data, another window, seed, `shuffle` or weights.
        """
        given: object = state
        order = given.get("order") if isinstance(given, Mapping) else None
        if not isinstance(order, Mapping) or not {"fingerprint", "window"} <= state.keys():
            raise ArgumentError(f"state must be what Loader.state_dict gave, got {state!r}")
        own = (self._joined.fingerprint, self._window)
        if (state["fingerprint"], state["window"]) != own:
            raise ArgumentError(
                f"state is of data {state['fingerprint']} and window={state['window']}, "
                f"this loader of data {own[0]} and window={own[1]}"
            )
        trial = self._new_order()
        trial.load_state_dict(order)
        self._end_running()
        self._order, self._progress = trial, Progress()

    def statistics(self) -> LoaderStatistics:
        """What is held, and who waits."""
        budget, progress, built = self._budget.statistics(), self._progress, self._built
        return LoaderStatistics(
            tier=self._plan.tier,
            limit_bytes=budget.limit_bytes,
            held_bytes=budget.used_bytes,
            peak_bytes=budget.peak_bytes,
            packed_bytes=0 if built is None else self._plan.packed_bytes,
            open_episodes=0 if built is None else built.open_episodes,
            batches=progress.batches,
            batches_per_s=progress.batches / progress.took_s if progress.took_s else 0.0,
            consumer_waits=progress.waited_s / progress.took_s if progress.took_s else 0.0,
            reader_waits=budget.is_full_and_waited_for,
            failure=progress.failure,
        )

    def close(self) -> None:
        """End the iteration, close every episode, free every buffer. Any thread may call it, repeatedly."""
        if self._process != os.getpid():
            return
        self._is_closed = True
        self._end_running()
        built, self._built = self._built, None
        try:
            if built is not None:
                built.close()
        finally:
            self._budget.close()

    def __enter__(self) -> Loader:
        self._check_usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_is_closed"):
            self.close()

    def __repr__(self) -> str:
        return f"Loader({self._order!r}, window={self._window}, {self._plan.tier})"

    def _new_order(self) -> SampleOrder:
        return SampleOrder(**self._arguments)  # type: ignore[arg-type]

    def _is_over(self) -> bool:
        return self._progress.batches == len(self._order)

    def _end_running(self) -> None:
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()

    def _check_usable(self) -> None:
        if self._process != os.getpid():
            raise ClosedError(
                f"this loader belongs to process {self._process}, and process {os.getpid()} is a fork of it; "
                "make a Loader in the process that uses it"
            )
        if self._is_closed:
            raise ClosedError("the loader is closed: iterate inside its `with` block only")


def _device(device: object) -> torch.device:
    try:
        return torch.device("cpu" if device is None else device)  # type: ignore[call-overload, no-any-return]
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device must name one, such as 'cpu' or 'cuda:0', got {device!r}") from error
