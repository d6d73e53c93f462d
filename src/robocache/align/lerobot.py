"""Write aligned episodes as a LeRobot v3.0 dataset.

Every stream becomes a feature, and beside each stand `valid.<feature>` (bool) and `age_ns.<feature>` (int64): is the
frame backed by samples near enough, and how old was the one used. `time_ns` is the frame's absolute stamp. A cloud is
not low-dimensional: of it the dataset keeps `<feature>`, the number of the scan that each frame uses. Images
become videos, one mp4 an episode. A window's samples stand side by side, the latest last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from robocache.align.aligned import AlignedEpisode
from robocache.align.lerobot_statistics import FeatureStatistics
from robocache.align.lerobot_video import video_feature, write_video
from robocache.errors import ArgumentError, ShapeError

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
CHUNK_FILES = 1000
FILE_BYTES = 100 * 2**20
NO_TASK = "no task given"
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")

Column = npt.NDArray[np.generic]  # [frames, dim]


def feature_name(stream: str, *, is_image: bool = False) -> str:
    """The LeRobot feature for a stream: no slashes or NUL, and under "observation." unless it is one or an action.

    Args:
        stream: Its name in the result.
        is_image: Images lie under "observation.images.".
    """
    name = stream.strip("/").replace("/", "_").replace("\0", "_")
    if is_image:
        return "observation.images." + name.removeprefix("observation.").removeprefix("images.")
    return name if name.split(".")[0] in ("observation", "action") else f"observation.{name}"


class LeRobotWriter:
    """Writes one dataset, episode by episode, in a bounded amount of memory. Close it, or use it in a `with`.

    Args:
        folder: An empty folder; give it one of `staged_folder`, so that the dataset appears whole or not at all.
        rate: Frames a second.
        extra: Written into meta/info.json under "robocache": where the data came from.
    """

    def __init__(
        self,
        folder: Path,
        rate: Fraction,
        *,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._folder = folder
        self._rate = rate
        self._extra = dict(extra or {})
        self._features: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._statistics: list[dict[str, FeatureStatistics]] = []
        self._robot: str | None = None
        self._frames = 0
        self._file_index = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.close()

    def add(self, aligned: AlignedEpisode, *, task: str | None = None) -> None:
        """Write one episode.

        Raises:
            ShapeError: It has no frames, or its features are not those of the episodes before it.
            ArgumentError: Two streams would have the same feature name.
        """
        if not len(aligned.times_ns):
            raise ShapeError(f"{aligned.source}: {aligned.name} has no frames; align it to a faster clock")
        columns = self._columns(aligned)
        names = {feature_name(stream): _column_names(aligned, stream) for stream in aligned.data}
        features: dict[str, dict[str, Any]] = {
            name: {"dtype": column.dtype.name, "shape": [column.shape[1]], "names": names.get(name) or None}
            for name, column in columns.items()
        }
        features |= {
            feature_name(stream, is_image=True): video_feature(stream, images, self._fps)
            for stream, images in aligned.images.items()
        }
        if self._features and features != self._features:
            differing = sorted(
                name for name in {*features, *self._features} if features.get(name) != self._features.get(name)
            )
            message = f"{aligned.source}: {aligned.name} differs from the episodes before it in {', '.join(differing)}"
            raise ShapeError(f"{message}; align the streams that all episodes share")
        self._features = features
        task_text = task or _text(aligned.attributes.get("task")) or NO_TASK
        self._robot = (
            self._robot or _text(aligned.attributes.get("robot_type")) or _text(aligned.attributes.get("robot"))
        )
        columns |= self._bookkeeping(aligned, self._tasks.setdefault(task_text, len(self._tasks)))
        table = pa.table({name: _arrow(column) for name, column in columns.items()})
        chunk, file = divmod(self._file_index, CHUNK_FILES)
        self._open_file(chunk, file, table.schema).write_table(table)
        statistics = {name: FeatureStatistics.of(column) for name, column in columns.items()}
        statistics |= self._write_videos(aligned)
        self._statistics.append(statistics)
        self._episodes.append(self._episode_row(statistics, task_text, len(aligned.times_ns), (chunk, file)))
        self._frames += len(aligned.times_ns)
        self._rotate(self._folder / DATA_PATH.format(chunk_index=chunk, file_index=file))

    def close(self) -> None:
        """Write the metadata.

        Raises:
            ArgumentError: No episode was added.
        """
        if not self._episodes:
            raise ArgumentError("a dataset without episodes cannot be written; add one before closing")
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        meta = self._folder / "meta"
        (self._folder / EPISODES_PATH).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), self._folder / EPISODES_PATH)
        pq.write_table(_task_table(self._tasks), meta / "tasks.parquet")
        (meta / "info.json").write_text(json.dumps(self._info(), indent=4), encoding="utf-8")
        statistics = {
            name: FeatureStatistics.together([episode[name] for episode in self._statistics]).as_lists()
            for name in self._statistics[0]
        }
        (meta / "stats.json").write_text(json.dumps(statistics, indent=4), encoding="utf-8")

    def _columns(self, aligned: AlignedEpisode) -> dict[str, Column]:
        columns: dict[str, Column] = {}
        for stream in (*aligned.data, *aligned.scans):
            name = feature_name(stream)
            if name in columns:
                message = f"{aligned.source}: two streams would be the feature {name!r}, one of them {stream!r}"
                raise ArgumentError(f"{message}; rename or leave out one of them")
            if stream in aligned.data:
                values = aligned.data[stream]
                is_half = values.is_floating_point() and values.itemsize < 4  # which the format has no column for
                columns[name] = _flat((values.float() if is_half else values).cpu().numpy())
            else:
                columns[name] = aligned.scans[stream].scan[:, None]
        for stream, valid in aligned.valid.items():
            name = feature_name(stream, is_image=stream in aligned.images)
            columns[f"valid.{name}"] = _flat(valid.cpu().numpy())
            columns[f"age_ns.{name}"] = _flat(aligned.age_ns[stream])
        columns["time_ns"] = aligned.times_ns[:, None]
        return columns

    @property
    def _fps(self) -> float:
        return int(self._rate) if self._rate.denominator == 1 else float(self._rate)

    def _write_videos(self, aligned: AlignedEpisode) -> dict[str, FeatureStatistics]:
        chunk, file = divmod(len(self._episodes), CHUNK_FILES)
        measured = {}
        for stream, images in aligned.images.items():
            name = feature_name(stream, is_image=True)
            path = self._folder / VIDEO_PATH.format(video_key=name, chunk_index=chunk, file_index=file)
            measured[name] = write_video(path, stream, images, self._rate)
        return measured

    def _bookkeeping(self, aligned: AlignedEpisode, task: int) -> dict[str, Column]:
        frames = np.arange(len(aligned.times_ns), dtype=np.int64)
        columns: dict[str, Column] = {
            # From the frame number, as LeRobot checks it: the difference of the stamps is rounded to nanoseconds.
            "timestamp": (frames / float(self._rate)).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full_like(frames, len(self._episodes)),
            "index": frames + self._frames,
            "task_index": np.full_like(frames, task),
        }
        return {name: column[:, None] for name, column in columns.items()}

    def _open_file(self, chunk: int, file: int, schema: pa.Schema) -> pq.ParquetWriter:
        if self._writer is None:
            path = self._folder / DATA_PATH.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            # Numbers on a new clock hardly repeat: a dictionary is larger than they are and takes as long again.
            self._writer = pq.ParquetWriter(path, schema, use_dictionary=False)
        return self._writer

    def _rotate(self, path: Path) -> None:
        if path.stat().st_size >= FILE_BYTES and self._writer is not None:
            self._writer.close()
            self._writer = None
            self._file_index += 1

    def _episode_row(
        self, statistics: Mapping[str, FeatureStatistics], task: str, length: int, place: tuple[int, int]
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": len(self._episodes),
            "data/chunk_index": place[0],
            "data/file_index": place[1],
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + length,
            "tasks": [task],
            "length": length,
        }
        chunk, file = divmod(len(self._episodes), CHUNK_FILES)
        for name in (name for name, feature in self._features.items() if feature["dtype"] == "video"):
            row |= {f"videos/{name}/chunk_index": chunk, f"videos/{name}/file_index": file}
            row |= {f"videos/{name}/from_timestamp": 0.0, f"videos/{name}/to_timestamp": length / float(self._rate)}
        for name, measured in statistics.items():
            row |= {f"stats/{name}/{key}": values for key, values in measured.as_lists().items()}
        row["meta/episodes/chunk_index"] = 0
        row["meta/episodes/file_index"] = 0
        return row

    def _info(self) -> dict[str, Any]:
        kept: dict[str, dict[str, Any]] = {
            name: {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
            for name in BOOKKEEPING
        }
        fps = self._fps
        return {
            "codebase_version": "v3.0",
            "robot_type": self._robot,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK_FILES,
            "fps": fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": {name: feature | {"fps": fps} for name, feature in (self._features | kept).items()},
            "data_files_size_in_mb": FILE_BYTES // 2**20,
            "video_files_size_in_mb": 200,
            "robocache": self._extra,
        }


def _flat(values: npt.NDArray[np.generic]) -> Column:
    return values.reshape(len(values), -1)


def _column_names(aligned: AlignedEpisode, stream: str) -> list[str]:
    columns, data = aligned.columns[stream], aligned.data[stream]
    if data.dim() == 2:
        return list(columns)
    # A window's samples side by side: "x[0]" is the latest, "x[-1]" the one before it.
    return [f"{column}[{place}]" for place in range(1 - data.shape[1], 1) for column in columns]


def _arrow(column: Column) -> pa.Array:
    """One feature: a plain column of width 1, lists otherwise."""
    flat = pa.array(column.reshape(-1))
    if column.shape[1] == 1:
        return flat
    offsets = np.arange(len(column) + 1, dtype=np.int32) * np.int32(column.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    # LeRobot looks tasks up by the index of a pandas frame; this is how pandas marks a column as one.
    index = {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"}
    column = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"}
    axis = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [axis | {"metadata": {"encoding": "UTF-8"}}],
        "columns": [column | {"metadata": None}, index | {"metadata": None}],
        "pandas_version": "2.0.0",
    }
    table = pa.table(
        {"task_index": pa.array(tasks.values(), pa.int64()), "__index_level_0__": pa.array(tasks, pa.string())}
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
