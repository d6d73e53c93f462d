"""From aligned episodes to batches: what the demo builds, loads and shows of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from robocache.align import Align
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.build import Built
from robocache.cache.dataset import Feature
from robocache.cache.opening import open_dataset
from robocache.cli import page, svg
from robocache.cli.console import byte_size
from robocache.cli.png import picture_uri
from robocache.cli.svg import Series
from robocache.loader import Batch, Loader, LoaderStatistics
from robocache.readers import Recording

BATCH_SIZE, WINDOW, MEMORY = 64, 16, "256MiB"
RESUME_AFTER = 3
COPIED_BYTES = 64 * 2**20
SLICES = 60
MAX_COLUMNS = 3
MAX_PICTURES = 6


@dataclass(frozen=True)
class Loading:
    """What was built and loaded.

    Args:
        built: The cache.
        features: What a frame holds.
        statistics: Of the loader, at the end.
        ends_s: [batches] when each batch was there, from the first one's start on.
        batch_bytes: Of one full batch.
        copy_bytes_per_s: What copying a tensor reaches here, in bytes of the copy a second.
        resumed: A second loader, given the state of the first, went on with the very same batch.
        batch: One, to be shown.
    """

    built: Built
    features: dict[str, Feature]
    statistics: LoaderStatistics
    ends_s: npt.NDArray[np.float64]
    batch_bytes: float
    copy_bytes_per_s: float
    resumed: bool
    batch: Batch

    @property
    def batches_per_s(self) -> float:
        """Batches in a second."""
        return len(self.ends_s) / float(self.ends_s[-1])

    @property
    def bytes_per_s(self) -> float:
        """Bytes of batches in a second."""
        return self.batches_per_s * self.batch_bytes

    @property
    def copy_share(self) -> float:
        """The part of a copy's speed: it, too, reads and writes each byte once."""
        return self.bytes_per_s / self.copy_bytes_per_s

    def document(self) -> dict[str, Any]:
        """For machines."""
        return {
            "episodes": self.built.episodes,
            "frames": self.built.frames,
            "cache_bytes": self.built.size_bytes,
            "batch_size": BATCH_SIZE,
            "window": WINDOW,
            "tier": self.statistics.tier,
            "peak_bytes": self.statistics.peak_bytes,
            "batches": len(self.ends_s),
            "batches_per_s": self.batches_per_s,
            "bytes_per_s": self.bytes_per_s,
            "copy_bytes_per_s": self.copy_bytes_per_s,
            "copy_share": self.copy_share,
            "resumed": self.resumed,
        }


def build_and_load(
    source: Callable[[], Recording], spec: Align, cache: Path, *, seconds: float, seed: int = 0
) -> Loading:
    """Build a cache in this process, take batches out of it for a while, and resume.

    Args:
        source: Opens the recording.
        spec: How to align it.
        cache: Folder of the cache.
        seconds: How long to load, at the least.
        seed: Of the order.
    """
    dataset = open_dataset(source, spec, cache=cache, workers=1)
    built = dataset.build()
    resumed = _resumes(dataset, seed)
    ends: list[float] = []
    full, size = None, 0
    with _loader(dataset, seed) as loader:
        for _ in loader:  # the first epoch packs the episodes and touches every buffer
            pass
        start = time.perf_counter()
        while not ends or ends[-1] < seconds:
            for batch in loader:
                ends.append(time.perf_counter() - start)
                size += batch.nbytes
                full = full or batch
        statistics = loader.statistics()
    assert full is not None  # an epoch has at least one batch
    features = dict(dataset.features)
    return Loading(
        built, features, statistics, np.array(ends), size / len(ends), _copy_bytes_per_s(), resumed, batch=full
    )


def _loader(dataset: AlignedDataset, seed: int) -> Loader:
    return Loader(dataset, batch_size=BATCH_SIZE, window=WINDOW, memory=MEMORY, seed=seed)


def _resumes(dataset: AlignedDataset, seed: int) -> bool:
    with _loader(dataset, seed) as loader:
        batches = iter(loader)
        for _ in range(min(RESUME_AFTER, len(loader) - 1)):
            next(batches)
        state, expected = loader.state_dict(), next(batches)
        with _loader(dataset, seed) as other:
            other.load_state_dict(state)
            return _are_equal(expected, next(iter(other)))


def _are_equal(left: Batch, right: Batch) -> bool:
    same = torch.equal(left.episode, right.episode) and torch.equal(left.frame, right.frame)
    return same and all(torch.equal(left[name].nan_to_num(), right[name].nan_to_num()) for name in left)


def _copy_bytes_per_s(repeats: int = 5) -> float:
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return COPIED_BYTES / sorted(seconds)[repeats // 2]


def loading_sections(loading: Loading) -> list[str]:
    """For the report: the cache, batches over time, and one sample of a batch."""
    rows = [
        (name, feature.dtype.name, " x ".join(map(str, feature.shape)), byte_size(_frame_bytes(feature)))
        for name, feature in loading.features.items()
    ]
    built, statistics = loading.built, loading.statistics
    cache = page.section(
        "What the cache holds",
        f"{built.episodes} episodes of {built.frames:,} frames in all, {byte_size(built.size_bytes)}, aligned once and"
        " mapped into memory. Beside every value stand its validity and its age.",
        page.table("A frame.", ("Feature", "Numbers", "Shape", "Size"), rows, left=3),
    )
    edges = np.linspace(0, float(loading.ends_s[-1]), SLICES + 1)
    rates = np.diff(np.searchsorted(loading.ends_s, edges, side="right")) / np.diff(edges)
    chart = svg.chart(
        "Batches a second over time",
        [Series((edges[1:] + edges[:-1]) / 2, rates)],
        x_range=(0.0, float(edges[-1])),
        y_zero=True,
    )
    batches = page.section(
        "Batches over time",
        f"{loading.batches_per_s:,.0f} batches a second of {BATCH_SIZE} samples of {WINDOW} frames, out of"
        f" {statistics.tier}: {byte_size(round(loading.bytes_per_s))} a second, {loading.copy_share:.0%} of what"
        " copying memory reaches here: it can be more where frames share a picture, which then is in the processor's"
        f" cache. {_resume_text(loading)}",
        page.figure("batches a second over seconds", f'<div class="card">{chart}</div>'),
    )
    return [cache, batches, _sample_section(loading.batch)]


def _sample_section(batch: Batch) -> str:
    times = (batch.times_ns[0] - batch.times_ns[0, 0]).numpy() / 1e9
    cards = []
    for name in batch:
        if batch[name].dim() == 5:
            cards.append(_pictures_card(name, batch, times))
        if batch[name].dim() != 3 or len(times) != batch[name].shape[1]:
            continue
        span = (float(times[0]), float(times[-1]))
        values, valid, age = batch[name][0].numpy(), batch.valid[name][0].numpy(), batch.age[name][0].numpy()
        curves = [Series(times, values[:, column], column) for column in range(min(MAX_COLUMNS, values.shape[1]))]
        ages = [Series(times, age / 1e6, 1)]
        left = page.figure("value over seconds", svg.chart(f"{name} in a batch", curves, x_range=span, size=(720, 130)))
        left += page.figure("valid", svg.strip(f"Where {name} is valid in a batch", times, valid, x_range=span))
        right = svg.chart(f"Age of {name} in a batch, ms", ages, x_range=span, size=(420, 130), y_zero=True)
        figure = page.figure("age of the sample used, ms", right)
        pair = f'<div class="pair"><div>{left}</div><div>{figure}</div></div>'
        cards.append(f'<div class="card"><h3>{escape(name)}</h3>{pair}</div>')
    where = f"Episode {int(batch.episode[0])}, from frame {int(batch.frame[0])} on"
    return page.section("A sample of a batch", f"{where}; at most {MAX_COLUMNS} columns of each feature.", *cards)


def _pictures_card(name: str, batch: Batch, times: npt.NDArray[np.float64]) -> str:
    """Some of the pictures of the first sample, each with its frame's time."""
    count = min(MAX_PICTURES, len(times))
    figures = []
    for frame in np.linspace(0, len(times) - 1, count).round().astype(int).tolist():
        pixels = batch[name][0, frame].permute(1, 2, 0).numpy()
        picture = f'<img src="{picture_uri(pixels)}" width="{pixels.shape[1]}" alt="{escape(name)}"/>'
        figures.append(f"<div>{page.figure(f'{times[frame] * 1000:.0f} ms', picture)}</div>")
    return f'<div class="card"><h3>{escape(name)}</h3><div class="pictures">{"".join(figures)}</div></div>'


def loading_lines(loading: Loading) -> list[str]:
    """For the terminal."""
    built = loading.built
    return [
        f"   {built.episodes} episodes, {built.frames} frames, {byte_size(built.size_bytes)} in the cache",
        f"   {loading.batches_per_s:,.0f} batches/s of {BATCH_SIZE} samples x {WINDOW} frames,"
        f" {byte_size(round(loading.bytes_per_s))}/s, {loading.copy_share:.0%} of memcpy, out of"
        f" {loading.statistics.tier}",
        f"   {_resume_text(loading)}",
    ]


def _resume_text(loading: Loading) -> str:
    if loading.resumed:
        return f"Resumed: a second loader, given the state after {RESUME_AFTER} batches, went on at the same sample."
    return "NOT resumed: a second loader, given the first one's state, went on with another batch."


def _frame_bytes(feature: Feature) -> int:
    return int(np.prod(feature.shape)) * feature.dtype.itemsize
