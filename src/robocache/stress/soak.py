"""The loader for hours over recordings: batches are what the data set holds, and that is what the files hold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from robocache.align import Align, Rate
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.dataset import Array, EpisodeArrays, Feature
from robocache.cache.opening import open_dataset
from robocache.cache.units import Source
from robocache.loader import Batch, Loader
from robocache.readers import SyntheticRobot
from robocache.stress.settings import Settings

WINDOW = 2
RATE_HZ = 50.0
MEMORY = "256MiB"
_BATCHES_PER_LOOK = 100
_SECONDS_PER_BUILD = 600.0
_MOST_FAILURES = 20


def generated_robot() -> SyntheticRobot:
    """The recording of a run that was given none: two episodes of a simulated robot."""
    return SyntheticRobot(7, duration_s=4.0, episodes=2, lidar_points=128)


class Soak:
    """Batches of a loader, epoch after epoch.

    Every sample must come once an epoch. One batch of a hundred is compared with the episodes that it came from, and
    every ten minutes an episode is read and aligned anew from its files and compared with the cached one.

    Args:
        source: Whatever `robocache.open` takes.
        settings: Device, batch size and seed.
        cache: Where the aligned episodes lie; it is filled first.
        rate_hz: Frames a second.
        source_rate_hz: The rate of a recording that has no times.
    """

    warm_up = 20
    deadline_s = 600.0
    maps_files = True

    def __init__(
        self,
        source: Source,
        settings: Settings,
        cache: Path,
        *,
        rate_hz: float = RATE_HZ,
        source_rate_hz: float | None = None,
    ) -> None:
        self._source, self._spec, self._source_rate_hz = source, Align(Rate(rate_hz)), source_rate_hz
        self._dataset = self._open(cache)
        self._dataset.build(workers=1)
        self._loader = Loader(
            self._dataset,
            batch_size=settings.batch_size,
            window=WINDOW,
            device=settings.device,
            memory=MEMORY,
            seed=settings.seed,
        )
        samples = np.maximum(self._dataset.lengths - WINDOW + 1, 0)
        self._first = np.concatenate([[0], np.cumsum(samples)])
        self._seen = np.zeros(int(self._first[-1]), np.int64)
        self._batches: Iterator[Batch] = iter(())
        self._failures: list[str] = []
        self._epochs = self._looks = self._builds = 0
        self._next_build = time.monotonic()

    def run(self, iteration: int) -> None:
        """One batch."""
        batch = next(self._batches, None)
        if batch is None:
            self._begin_epoch()
            batch = next(self._batches)
        episodes, frames = batch.episode.cpu().numpy(), batch.frame.cpu().numpy()
        np.add.at(self._seen, self._first[episodes] + frames, 1)
        if iteration % _BATCHES_PER_LOOK == 0:
            self._looks += 1
            self._complain(self._difference(batch, episodes, frames))
        if time.monotonic() >= self._next_build:
            self._complain(self._difference_from_files(self._builds % len(self._dataset.lengths)))
            self._builds += 1
            self._next_build = time.monotonic() + _SECONDS_PER_BUILD

    def failures(self) -> list[str]:
        """Samples lost or doubled, and batches or cached episodes that hold something else."""
        return self._failures

    def measured(self) -> dict[str, float | str]:
        """How much was looked at by this process, and what the loader held."""
        statistics = self._loader.statistics()
        return {
            "epochs": self._epochs,
            "batches_compared": self._looks,
            "episodes_aligned_anew": self._builds,
            "loader_tier": statistics.tier,
            "loader_peak_bytes": statistics.peak_bytes,
            "consumer_waits": statistics.consumer_waits,
        }

    def close(self) -> None:
        """End the loader."""
        self._loader.close()

    def _open(self, cache: Path) -> AlignedDataset:
        return open_dataset(self._source, self._spec, cache=cache, rate_hz=self._source_rate_hz)

    def _begin_epoch(self) -> None:
        if self._seen.any():
            self._epochs += 1
            wrong = int((self._seen != 1).sum())
            if wrong:
                lost = int((self._seen == 0).sum())
                self._complain(f"epoch {self._epochs}: {lost} samples were lost, {wrong - lost} came more than once")
        self._seen[:] = 0
        self._batches = iter(self._loader)

    def _complain(self, text: str) -> None:
        if text and len(self._failures) < _MOST_FAILURES:
            self._failures.append(text)

    def _difference(self, batch: Batch, episodes: Array, frames: Array) -> str:
        for place, (episode, frame) in enumerate(zip(episodes.tolist(), frames.tolist(), strict=True)):
            with self._dataset.open_episode(episode) as arrays:
                name = _differing(batch, place, arrays, frame, self._dataset.features.values())
            if name:
                return f"{name} of episode {episode}, frame {frame} is not what the episode holds"
        return ""

    def _difference_from_files(self, episode: int) -> str:
        with tempfile.TemporaryDirectory(prefix="robocache-soak-") as folder:
            anew = self._open(Path(folder))
            with anew.open_episode(episode) as fresh, self._dataset.open_episode(episode) as kept:
                for part in ("data", "valid", "age_ns", "row", "offsets"):
                    ours, theirs = getattr(kept, part), getattr(fresh, part)
                    for name in ours.keys() | theirs.keys():
                        if name not in ours or name not in theirs or not _equal(ours[name], theirs[name]):
                            return f"{part} of {name} in cached episode {episode} is not what its files hold"
                if not _equal(kept.times_ns, fresh.times_ns):
                    return f"the times of cached episode {episode} are not what its files hold"
        return ""


def _differing(batch: Batch, place: int, arrays: EpisodeArrays, frame: int, features: Iterable[Feature]) -> str:
    """The first feature whose tensors differ from the episode's own rows; empty: none does."""
    rows = np.arange(frame, frame + WINDOW)
    if not _equal(batch.times_ns[place].cpu().numpy(), arrays.times_ns[rows]):
        return "the times"
    for feature in features:
        if feature.kind == "points":  # packed without their frames; the files' own comparison covers them
            continue
        name = feature.name
        wanted = rows if feature.horizon == 1 else np.arange(rows[-1], rows[-1] + feature.horizon)
        there = np.minimum(wanted, len(arrays.times_ns) - 1)
        used = arrays.row[name][there] if feature.kind == "image" else there
        if not _equal(batch[name][place].cpu().numpy(), arrays.data[name][used]):
            return name
        valid = arrays.valid[name][there] & (wanted < len(arrays.times_ns)).reshape(
            -1, *[1] * (arrays.valid[name].ndim - 1)
        )
        if not _equal(batch.valid[name][place].cpu().numpy(), valid):
            return f"the validity of {name}"
    return ""


def _equal(one: Array, other: Array) -> bool:
    """To the bit, NaN included."""
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()
