"""The GPU's timer on a made-up GPU that knows how long everything takes: what is divided and subtracted."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from robocache.benchmarks import device_timing

FLUSH_US, LAUNCH_US, GRAPH_START_US, COPY_US = 70.0, 1.5, 3.0, 1000.0
MEMORY = 8 << 20


class Gpu:
    """Device time passes when work is done; a captured graph does its work when it is replayed."""

    def __init__(self):
        self.now_us, self.captured = 0.0, None

    def work(self, microseconds):
        if self.captured is None:
            self.now_us += microseconds
        else:
            self.captured.append(microseconds)

    def tensor(self, *shape, microseconds):
        tensor = SimpleNamespace(nbytes=shape[0] if shape else 1)
        tensor.zero_ = lambda: self.work(microseconds)
        tensor.copy_ = lambda _: self.work(COPY_US)
        return tensor

    def graph(self):
        graph = SimpleNamespace(works=[])

        def replay():
            self.now_us += GRAPH_START_US + sum(graph.works)

        graph.replay = replay
        return graph

    @contextlib.contextmanager
    def capture(self, graph):
        self.captured = graph.works
        try:
            yield
        finally:
            self.captured = None

    def event(self, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=None, synchronize=lambda: None)

        def record():
            assert self.captured is None
            event.at = self.now_us

        event.record = record
        event.elapsed_time = lambda later: (later.at - event.at) / 1e3
        return event

    def torch(self):
        stream = SimpleNamespace(wait_stream=lambda _: None)
        cuda = SimpleNamespace(
            CUDAGraph=self.graph,
            Event=self.event,
            Stream=lambda: stream,
            current_device=lambda: 0,
            current_stream=lambda: stream,
            empty_cache=lambda: None,
            get_device_properties=lambda _: SimpleNamespace(L2_cache_size=1 << 20),
            graph=self.capture,
            mem_get_info=lambda: (8 * MEMORY, 8 * MEMORY),
            stream=lambda _: contextlib.nullcontext(),
            synchronize=lambda: None,
        )
        return SimpleNamespace(
            cuda=cuda,
            empty=lambda *shape, **_: self.tensor(*shape, microseconds=FLUSH_US),
            empty_like=lambda other: self.tensor(other.nbytes, microseconds=0.0),
            zeros=lambda *shape, **_: self.tensor(*shape, microseconds=LAUNCH_US),
            int8=torch.int8,
        )


@pytest.fixture
def gpu(monkeypatch):
    made_up = Gpu()
    monkeypatch.setattr(device_timing, "torch", made_up.torch())
    return made_up


def test_device_times_are_of_one_call_and_cold_ones_without_the_start_of_a_graph(gpu):
    """Fails when a time is not divided by the calls of a graph, or the flush gets into the cold one."""
    timer = device_timing.DeviceTimer(device_timing.Rounds())
    start_a_call = GRAPH_START_US / device_timing.CALLS
    assert timer.launch_us == pytest.approx(LAUNCH_US + start_a_call)
    assert timer.copy_bytes_per_s == pytest.approx(2 * MEMORY / (COPY_US / 1e6))
    times, failures = timer.measure({"a": lambda: gpu.work(10.0), "b": lambda: gpu.work(200.0)})
    assert failures == {}
    for name, microseconds in (("a", 10.0), ("b", 200.0)):
        assert times[name]["device_us"] == pytest.approx(microseconds + start_a_call)
        assert times[name]["cold_us"] == pytest.approx(microseconds + start_a_call)
    assert set(times["a"]) == {"device_us", "cold_us", "issue_us", "synced_us"}


def test_eager_calls(gpu):
    """Fails when what cannot be captured is timed with its neighbours, or a cold call with its flush."""
    timer = device_timing.DeviceTimer(device_timing.Rounds())
    assert timer.measure_eager(lambda: gpu.work(30.0))["device_us"] == pytest.approx(30.0)
    assert timer.cold_us(lambda: gpu.work(40.0)) == pytest.approx(40.0 + GRAPH_START_US / device_timing.CALLS)


def test_what_cannot_be_captured_is_named_and_the_others_are_timed(gpu):
    """Fails when one peer that synchronises ends the whole run."""

    def synchronises():
        if gpu.captured is not None:
            raise RuntimeError("operation not permitted when stream is capturing")

    timer = device_timing.DeviceTimer(device_timing.Rounds())
    times, failures = timer.measure({"bad": synchronises, "good": lambda: gpu.work(10.0)})
    assert set(times) == {"good"}
    assert failures["bad"].startswith("cannot be captured in a CUDA graph: RuntimeError: operation not permitted")
