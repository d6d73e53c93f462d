"""From a recording to aligned episodes, voxels and a dataset: what `align` and `demo` share."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from robocache import __version__
from robocache.align import Align, AlignedEpisode, align_episode
from robocache.align.absent import stand_in
from robocache.align.lerobot import LeRobotWriter, feature_name
from robocache.cli.console import Advance, skipped_streams
from robocache.cli.conversion_settings import Settings
from robocache.cli.voxels import VoxelBox, VoxelScans, voxelize_scans
from robocache.readers import Recording, StreamStatistics, stream_statistics
from robocache.records import Episode, RecordedStream


@dataclass(frozen=True)
class ConvertedEpisode:
    """One episode, before and after.

    Args:
        episode: As recorded; its streams by their names in the result.
        statistics: Of its streams.
        aligned: On the clock.
        voxels: By cloud stream.
    """

    episode: Episode
    statistics: tuple[StreamStatistics, ...]
    aligned: AlignedEpisode
    voxels: dict[str, VoxelScans]


@dataclass
class Conversion:
    """What a conversion did: the first episode whole, for pictures; of all of them the numbers."""

    settings: Settings
    source: str
    format: str
    first: ConvertedEpisode | None = None
    episodes: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("read", "align", "voxelize", "write"), 0.0)
    )
    samples: int = 0
    like: dict[str, RecordedStream] = field(default_factory=dict)  # what optional streams look like
    warm_s: float | None = None  # aligning the first episode again, when that was measured

    @property
    def frames(self) -> int:
        """Frames of all episodes."""
        return sum(int(episode["frames"]) for episode in self.episodes)

    @property
    def samples_per_second(self) -> float | None:
        """Recorded samples aligned in a second; None unless that was measured warm."""
        if self.warm_s is None or self.first is None:
            return None
        return sum(measured.count for measured in self.first.statistics) / self.warm_s

    def measure_again(self, repeats: int = 5) -> None:
        """Align the first episode a few times more, to say how fast that is once everything is loaded."""
        assert self.first is not None  # a conversion without episodes has failed before
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            _align(self.first.episode, self)
            seconds.append(time.perf_counter() - start)
        self.warm_s = sorted(seconds)[repeats // 2]

    def document(self, command: str) -> dict[str, Any]:
        """The summary that stands beside the dataset and that `--json` prints."""
        return {
            "command": command,
            "robocache": __version__,
            "source": self.source,
            "format": self.format,
            "rate_hz": float(self.settings.rate.hz),
            "span": self.settings.spec.span,
            "spec": self.settings.spec.to_yaml(),
            "device": self.settings.device,
            "frames": self.frames,
            "samples": self.samples,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
            "episodes": self.episodes,
        }


def convert(
    recording: Recording, settings: Settings, folder: Path, advance: Advance, *, episodes: Collection[int] | None = None
) -> Conversion:
    """Read, align, voxelize and write every episode into a folder.

    Args:
        recording: Open.
        settings: What to do.
        folder: Empty; the dataset goes there.
        advance: Told of every finished episode.
        episodes: Which; None: all.
    """
    conversion = Conversion(settings, recording.path, recording.format)
    chosen = range(len(recording.episode_names)) if episodes is None else episodes
    boxes: dict[str, VoxelBox] = {}
    _learn(recording, conversion, chosen)
    extra = {"version": __version__, "source": recording.path, "format": recording.format}
    with LeRobotWriter(folder, settings.rate.exact_hz, extra=extra) as writer:
        for index in chosen:
            converted = _convert_episode(recording, index, conversion, boxes)
            with _timed(conversion, "write"):
                writer.add(converted.aligned, task=settings.task)
                for name, voxels in converted.voxels.items():
                    voxels.save(folder / "voxels" / feature_name(name) / f"episode_{index:06d}.npz")
            conversion.first = conversion.first or converted
            conversion.episodes.append(episode_document(converted))
            advance(f"{converted.episode.name}, {len(converted.aligned.times_ns)} frames")
    return conversion


def episode_document(converted: ConvertedEpisode) -> dict[str, Any]:
    """The numbers of one converted episode."""
    aligned = converted.aligned
    streams = {}
    for measured in converted.statistics:
        name = measured.name
        valid, age_ns = aligned.valid[name].cpu().numpy(), aligned.age_ns[name]
        policy = aligned.policies[name]
        streams[name] = {
            "feature": feature_name(name, is_image=name in aligned.images),
            "samples": measured.count,
            "policy": type(policy).__name__,
            **dataclasses.asdict(policy),
            "valid_fraction": float(valid.mean()),
            "max_age_ns": int(abs(age_ns).max()),
            "gaps_ns": [list(gap) for gap in measured.gaps],
        }
        if name in converted.voxels:
            streams[name]["voxels"] = converted.voxels[name].document()
    return {
        "name": aligned.name,
        "frames": len(aligned.times_ns),
        "start_ns": int(aligned.times_ns[0]),
        "end_ns": int(aligned.times_ns[-1]),
        "recorded_ns": converted.episode.end_ns - converted.episode.start_ns,
        "streams": streams,
        "absent": list(aligned.absent),
        "skipped": skipped_streams(converted.episode.attributes),
    }


def _convert_episode(
    recording: Recording, index: int, conversion: Conversion, boxes: dict[str, VoxelBox]
) -> ConvertedEpisode:
    settings = conversion.settings
    with _timed(conversion, "read"):
        recorded = recording.read_episode(index, settings.sources)
        episode = _renamed(recorded, settings.spec)
        statistics = tuple(stream_statistics(stream) for stream in episode.streams.values())
    conversion.samples += sum(measured.count for measured in statistics)
    with _timed(conversion, "align"):
        aligned = _align(recorded, conversion)
    voxels: dict[str, VoxelScans] = {}
    with _timed(conversion, "voxelize"):
        for name, scans in aligned.scans.items():
            if name in aligned.absent:
                continue
            box = boxes.get(name)
            if box is None and scans.voxelize is not None:
                box = VoxelBox.of(name, scans.voxelize)
            voxels[name] = voxelize_scans(
                scans, settings.voxel_size, box=box, backend=settings.backend, device=settings.device
            )
            # One box for all episodes, so that their grids can be compared.
            boxes[name] = voxels[name].box
        _wait_for(settings.device)
    return ConvertedEpisode(episode, statistics, aligned, voxels)


def _renamed(episode: Episode, spec: Align) -> Episode:
    if spec.streams is None:
        return episode
    streams = {
        name: dataclasses.replace(episode.streams[source.source], name=name)
        for name, source in spec.streams.items()
        if source.source in episode.streams
    }
    return dataclasses.replace(episode, streams=streams)


def _learn(recording: Recording, conversion: Conversion, chosen: Collection[int]) -> None:
    """Find for every optional stream an episode that has it, so that the dataset's columns are known."""
    wanted = conversion.settings.optional_sources
    for index in chosen:
        if wanted <= set(conversion.like):
            return
        streams = recording.read_episode(index).streams
        conversion.like |= {name: stand_in(streams[name], at_ns=0) for name in wanted & set(streams)}


def _align(episode: Episode, conversion: Conversion) -> AlignedEpisode:
    settings = conversion.settings
    aligned = align_episode(
        episode, settings.spec, backend=settings.backend, device=settings.device, like=conversion.like
    )
    _wait_for(settings.device)
    return aligned


@contextmanager
def _timed(conversion: Conversion, step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    conversion.seconds[step] += time.perf_counter() - start


def _wait_for(device: str) -> None:
    # Work on a GPU is only enqueued when a call returns; the clock must not stop before it is done.
    if device == "cuda":
        torch.cuda.synchronize()
