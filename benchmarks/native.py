"""How many times as long vectorised PyTorch takes as the compiled CPU library, beside what was promised.

    python -m benchmarks.native [--store benchmarks/results/native_cpu.json] [--threads 1 2]

On each number of threads the library, its portable backend and the eager peer of `robocache bench ops` take turns, and
so do the numbers of threads for the library alone. The fastest samples are compared, since whatever else the machine
does makes none faster. What is wrong is not timed; a bound that is missed is reported, and no error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robocache.benchmarks import host_timing, machine, tables
from robocache.benchmarks.check import Judge
from robocache.benchmarks.clock_problem import ClockProblem
from robocache.benchmarks.peers_torch import torch_peers
from robocache.benchmarks.voxel_problem import VoxelProblem
from robocache.ops import native_library
from robocache.ops.fuse_multimodal.cases import SPEED_CASES as FUSES
from robocache.ops.resample_trajectories.cases import SPEED_CASES as RESAMPLES
from robocache.ops.voxelize_pointcloud.cases import SPEED_CASES as CLOUDS

PROMISED = ((FUSES[0], 10), (FUSES[1], 10), (RESAMPLES[0], 3), (CLOUDS[0], 3), (CLOUDS[1], 3), (CLOUDS[3], 2))
DTYPES = (torch.float32, torch.bfloat16)
EFFORT = host_timing.Effort(least_rounds=5, seconds=0.8)
PEER = "torch eager"
Call = Callable[[], Any]


def problems() -> Iterator[tuple[str, float, ClockProblem | VoxelProblem]]:
    """Name, bound and inputs: of float32 and bfloat16 data, points, or where there are some, features."""
    for dtype in DTYPES:
        for case, bound in PROMISED:
            name = f"{case}, {str(dtype).removeprefix('torch.')}"
            if case not in CLOUDS:
                yield name, bound, ClockProblem.of(replace(case, dtype=dtype), "cpu")
                continue
            cloud = VoxelProblem.of(case, "cpu")
            if cloud.features is None:
                yield name, bound, replace(cloud, points=cloud.points.to(dtype))
            else:
                yield name, bound, replace(cloud, features=cloud.features.to(dtype))


def measure(problem: ClockProblem | VoxelProblem, threads: list[int]) -> dict[str, Any]:
    """Microseconds by what was timed, for each number of threads; and what is wrong."""
    peer = torch_peers(problem, with_compile=False)[0].run
    calls: dict[str, Call] = {"native": problem.call("native"), "pytorch": problem.call("pytorch"), PEER: peer}
    judge = Judge(problem)
    wrong = {name: judge.fault(call(), is_ours=name != PEER) for name, call in calls.items()}
    calls = {name: call for name, call in calls.items() if wrong[name] is None}
    found: dict[str, Any] = {"wrong": {name: fault for name, fault in wrong.items() if fault is not None}}
    for count in threads:
        found[str(count)] = _fastest({name: _on(count, call) for name, call in calls.items()})
    if "native" in calls:
        found["native_by_threads"] = _fastest({str(count): _on(count, calls["native"]) for count in threads})
    return found


def _on(threads: int, call: Call) -> Call:
    def run() -> Any:  # noqa: ANN401
        torch.set_num_threads(threads)
        return call()

    return run


def _fastest(calls: dict[str, Call]) -> dict[str, float]:
    return {name: round(times["wall_fastest_us"], 1) for name, times in host_timing.wall_times(calls, EFFORT).items()}


def table(document: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: how many times as long each takes, on each number of threads."""
    threads, rows = [str(count) for count in document["threads"]], []
    for case in document["cases"]:
        cells = [f"{case['bound']:.0f}x, {verdict(case, threads[0])}"]
        for count in threads:
            cells += [_ratio(case[count], PEER), _ratio(case[count], "pytorch")]
        alone = case.get("native_by_threads", {})
        cells += [f"{alone[threads[0]] / alone[count]:.2f}x" if alone else tables.NOTHING for count in threads[1:]]
        rows.append((case["name"], *cells))
    header = ["case", "promised"]
    for count in threads:
        header += [f"{PEER}, {count} thr.", f"`pytorch`, {count} thr."]
    return (*header, *(f"native on {count} beside {threads[0]}" for count in threads[1:])), rows


def verdict(case: dict[str, Any], threads: str) -> str:
    """Whether the bound is kept, against the peer of other people."""
    times = case[threads]
    if "native" not in times or PEER not in times:
        return "not timed"
    return "reached" if times[PEER] / times["native"] >= case["bound"] else "missed"


def _ratio(times: dict[str, float], name: str) -> str:
    return f"{times[name] / times['native']:.1f}x" if {name, "native"} <= times.keys() else tables.NOTHING


def main() -> int:
    """1 where a result is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="write the JSON here")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    document: dict[str, Any] = {
        **machine.commit(),
        "machine": machine.describe()["cpu"],
        "versions": machine.versions(),
        "instructions": native_library.instructions(),
        "load_average": machine.load_average()[0],
        "threads": options.threads,
        "cases": [],
    }
    with torch.no_grad():
        for name, bound, problem in problems():
            document["cases"].append({"name": name, "bound": bound, **measure(problem, options.threads)})
            print("  ".join(table({**document, "cases": document["cases"][-1:]})[1][0]), flush=True)
    if options.store is not None:
        options.store.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    wrong = [f"{case['name']}: {case['wrong']}" for case in document["cases"] if case["wrong"]]
    print(*wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
