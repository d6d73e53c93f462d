"""Inference on several CUDA streams at once: bit for bit right, truly overlapping, and told apart from a race."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from robocache.errors import DeviceError
from robocache.stress.report import Lines, Report, silent
from robocache.stress.settings import Settings
from robocache.stress.workload import InputSet, Workload, infer, make_input_set, right_elements

STREAMS = 4
ITERATIONS = 100
CONTROLS = 10
_TRIES = 3  # of a control: other programs on the machine may keep the reader waiting until the writer is done
_SLEEP_CYCLES = 50_000_000  # some 30 ms: long enough for the host to queue work on every stream behind it


def multistream_inference(
    settings: Settings, lines: Lines = silent, *, streams: int = STREAMS, iterations: int = ITERATIONS
) -> Report:
    """`streams` streams run `iterations` each, on inputs of their own.

    A failure of the report is a wrong element on any stream, streams whose work never overlapped, or a control that
    did not work: without `wait_stream` behind a slow writer the results must be wrong, with it they must be right.

    Raises:
        DeviceError: `settings.device` is not a GPU: nothing else has streams.
    """
    if torch.device(settings.device).type != "cuda":
        raise DeviceError(f"streams need a CUDA device, but device is {settings.device!r}")
    started = time.monotonic()
    wrong, timing = _run_streams(settings, streams, iterations)
    # The same shapes as before: a kernel that is compiled first would outlast the writer's sleep.
    inputs = make_input_set(settings.seed, batch=settings.batch_size, device=settings.device)
    waited = sum(_wrong_after_slow_writer(inputs, waits=True) > 0 for _ in range(CONTROLS))
    raced = sum(any(_wrong_after_slow_writer(inputs, waits=False) for _ in range(_TRIES)) for _ in range(CONTROLS))
    failures = [f"stream {index}: {count} elements are wrong" for index, count in enumerate(wrong) if count]
    if timing.overlap_ms <= 0 or timing.last_start_ms > 2 * timing.first_start_ms:
        failures.append(f"the streams did not work at the same time, so nothing was shown: {timing}")
    if raced < CONTROLS:
        failures.append(f"without wait_stream only {raced} of {CONTROLS} results were wrong: a race would go unseen")
    if waited:
        failures.append(f"with wait_stream {waited} of {CONTROLS} results were wrong")
    done = f"{streams} streams x {iterations} iterations"
    lines(f"{done}: {sum(wrong)} wrong elements, {timing.overlap_ms:.1f} ms with all at work")
    return Report(
        "multistream-inference",
        settings.device,
        iterations=streams * iterations,
        seconds=time.monotonic() - started,
        failures=tuple(failures),
        measured={"wrong_elements": sum(wrong), "overlap_ms": timing.overlap_ms, "races_seen": raced},
    )


@dataclass(frozen=True)
class _Timing:
    """When work began and ended, in ms since the queues were filled, each stream having slept first.

    Streams that sleep side by side begin together; streams that wait for each other begin one sleep apart.
    """

    first_start_ms: float
    last_start_ms: float
    first_end_ms: float

    @property
    def overlap_ms(self) -> float:
        return self.first_end_ms - self.last_start_ms


def _run_streams(settings: Settings, count: int, iterations: int) -> tuple[list[int], _Timing]:
    """Wrong elements of each stream, and when they worked."""
    device = torch.device(settings.device)
    workloads = [
        Workload(batch=settings.batch_size, device=device, seed=settings.seed + index, is_bit_exact=True)
        for index in range(count)
    ]
    streams = [_stream(device) for _ in range(count)]
    for workload, stream in zip(workloads, streams, strict=True):  # kernels are compiled here, not in the measurement
        _warm_up(workload, stream)
    torch.cuda.synchronize(device)
    origin, starts, ends = (_events(1)[0], _events(count), _events(count))
    origin.record()
    for stream, start in zip(streams, starts, strict=True):
        with torch.cuda.stream(stream):
            _keep_busy()
            start.record()
    for iteration in range(iterations):
        for workload, stream in zip(workloads, streams, strict=True):
            with torch.cuda.stream(stream):
                workload.run(iteration)
    for stream, end in zip(streams, ends, strict=True):
        end.record(stream)
    wrong = []
    for workload, stream in zip(workloads, streams, strict=True):
        with torch.cuda.stream(stream):
            wrong.append(workload.wrong_elements())
    torch.cuda.synchronize(device)
    began = [origin.elapsed_time(start) for start in starts]
    ended = [origin.elapsed_time(end) for end in ends]
    return wrong, _Timing(min(began), max(began), min(ended))


def _warm_up(workload: Workload, stream: torch.cuda.Stream) -> None:
    stream.wait_stream(torch.cuda.current_stream(stream.device))  # the inputs were made there
    with torch.cuda.stream(stream):
        for iteration in range(3):
            workload.run(iteration)
        workload.wrong_elements()


def _wrong_after_slow_writer(inputs: InputSet, *, waits: bool) -> int:
    """One result, computed on one stream from inputs that another stream still writes: how many elements are wrong."""
    device = inputs.points.device
    streams, points = inputs.fresh()
    points.zero_()
    writer, reader = _stream(device), _stream(device)
    torch.cuda.synchronize(device)
    with torch.cuda.stream(writer):
        _keep_busy()
        points.copy_(inputs.points)
    if waits:
        reader.wait_stream(writer)
    with torch.cuda.stream(reader):
        right = int(right_elements(*infer(streams, points), inputs))
    torch.cuda.synchronize(device)
    return inputs.elements - right


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _keep_busy() -> None:
    torch.cuda._sleep(_SLEEP_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001  the only way torch has


def _events(count: int) -> list[torch.cuda.Event]:
    return [torch.cuda.Event(enable_timing=True) for _ in range(count)]  # type: ignore[no-untyped-call]
