"""Times on a GPU: device time of graph replays with warm and cold L2, cost of issuing a call, latency of a call.

All candidates are measured in turn, round after round. What a one-element kernel takes, measured the same way, is kept
as the floor of a launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

CALLS = 20  # in one graph
Run = Callable[[], Any]


@dataclass(frozen=True)
class Rounds:
    """How often to measure; each figure is the median of its samples.

    Args:
        warm: Replays of a graph of 20 calls.
        cold: Calls after a flush of the L2 cache.
        issue: Batches of 20 eager calls without synchronisation in between.
        synced: Eager calls, each waited for.
    """

    warm: int = 15
    cold: int = 21
    issue: int = 15
    synced: int = 30


class DeviceTimer:
    """Measures calls on the current GPU.

    Args:
        rounds: How often.
    """

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        l2_bytes = int(getattr(properties, "L2_cache_size", 64 << 20))
        self._flush = torch.empty(max(4 * l2_bytes, 256 << 20), dtype=torch.int8, device="cuda")
        self.copy_bytes_per_s = self._copy_bandwidth()
        one = torch.zeros(1, device="cuda")
        self.launch_us = self._warm({"launch": capture(one.zero_, CALLS)})["launch"]
        graph = capture(one.zero_, 1)
        self._cold_excess = {
            "graph": self._cold_raw({"launch": graph.replay})["launch"] - self.launch_us,
            "eager": self._cold_raw({"launch": one.zero_})["launch"] - self.launch_us,
        }

    def measure(self, runs: Mapping[str, Run]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
        """`device_us`, `cold_us`, `issue_us` and `synced_us` of each call, and why others could not be captured.

        Args:
            runs: What to time, by name: capturable in a CUDA graph, and called before.
        """
        graphs, failures = _captured(runs, CALLS)
        runs = {name: run for name, run in runs.items() if name in graphs}
        warm = self._warm(graphs)
        graphs.clear()
        torch.cuda.empty_cache()
        singles = {name: capture(run, 1) for name, run in runs.items()}
        cold = self._cold_raw({name: graph.replay for name, graph in singles.items()})
        singles.clear()
        torch.cuda.empty_cache()
        issue, synced = self._issue(runs), self._synced(runs)
        excess = self._cold_excess["graph"]
        times = {
            name: {
                "device_us": warm[name],
                "cold_us": max(cold[name] - excess, 0.0),
                "issue_us": issue[name],
                "synced_us": synced[name],
            }
            for name in runs
        }
        return times, failures

    def measure_eager(self, run: Run) -> dict[str, float]:
        """Device time with events around eager calls, for what cannot be captured.

        Args:
            run: What to time.
        """
        samples = []
        for _ in range(self._rounds.warm):
            start, end = _events()
            torch.cuda.synchronize()
            start.record()
            for _ in range(CALLS):
                run()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) * 1e3 / CALLS)
        return {"device_us": median(samples), "synced_us": self._synced({"run": run})["run"]}

    def cold_us(self, run: Run) -> float:
        """Device time of one eager call after a flush of the L2 cache.

        Args:
            run: What to time; its issue must take the host less than the flush takes the GPU, about 60 us.
        """
        run()
        return max(self._cold_raw({"run": run})["run"] - self._cold_excess["eager"], 0.0)

    def _warm(self, graphs: Mapping[str, torch.cuda.CUDAGraph]) -> dict[str, float]:
        samples: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(self._rounds.warm):
            for name, graph in graphs.items():
                start, end = _events()
                graph.replay()
                start.record()
                graph.replay()
                end.record()
                end.synchronize()
                samples[name].append(start.elapsed_time(end) * 1e3 / CALLS)
        return {name: median(times) for name, times in samples.items()}

    def _cold_raw(self, runs: Mapping[str, Run]) -> dict[str, float]:
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self._rounds.cold):
            for name, run in runs.items():
                start, end = _events()
                torch.cuda.synchronize()
                # Flushed twice, so that the host has issued the call before the GPU comes to it.
                self._flush.zero_()
                self._flush.zero_()
                start.record()
                run()
                end.record()
                end.synchronize()
                samples[name].append(start.elapsed_time(end) * 1e3)
        return {name: median(times) for name, times in samples.items()}

    def _issue(self, runs: Mapping[str, Run]) -> dict[str, float]:
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self._rounds.issue):
            for name, run in runs.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(CALLS):
                    run()
                samples[name].append((time.perf_counter() - start) * 1e6 / CALLS)
        torch.cuda.synchronize()
        return {name: median(times) for name, times in samples.items()}

    def _synced(self, runs: Mapping[str, Run]) -> dict[str, float]:
        samples: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self._rounds.synced):
            for name, run in runs.items():
                torch.cuda.synchronize()
                start = time.perf_counter()
                run()
                torch.cuda.synchronize()
                samples[name].append((time.perf_counter() - start) * 1e6)
        return {name: median(times) for name, times in samples.items()}

    def _copy_bandwidth(self) -> float:
        """Bytes read plus bytes written a second, of a copy that no cache can hold."""
        free, _ = torch.cuda.mem_get_info()
        source = torch.empty(min(2 << 30, free // 8), dtype=torch.int8, device="cuda")
        source.zero_()
        destination = torch.empty_like(source)
        samples: list[float] = []
        for _ in range(10):
            start, end = _events()
            start.record()
            destination.copy_(source)
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end) / 1e3)
        return 2 * float(source.nbytes) / median(samples)


def capture(run: Run, calls: int) -> torch.cuda.CUDAGraph:
    """A CUDA graph of so many calls.

    Args:
        run: What to capture; its result is dropped, so that the next call takes the same memory again.
        calls: How many.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made on first use on a stream must not be made during capture
        run()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return graph


def _captured(runs: Mapping[str, Run], calls: int) -> tuple[dict[str, torch.cuda.CUDAGraph], dict[str, str]]:
    graphs, failures = {}, {}
    for name, run in runs.items():
        try:
            graphs[name] = capture(run, calls)
        except Exception as error:  # noqa: BLE001  any library may fail in any way; the reason becomes the result
            torch.cuda.synchronize()
            failures[name] = f"cannot be captured in a CUDA graph: {type(error).__name__}: {error}"
    return graphs, failures


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    return start, end
