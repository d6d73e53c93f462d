"""The drop-in dataset beside LeRobot's own, each measurement in a fresh process, in turn; medians and ratios."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from robocache.benchmarks import machine
from robocache.benchmarks.results import SCHEMA
from robocache.errors import ArgumentError, RecordingNotFoundError, RoboCacheError
from robocache.integrations.lerobot import LeRobotDatasetMetadata

CHILD = Path(__file__).with_name("loader_child.py")
TIMEOUT_S = 1800
# By case: what is compared, ours and theirs; the goal of the ratio.
CASES = {
    "first epoch, decoding and caching included": ("first", "frames", 5.0),
    "warm cache, uint8": ("warm_uint8", "frames", 300.0),
    "warm cache, float32": ("warm_float32", "frames", None),
    "warm cache, uint8, rc.Loader from disk": ("loader", "frames", 300.0),
    "low-dimensional columns only": ("numbers", "numbers", 1000.0),
}


@dataclass(frozen=True)
class LoaderSettings:
    """How to run.

    Args:
        batch_size: Samples a batch.
        size: (height, width) of the frames.
        repetitions: How often each side is measured, in turn.
        warm_epochs: Timed epochs from a filled cache.
        batches: At most so many an epoch. None: all.
    """

    batch_size: int = 32
    size: tuple[int, int] = (224, 224)
    repetitions: int = 3
    warm_epochs: int = 5
    batches: int | None = None


def measure_loader(
    root: Path, peer_python: Path | None, settings: LoaderSettings, report: Callable[[str], None]
) -> dict[str, Any]:
    """Measure; the result can be written as JSON.

    Args:
        root: A LeRobot dataset, v3.0, with an action.
        peer_python: A Python that has LeRobot. None: only ours is measured.
        settings: How.
        report: Called after each measurement with its name.

    Raises:
        RecordingNotFoundError: There is no dataset in that folder.
        ArgumentError: The dataset has no action.
        RoboCacheError: A measurement failed; the message holds the end of what it wrote.
    """
    if not (root / "meta" / "info.json").is_file():
        remedy = "name the folder of one, which holds meta/info.json"
        raise RecordingNotFoundError(root, "holds no LeRobot dataset", remedy=remedy)
    meta = LeRobotDatasetMetadata("local/set", root)
    if "action" not in meta.features:
        raise ArgumentError(f"{root} has no feature 'action', of which chunks are loaded")
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine.commit(),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "settings": asdict(settings),
        "device": "cpu",
        "dataset": {"frames": meta.total_frames, "episodes": meta.total_episodes, "cameras": len(meta.video_keys)},
        "load_average": machine.load_average(),
        "peer": None if peer_python is None else "lerobot",
    }
    runs: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(root, meta, Path(folder), peer_python, settings)
        for repetition in range(settings.repetitions):
            for name, request in bench.requests(repetition):
                runs.setdefault(name, []).append(bench.run(request))
                report(name)
    document["runs"] = runs
    document["cases"] = [_case(name, runs, *what) for name, what in CASES.items() if f"robocache {what[0]}" in runs]
    document["load_average_after"] = machine.load_average()
    return document


class _Bench:
    def __init__(
        self,
        root: Path,
        meta: LeRobotDatasetMetadata,
        folder: Path,
        peer_python: Path | None,
        settings: LoaderSettings,
    ) -> None:
        self._folder, self._peer_python = folder, peer_python
        self._request = {
            "side": "robocache",
            "loader": "torch",
            "root": str(root.resolve()),
            "cache": None,
            "size": list(settings.size),
            "uint8": True,
            "batch_size": settings.batch_size,
            "epochs": 1,
            "warm_epochs": 0,
            "batches": settings.batches,
            "cameras": meta.video_keys,
            "fps": meta.fps,
        }
        self._warm_epochs = settings.warm_epochs
        self._numbers = str(_without_video(root.resolve(), folder / "numbers", meta))
        self._has_video = bool(meta.video_keys)

    def requests(self, repetition: int) -> Sequence[tuple[str, dict[str, Any]]]:
        """Ours and theirs in turn; both get the same order of samples."""
        cache = {"cache": str(self._folder / f"cache{repetition}")}
        warm = {**cache, "warm_epochs": 1, "epochs": self._warm_epochs}
        numbers = {"root": self._numbers, "cameras": []}
        again = {**numbers, "warm_epochs": 1, "epochs": self._warm_epochs}
        made: list[tuple[str, dict[str, Any]]] = []
        if self._has_video:
            made += [
                ("robocache first", cache),
                ("lerobot frames", {}),
                ("robocache warm_uint8", warm),
                ("robocache warm_float32", {**warm, "uint8": False}),
                ("robocache loader", {**warm, "loader": "robocache"}),
            ]
        made += [
            ("lerobot numbers", numbers),
            ("robocache numbers", again),
        ]
        return [
            (name, {**self._request, **changed, "side": name.split()[0], "seed": repetition})
            for name, changed in made
            if self._peer_python is not None or name.startswith("robocache")
        ]

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        path = self._folder / "request.json"
        path.write_text(json.dumps(request), encoding="utf-8")
        is_peer = request["side"] == "lerobot"
        python = str(self._peer_python) if is_peer else sys.executable
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self._folder / "home")}
        if is_peer:
            environment.pop("PYTHONPATH", None)
        try:
            done = subprocess.run(
                [python, str(CHILD), str(path)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_S,
            )
            done.check_returncode()
            result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.CalledProcessError as error:
            raise RoboCacheError(
                f"{python} failed: {(str(error.stderr).strip() or 'it said nothing').splitlines()[-1]}"
            ) from error
        except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
            raise RoboCacheError(f"{python} gave no result: {error}") from error
        return result


def _without_video(root: Path, folder: Path, meta: LeRobotDatasetMetadata) -> Path:
    """The dataset without its cameras: what "low-dimensional only" means to a dataset that reads all it lists."""
    folder.mkdir()
    for part in ("meta", "data"):  # copied: a link would lead out of the dataset, and is refused
        shutil.copytree(root / part, folder / part, copy_function=shutil.copyfile)
    info = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    info["features"] = {name: one for name, one in info["features"].items() if name not in meta.camera_keys}
    (folder / "meta" / "info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def _case(
    name: str, runs: dict[str, list[dict[str, Any]]], ours: str, theirs: str, goal: float | None
) -> dict[str, Any]:
    mine, others = runs[f"robocache {ours}"], runs.get(f"lerobot {theirs}")
    # Batches that were made ahead come at once, others late: of those the whole time counts.
    is_epoch, is_ahead = ours == "first", ours == "loader"
    case: dict[str, Any] = {
        "name": name,
        "robocache_s_per_batch": _per_batch(mine, whole=is_epoch or is_ahead),
        "robocache_peak_bytes": median(run["peak_bytes"] for run in mine),
    }
    if ours.startswith("warm") or is_ahead:
        case["copy_share"] = median(run["copy_seconds"] for run in mine) / case["robocache_s_per_batch"]
    if others is not None:
        case |= {
            "lerobot_s_per_batch": _per_batch(others, whole=is_epoch),
            "lerobot_peak_bytes": median(run["peak_bytes"] for run in others),
            "goal": goal,
        }
        case["ratio"] = case["lerobot_s_per_batch"] / case["robocache_s_per_batch"]
    return case


def _per_batch(runs: list[dict[str, Any]], *, whole: bool) -> float:
    """The median over repetitions: of an epoch with the opening, or of its median batch."""
    if whole:
        return float(median(run["seconds"] / len(run["batch_seconds"]) for run in runs))
    return float(median(median(run["batch_seconds"]) for run in runs))
