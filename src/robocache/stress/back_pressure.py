"""A slow, absent or failing consumer costs bounded memory and leaves nothing behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from robocache.errors import ClosedError, DamagedRecordingError
from robocache.loader import ByteBudget, Prefetcher
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import MEGABYTE, QuietCollections, host_counters, leaked_per_round, read
from robocache.stress.settings import Settings
from robocache.stress.workload import INPUT_SETS, InputSet, infer, make_input_set, right_elements
from robocache.testing import wait_until

SAMPLES = 60
CONSUMER_DELAY_S = 0.1
ROOM_FOR = 4
ROUNDS = 20
_PATIENCE = 5  # times the consumer's delay that it waits for a producer which a busy machine holds up
_CLOSING_S = 0.005  # a producer takes a moment to close, so that whoever does not wait for it shows
_DEADLINE_S = 10.0  # beside ten times what the consumer needs
_HEAP_SLACK_BYTES = 500_000  # of the measurement, and of the producer's OpenMP team: 380 kB with 64 threads


@dataclass(frozen=True)
class Sample:
    """What the producer reads: numbered inputs of one inference, in host memory."""

    number: int
    streams: list[Tensor]
    points: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(stream.nbytes for stream in self.streams) + self.points.nbytes


class Producer:
    """Reads as fast as it can, closes not as fast; counts what it has read.

    Args:
        sets: Inputs to copy, in turn.
        samples: How many; also the fuse that keeps a broken prefetcher from eating the machine.
        fails_at: Number of the sample that cannot be read. None: all can.
    """

    def __init__(self, sets: Sequence[InputSet], *, samples: int, fails_at: int | None = None) -> None:
        self._sets = sets
        self._samples = samples
        self._fails_at = fails_at
        self.read_bytes = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[Sample]:
        try:
            for number in range(self._samples):
                if number == self._fails_at:
                    raise DamagedRecordingError("producer", "this sample cannot be read", place="sample", offset=number)
                sample = Sample(number, *self._sets[number % len(self._sets)].fresh())
                self.read_bytes += sample.nbytes
                yield sample
                del sample  # else this frame keeps it while the next one is made
        finally:
            threading.Event().wait(_CLOSING_S)
            self.is_closed = True


def back_pressure(
    settings: Settings,
    lines: Lines = silent,
    *,
    samples: int = SAMPLES,
    delay_s: float = CONSUMER_DELAY_S,
    rounds: int = ROUNDS,
) -> Report:
    """A fast producer, and a consumer that takes `delay_s` a sample, on the product's own prefetcher.

    A busy machine may make the producer slow: the consumer then waits up to five times `delay_s` more for it.
    After it, `rounds` loops that end by a break, and as many by an exception, each checked for what it leaves behind.
    A failure of the report is: the budget passed, more memory held than the budget and one sample, a producer that was
    never made to wait, a sample lost, doubled or out of order, a wrong result, or anything left behind after an early
    break or an exception.
    """
    started = time.monotonic()
    inputs = _Inputs(settings)
    with QuietCollections():
        run = _SlowConsumer(inputs, samples=samples, delay_s=delay_s)
        run.consume()
    failures = (*run.failures, *(_left_behind(inputs, rounds) if rounds else ()))
    budget = run.budget.statistics()
    lines(
        f"{samples} samples, consumer {delay_s * 1e3:.0f} ms: at most {budget.peak_bytes / MEGABYTE:.1f} of "
        f"{budget.limit_bytes / MEGABYTE:.1f} MB held, the producer waited {budget.waits} times"
    )
    return Report(
        "back-pressure",
        settings.device,
        iterations=samples,
        seconds=time.monotonic() - started,
        failures=failures,
        measured={
            "peak_bytes": budget.peak_bytes,
            "limit_bytes": budget.limit_bytes,
            "most_undelivered_bytes": run.most_undelivered_bytes,
            "most_heap_bytes": run.most_heap_bytes,
            "waits": budget.waits,
        },
    )


class _Inputs:
    """Inputs in host memory for the producer, and what must come of them on the consumer's device."""

    def __init__(self, settings: Settings) -> None:
        seeds = range(settings.seed, settings.seed + INPUT_SETS)
        self.device = settings.device
        self.host = [make_input_set(seed, batch=settings.batch_size) for seed in seeds]
        self.expected = [inputs.to(settings.device) for inputs in self.host]
        self.sample_bytes = max(sample.nbytes for sample in Producer(self.host, samples=INPUT_SETS))

    def prefetch(self, producer: Producer) -> tuple[ByteBudget, Prefetcher[Sample]]:
        budget = ByteBudget(ROOM_FOR * self.sample_bytes)
        return budget, Prefetcher(producer, size_of=lambda sample: sample.nbytes, budget=budget)

    def wrong_elements(self, sample: Sample) -> int:
        expected = self.expected[sample.number % INPUT_SETS]
        result = infer([stream.to(self.device) for stream in sample.streams], sample.points.to(self.device))
        return expected.elements - int(right_elements(*result, expected))


class _SlowConsumer:
    def __init__(self, inputs: _Inputs, *, samples: int, delay_s: float) -> None:
        self._inputs = inputs
        self._delay_s = delay_s
        self._deadline_s = _DEADLINE_S + 10 * samples * delay_s
        self._producer = Producer(inputs.host, samples=samples)
        self._wanted = list(range(samples))
        self.budget, self._samples = inputs.prefetch(self._producer)
        self._heap = [counter for counter in host_counters() if counter.name == "heap_bytes"]
        self.failures: list[str] = []
        self.most_undelivered_bytes = 0
        self.most_heap_bytes = 0.0

    def consume(self) -> None:
        # Every dtype of times has kernels of its own: compiling one takes seconds, and the heap keeps it.
        for sample in Producer(self._inputs.host, samples=2 * INPUT_SETS):
            self._inputs.wrong_elements(sample)
        (before,) = read(self._heap)
        seen: list[int] = []
        taken_bytes = 0
        with self._samples, _Alarm(self._deadline_s, self._samples.close) as alarm:
            wait_until(
                lambda: self.budget.statistics().is_full_and_waited_for, what="a full budget and a waiting producer"
            )
            for sample in alarm.until_rung(self._samples):
                seen.append(sample.number)
                taken_bytes += sample.nbytes
                wrong = self._inputs.wrong_elements(sample)
                if wrong:
                    self.failures.append(f"sample {sample.number}: {wrong} elements of its result are wrong")
                del sample
                self._work()
                (now,) = read(self._heap)
                self.most_heap_bytes = max(self.most_heap_bytes, now - before)
                undelivered = self._producer.read_bytes - taken_bytes
                self.most_undelivered_bytes = max(self.most_undelivered_bytes, undelivered)
        if alarm.has_rung:
            self.failures.append(f"only {len(seen)} samples came within {self._deadline_s:.0f} s")
        self._judge(seen)

    def _work(self) -> None:
        """The producer fills the budget meanwhile, or, on a busy machine, soon after."""
        threading.Event().wait(self._delay_s)
        with contextlib.suppress(TimeoutError):
            wait_until(
                lambda: self._producer.is_closed or self.budget.statistics().is_full_and_waited_for,
                deadline_s=_PATIENCE * self._delay_s,
            )

    def _judge(self, seen: list[int]) -> None:
        budget = self.budget.statistics()
        one_more = budget.limit_bytes + self._inputs.sample_bytes
        if budget.peak_bytes > budget.limit_bytes:
            self.failures.append(f"{budget.peak_bytes} bytes were held, the budget is {budget.limit_bytes}")
        if self.most_undelivered_bytes > one_more:
            self.failures.append(
                f"{self.most_undelivered_bytes} bytes were read and not taken, budget and one sample are {one_more}"
            )
        if not self.most_heap_bytes <= one_more + _HEAP_SLACK_BYTES:  # also if it could not be read
            self.failures.append(f"the heap grew by {self.most_heap_bytes} bytes, budget and one sample are {one_more}")
        if budget.waits < len(self._wanted) // 2:
            self.failures.append(f"the producer waited for room {budget.waits} times only: no back-pressure was there")
        if seen != self._wanted:
            self.failures.append(f"samples {seen} came, not 0 to {len(self._wanted) - 1} in order")
        if budget.used_bytes or budget.waiting:
            self.failures.append(f"{budget.used_bytes} bytes and {budget.waiting} claims are left in the budget")


class _Alarm:
    """Ends a loop over samples that never come."""

    def __init__(self, deadline_s: float, end: Callable[[], object]) -> None:
        self._end = end
        self._timer = threading.Timer(deadline_s, self._ring)
        self.has_rung = False

    def __enter__(self) -> _Alarm:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def until_rung(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        try:
            yield from samples
        except ClosedError:
            if not self.has_rung:
                raise

    def _ring(self) -> None:
        self.has_rung = True
        self._end()


def _left_behind(inputs: _Inputs, rounds: int) -> list[str]:
    """What an early break and an exception leave behind, over many rounds."""
    problems: set[str] = set()
    ways = {"an early break": _leave_early, "an exception": _meet_an_exception}
    for name, leave in ways.items():
        leaked = leaked_per_round(partial(_collect, problems, leave, inputs), rounds=rounds, warm_up=5)
        problems.update(
            f"{counter} grows by {amount:g} with each loop that ends by {name}" for counter, amount in leaked.items()
        )
    return sorted(problems)


def _collect(problems: set[str], leave: Callable[[_Inputs], Iterator[str]], inputs: _Inputs) -> None:
    problems.update(leave(inputs))


def _leave_early(inputs: _Inputs) -> Iterator[str]:
    producer = Producer(inputs.host, samples=SAMPLES)
    budget, samples = inputs.prefetch(producer)
    with samples:
        next(samples)
        wait_until(lambda: budget.statistics().is_full_and_waited_for)
    if not producer.is_closed:
        yield "the producer still closes after an early break"
    if budget.statistics().used_bytes:
        yield "bytes are held after an early break"


def _meet_an_exception(inputs: _Inputs) -> Iterator[str]:
    budget, samples = inputs.prefetch(Producer(inputs.host, samples=SAMPLES, fails_at=2))
    seen: list[int] = []
    try:
        with samples:
            seen.extend(sample.number for sample in samples)
        yield "the producer's exception did not arrive"
    except DamagedRecordingError:
        pass
    except ClosedError as error:
        yield f"the producer's exception did not arrive: {error}"
    if seen != [0, 1]:
        yield f"samples {seen} came before the exception, not 0 and 1"
    if budget.statistics().used_bytes:
        yield "bytes are held after an exception"
