"""A run's figures for Prometheus, over HTTP, from one thread and in fixed memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from robocache.errors import ArgumentError, BackendUnavailableError
from robocache.stress.readings_so_far import ReadingsSoFar
from robocache.stress.resources import Counter
from robocache.stress.verdicts import Outcome
from robocache.version import __version__

PREFIX = "robocache_stress_"
LOOPBACK = "127.0.0.1"
_OUTCOMES: tuple[Outcome, ...] = ("FAIL", "INVALID", "INCONCLUSIVE", "PASS")  # the worst first
_SLOWEST_CLIENT_S = 5.0


@dataclass(frozen=True)
class Labels:
    """What a run is, for the metric `robocache_stress_run_info`.

    Args:
        scenario: Its name.
        device: Where it runs.
        planned_seconds: How long it is to take.
    """

    scenario: str
    device: str
    planned_seconds: float


class MetricsServer:
    """`http://host:port/metrics`: every counter, iterations, throughput, what monitors sampled, the verdict so far.

    It satisfies the seam of the monitors: `start` binds the port, `close` lets it go. The run tells it each reading.

    Args:
        port: 0 takes a free one; `url` says which.
        host: Whom to serve: this machine alone unless told.
        labels: What the run is.
        counters: What is read, in the order of the counts of `reading`.

    Raises:
        ArgumentError: A port that is none.
    """

    def __init__(self, port: int, *, labels: Labels, counters: Sequence[Counter], host: str = LOOPBACK) -> None:
        if not 0 <= port < 2**16:
            raise ArgumentError(f"a port is a number from 0 to 65535, got {port!r}")
        self._address = (host, port)
        self._labels = labels
        self._readings = ReadingsSoFar(counters)
        self._lock = threading.Lock()
        self._iteration, self._seconds, self._read_at = 0, 0.0, time.time()
        self._counts: tuple[float, ...] = ()
        self._also: dict[str, float] = {}
        self._worst: Outcome = "PASS"
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._families: Any = None

    @property
    def url(self) -> str:
        """Where the metrics are, or will be."""
        host, port = self._address
        if self._server is not None:
            port = self._server.server_port
        return f"http://{host}:{port}/metrics"

    def check(self) -> None:
        """Find out whether `start` would work, before a run has begun for nothing; raises what that raises."""
        self._bound().server_close()

    def start(self) -> None:
        """Serve.

        Raises:
            BackendUnavailableError: prometheus-client is not installed.
            ArgumentError: The port cannot be had.
        """
        self._server = self._bound()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="robocache-metrics", daemon=True
        )
        self._thread.start()

    def _bound(self) -> WSGIServer:
        try:
            from prometheus_client import CollectorRegistry, core, make_wsgi_app
        except ImportError as error:
            raise BackendUnavailableError("metrics need prometheus-client; pip install 'robocache[metrics]'") from error
        self._families = core
        registry = CollectorRegistry()
        registry.register(self)
        host, port = self._address
        try:
            return make_server(host, port, make_wsgi_app(registry), WSGIServer, _Quiet)
        except (OSError, OverflowError) as error:
            raise ArgumentError(f"metrics cannot be served at {host} port {port}: {error}; take another") from error

    def reading(
        self, iteration: int, seconds: float, counts: Sequence[float], also: Mapping[str, float] | None = None
    ) -> None:
        """Told by the run at each reading.

        Args:
            iteration: How many are done.
            seconds: Since the start.
            counts: One for each counter.
            also: What the monitors sampled, by name.
        """
        with self._lock:
            self._iteration, self._seconds, self._read_at = iteration, seconds, time.time()
            self._counts = tuple(counts)
            self._also = dict(also or {})
            self._readings.add(iteration, seconds, counts)

    def problem(self, outcome: Outcome) -> None:
        """Told by the run when something is wrong that no counter shows.

        Args:
            outcome: What that makes of the run.
        """
        with self._lock:
            self._worst = min(self._worst, outcome, key=_OUTCOMES.index)

    def sample(self) -> Mapping[str, float]:
        """Nothing: it shows what others sample."""
        return {}

    def problems(self) -> list[str]:
        """Nothing: who cannot be asked for metrics does not spoil the run."""
        return []

    def close(self) -> None:
        """End the thread and free the port."""
        server, self._server = self._server, None
        if server is None:
            return
        if self._thread is not None:
            server.shutdown()
            self._thread.join()
        server.server_close()

    def collect(self) -> Iterable[Any]:
        """The metric families; called by prometheus-client at each request."""
        gauge, counted = self._families.GaugeMetricFamily, self._families.CounterMetricFamily
        outcomes = self._readings.outcomes()
        rate = self._readings.iterations_per_second()
        with self._lock:
            counts = dict(zip((each.name for each in self._readings.counters), self._counts, strict=False))
            also, worst = self._also, self._worst
            iteration, seconds, read_at = self._iteration, self._seconds, self._read_at
        about = self._families.InfoMetricFamily(f"{PREFIX}run", "What runs.")
        names = {"scenario": self._labels.scenario, "device": self._labels.device, "version": __version__}
        about.add_metric([], names)
        yield about
        yield counted(f"{PREFIX}iterations", "Iterations done.", value=iteration)
        yield gauge(f"{PREFIX}iterations_per_second", "Over the last readings.", value=rate)
        yield gauge(f"{PREFIX}elapsed_seconds", "Of the run, in all its processes.", value=seconds)
        yield gauge(f"{PREFIX}planned_seconds", "Of the run.", value=self._labels.planned_seconds)
        yield gauge(f"{PREFIX}last_reading_timestamp_seconds", "When counters were last read.", value=read_at)
        yield from self._verdicts(outcomes, worst)
        for name, value in counts.items():
            if not math.isnan(value):
                yield gauge(PREFIX + name, f"Counter {name} at the last reading.", value=value)
        for name, value in also.items():
            if not math.isnan(value):
                family = counted if name.endswith("_total") else gauge
                yield family(PREFIX + name, f"Sampled with the last reading: {name}.", value=value)

    def _verdicts(self, outcomes: Mapping[str, Outcome], worst: Outcome) -> Iterable[Any]:
        gauge = self._families.GaugeMetricFamily
        whole = (
            min((worst, *outcomes.values()), key=_OUTCOMES.index)
            if outcomes
            else min((worst, "INCONCLUSIVE"), key=_OUTCOMES.index)
        )
        verdict = gauge(f"{PREFIX}verdict", "1 for the verdict so far.", labels=["outcome"])
        each = gauge(f"{PREFIX}leak_verdict", "1 for the counter's verdict so far.", labels=["counter", "outcome"])
        for outcome in _OUTCOMES:
            verdict.add_metric([outcome], float(outcome == whole))
            for name, its in outcomes.items():
                each.add_metric([name, outcome], float(outcome == its))
        yield verdict
        yield each


class _Quiet(WSGIRequestHandler):
    timeout = _SLOWEST_CLIENT_S  # one thread serves all; a client that says nothing must not keep it

    def log_message(self, *_: object) -> None:
        """Drop the line."""
