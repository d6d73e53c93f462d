"""LeRobot datasets, v3.0, v2.1 and v2.0: their low-dimensional columns with pyarrow alone, their images and videos."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robocache.errors import DamagedRecordingError, RecordingLimitError, RecordingNotFoundError
from robocache.readers.lerobot_images import ImageColumns
from robocache.readers.lerobot_meta import CLOCK_COLUMNS, Dataset, EpisodeEntry, Feature, open_dataset
from robocache.readers.lerobot_table import (
    CHECK,
    column_numbers,
    first_row_of_episode,
    read_columns,
    read_episode_columns,
)
from robocache.readers.limits import REACH_NS, Limits
from robocache.readers.recording import OpenRecording, ascending_stream, image_stream, requested_streams
from robocache.readers.sources import EpisodeSources
from robocache.readers.span import Span
from robocache.readers.stills import StillFrames
from robocache.readers.video import VideoFiles, VideoFrames
from robocache.records import Episode, Int64, RecordedStream


class LeRobotRecording(OpenRecording):
    """A LeRobot dataset folder as a `Recording` of its episodes, "episode_000000" and on.

    A stream is a feature of numbers with one axis ("observation.state", "action"). All share the clock
    "frame_index / fps", exact in nanoseconds from the start of the episode; the file's own float32 `timestamp`, whose
    steps are 0.1 ms after 1024 s, is kept as the clock "timestamp". Where a dataset has no `frame_index`, "timestamp"
    is the clock used.

    A feature of dtype "video" is a stream of images: row k is the frame shown nearest the row's own timestamp, counted
    from where the episode begins in its file, and at most half a frame away from it. It is decoded when it is read,
    and PyAV is needed only then. A video whose file is not there is listed under "skipped".

    Floats have the width that meta/info.json says, as LeRobot casts them when it loads a dataset.

    A feature of dtype "image" (JPEG or PNG in the Parquet file) is a stream of images too: row k is that of the row.

    Args:
        path: The folder that holds meta/info.json.
        limits: What its files may make the reader allocate.
    """

    def __init__(self, path: Path, *, limits: Limits) -> None:
        self._dataset: Dataset = open_dataset(path, limits)
        self.format = f"lerobot-{self._dataset.version}"
        super().__init__(str(path), (f"episode_{entry.index:06d}" for entry in self._dataset.episodes))
        self._limits = limits
        # A v3.0 file holds many episodes, which are mostly read in order: the columns read last are kept.
        self._last: tuple[Path, list[str], pa.Table] | None = None
        self._videos = VideoFiles(limits)
        self._images = ImageColumns(limits)

    def close(self) -> None:
        """Release what was read. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._videos.close()
        self._images.close()
        self._last = None

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read the rows of one episode."""
        dataset = self._dataset
        entry = dataset.episodes[index]
        videos = dataset.video_files(entry)
        absent = {name: path for name, (path, _) in videos.items() if not path.is_file()}
        for name in absent.keys() & set(streams or ()):
            raise RecordingNotFoundError(absent[name], "is missing from the dataset", remedy=CHECK)
        pictures, skipped = self._pictures(entry, streams)
        skipped |= dataset.skipped
        skipped |= {name: "meta/episodes does not say where it is" for name in dataset.videos if name not in videos}
        available = [*dataset.features, *(name for name in videos if name not in absent), *pictures]
        names = requested_streams(self.path, streams, available, skipped)
        table = self._rows(entry, tuple(name for name in names if name in dataset.features))
        of_all = self._clocks(table, entry)
        clock = next(iter(of_all))
        inside = np.flatnonzero(span.mask(of_all[clock]))
        rows = range(int(inside[0]), int(inside[-1]) + 1) if len(inside) else range(0)
        table = table.slice(rows.start, len(rows))
        clocks = {name: times_ns[rows.start : rows.stop] for name, times_ns in of_all.items()}
        made: dict[str, RecordedStream] = {}
        for name in names:
            if name in videos or name in pictures:
                frames = pictures[name] if name in pictures else self._frames(*videos[name], of_all)
                whole = image_stream(name, frames, clocks, clock, rows)
            else:
                feature = dataset.features[name]
                values = self._values(table, entry, feature)
                whole = ascending_stream(name, values, clocks, clock, columns=feature.columns)
            made[name] = span.cut(whole)
        skipped |= {name: f"its file {path} is not there" for name, path in absent.items()}
        attributes = {"task": entry.task, "robot": dataset.robot, "fps": dataset.fps, "skipped": skipped}
        return Episode(self.episode_names[index], made, self.path, attributes)

    def episode_sources(self, index: int) -> EpisodeSources:
        """The files with the episode's rows and images, and what meta/ says of them; see `NamesItsSources`."""
        self._check_episode(index)
        dataset = self._dataset
        entry = dataset.episodes[index]
        features = {name: [str(one.dtype), one.width] for name, one in dataset.features.items()}
        place = {"episode": entry.index, "length": entry.length, "fps": dataset.fps, "features": features}
        videos = dataset.video_files(entry)
        place["videos"] = {name: start_s for name, (path, start_s) in videos.items() if path.is_file()}
        if dataset.images:
            place["images"] = list(dataset.images)
        files = [dataset.data_file(entry), *(path for path, _ in videos.values() if path.is_file())]
        return EpisodeSources(tuple(files), place)

    def _rows(self, entry: EpisodeEntry, names: tuple[str, ...]) -> pa.Table:
        """The rows of an episode, found by their `episode_index` and checked against the declared length."""
        file = self._dataset.data_file(entry)
        wanted = [*names, *(column for column in CLOCK_COLUMNS if column not in names)]
        if self._last is not None and self._last[:2] == (file, wanted):
            table = self._last[2]
        else:
            table = read_episode_columns(file, wanted, entry.index, self._limits)
            if table is None:
                table = read_columns(file, wanted, self._limits, optional=CLOCK_COLUMNS)
                self._last = (file, wanted, table)
        if "episode_index" in table.column_names:
            of_episode = column_numbers(file, table, "episode_index", 1)[:, 0] == entry.index
            if not np.any(of_episode):
                raise DamagedRecordingError(file, f"has no row of episode {entry.index}", remedy=CHECK)
            rows = np.flatnonzero(of_episode)
            if rows[-1] - rows[0] + 1 != len(rows):
                raise DamagedRecordingError(
                    file, f"has rows of other episodes inside episode {entry.index}", remedy=CHECK
                )
            table = table.slice(int(rows[0]), len(rows))
        if len(table) != entry.length:
            problem = f"has {len(table)} rows of episode {entry.index}, but meta/ says {entry.length}"
            raise DamagedRecordingError(file, problem, remedy=CHECK)
        if table.nbytes > self._limits.episode_bytes:
            problem = f"episode {entry.index} takes {table.nbytes} bytes; the limit is {self._limits.episode_bytes}"
            raise RecordingLimitError(file, problem, remedy="read fewer streams, or raise Limits(episode_bytes=...)")
        return table

    def _pictures(
        self, entry: EpisodeEntry, streams: Collection[str] | None
    ) -> tuple[dict[str, StillFrames], dict[str, str]]:
        """Those of the requested features that are stored as images, and why some are none that can be read."""
        file, wanted = self._dataset.data_file(entry), self._dataset.images
        if streams is not None:
            wanted = tuple(name for name in wanted if name in streams)
        found: dict[str, StillFrames] = {}
        reasons: dict[str, str] = {}
        first = first_row_of_episode(file, entry.index, self._limits) if wanted else 0
        for name in wanted:
            shape = self._images.shape(file, name, first)
            if isinstance(shape, str):
                reasons[name] = shape
            else:
                rows = range(first, first + entry.length)
                found[name] = self._images.frames(file, name, rows, shape)
        return found, reasons

    def _frames(self, path: Path, start_s: float, clocks: dict[str, Int64]) -> VideoFrames:
        shown_ns = clocks.get("timestamp", next(iter(clocks.values())))
        return VideoFrames(self._videos, path, start_s + shown_ns / 1e9, 0.5 / self._dataset.fps)

    def _clocks(self, table: pa.Table, entry: EpisodeEntry) -> dict[str, Int64]:
        file = self._dataset.data_file(entry)
        clocks: dict[str, Int64] = {}
        if "frame_index" in table.column_names:
            frames = column_numbers(file, table, "frame_index", 1)[:, 0]
            if frames.dtype.kind not in "iu" or (len(frames) and (int(frames.min()) < 0 or int(frames.max()) > 2**31)):
                raise DamagedRecordingError(file, "frame_index is not a count from 0 on", remedy=CHECK)
            if len(frames) and int(frames.max()) * 1e9 / self._dataset.fps > REACH_NS:
                problem = f"frame {int(frames.max())} at {self._dataset.fps:g} frames a second is 146 years on"
                raise DamagedRecordingError(file, problem, remedy=CHECK)
            clocks["frame_index / fps"] = self._dataset.frame_times_ns(frames.astype(np.int64))
        if "timestamp" in table.column_names:
            seconds = column_numbers(file, table, "timestamp", 1)[:, 0].astype(np.float64)
            if not np.all(np.abs(seconds) < 2**32):
                raise DamagedRecordingError(file, "timestamp holds values that are not seconds", remedy=CHECK)
            clocks["timestamp"] = np.rint(seconds * 1e9).astype(np.int64)
        if not clocks:
            raise DamagedRecordingError(file, "has neither frame_index nor timestamp", remedy=CHECK)
        return clocks

    def _values(self, table: pa.Table, entry: EpisodeEntry, feature: Feature) -> npt.NDArray[np.generic]:
        values = column_numbers(self._dataset.data_file(entry), table, feature.name, feature.width)
        if values.dtype.kind == feature.dtype.kind == "f":  # pandas writes float64, whatever was declared
            with np.errstate(over="ignore"):
                values = values.astype(feature.dtype, copy=False)
        if values.dtype != feature.dtype:
            problem = f"{feature.name} is {values.dtype}, but meta/info.json says {feature.dtype}"
            raise DamagedRecordingError(self._dataset.data_file(entry), problem, remedy=CHECK)
        return values
