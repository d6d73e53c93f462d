from __future__ import annotations

import os

import pytest
import torch

from robocache.benchmarks import run
from robocache.benchmarks.workloads import workloads

NO_GPU = "needs a GPU, and torch.cuda.is_available() is False"
QUICK = run.Settings("cpu", quick=True, with_compile=False)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        (pytest.fail if os.environ.get("ROBOCACHE_REQUIRE_GPU") == "1" else pytest.skip)(NO_GPU)


@pytest.fixture(scope="session")
def measured():
    """Measure tiny cases of these names on the CPU; the document."""

    def measure(*names):
        return run.measure(QUICK, workloads("cpu", quick=True, wanted=names), lambda _: None)

    return measure


@pytest.fixture
def result():
    """A made-up result of a GPU: two cases, one backend, two peers, round numbers."""

    def entry(name, device_us):
        times = {"device_us": device_us, "cold_us": device_us + 1, "issue_us": 8.0, "synced_us": 20.0}
        kind = "backend" if name in ("cuda", "pytorch") else "peer"
        return {"name": name, "kind": kind, "status": "measured", "times": times}

    def case(name, size, ours, eager):
        numpy = {"name": "numpy", "kind": "peer", "status": "measured", "times": {"wall_us": 2000.0}}
        cupy = {"name": "cupy", "kind": "peer", "status": "absent", "reason": "not installed"}
        results = [entry("cuda", ours), entry("torch eager", eager), numpy, cupy]
        results[0] |= {"share": 5.0 / ours, "ratios": {"torch eager": eager / ours, "numpy": 100.0}}
        return {
            "name": name,
            "operation": "resample_trajectories",
            "scaled": None,
            "needed_bytes": size,
            "output_bytes": size // 2,
            "floor_us": 5.0,
            "results": results,
        }

    points = [
        {"wanted_bytes": wanted, "output_bytes": wanted, "batch": 1, "time_us": 1.0, "ps_a_byte": cost}
        for wanted, cost in ((16 << 20, 0.5), (1 << 30, 0.6))
    ]
    scaling = {
        "operation": "resample_trajectories",
        "backend": "cuda",
        "points": points,
        "left_out_bytes": [16 << 30],
        "faults": [],
        "spread": 1.2,
        "within_bounds": True,
    }
    return {
        "schema": 1,
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "machine": {"gpu": "GPU <1>", "cpu": "CPU", "cores": 2},
        "versions": {"torch": "2.11", "triton": "3.6"},
        "settings": {"threads": 1},
        "device": "cuda",
        "load_average": [1.0, 1.0, 1.0],
        "load_average_after": [2.0, 1.0, 1.0],
        "copy_bytes_per_s": 4.0e12,
        "launch_us": 1.5,
        "cases": [case("small", 1_000_000, 10.0, 40.0), case("large", 100_000_000, 50.0, 500.0)],
        "scaling": [scaling],
    }
