"""What training code asks of a LeRobot dataset's `meta`, read from its files alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from robocache.errors import ArgumentError, BackendUnavailableError, DamagedRecordingError, RecordingNotFoundError
from robocache.integrations.lerobot_statistics import Statistics, read_statistics
from robocache.readers.lerobot_json import json_file, json_lines
from robocache.readers.lerobot_meta import BOOKKEEPING, Dataset, open_dataset
from robocache.readers.lerobot_table import CHECK, read_rows
from robocache.readers.limits import Limits

EPISODE_COLUMNS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")
VIDEO_COLUMNS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def default_root(repo_id: str) -> Path:
    """Where LeRobot keeps a dataset: HF_LEROBOT_HOME, else `lerobot` in HF_HOME, else in ~/.cache/huggingface."""
    home = os.environ.get("HF_LEROBOT_HOME")
    if home is None:
        hub = os.environ.get("HF_HOME", str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"))
        home = str(Path(hub) / "lerobot")
    return Path(home).expanduser() / repo_id


def _is_described(name: str, feature: object) -> bool:
    """Whether a feature has a dtype and a shape; what every dataset has is one number a row."""
    if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
        return False
    shape = feature.get("shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) and 0 <= side < 2**31 for side in shape):
        return False
    return name not in BOOKKEEPING or (shape == [1] and feature["dtype"] not in ("string", "video", "image"))


class Episodes:
    """The table of episodes: `episodes[3]` is a row as a dictionary, `episodes["length"]` a column as a list.

    Args:
        rows: One dictionary an episode, all with the same keys.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: int | str) -> Any:  # noqa: ANN401 -- a row or a column, as LeRobot's
        if isinstance(key, str):
            if key not in self.column_names:
                raise KeyError(f"{key!r}; there are {', '.join(self.column_names)}")
            return [row[key] for row in self._rows]
        return dict(self._rows[key])

    @property
    def column_names(self) -> list[str]:
        """What is known of each episode."""
        return list(self._rows[0])


class LeRobotDatasetMetadata:
    """The metadata of a dataset folder, v3.0, v2.1 or v2.0, with the names that LeRobot gives them.

    Args:
        repo_id: What the dataset is called; it is only kept.
        root: Its folder. None: where LeRobot would have put it.
        revision: Only kept: what lies in the folder is what is read.
        force_cache_sync: Must be False: nothing is ever downloaded.
        limits: What the files may make the reader allocate.

    Raises:
        RecordingNotFoundError: There is no such folder.
        RecordingError: Its metadata cannot be read.
    """

    def __init__(
        self,
        repo_id: str,
        root: str | Path | None = None,
        revision: str | None = None,
        force_cache_sync: bool = False,  # noqa: FBT001, FBT002 -- LeRobot's own signature
        *,
        limits: Limits | None = None,
    ) -> None:
        if force_cache_sync:
            raise ArgumentError("force_cache_sync must be False: RoboCache never downloads; sync the folder yourself")
        self.repo_id = repo_id
        self.revision = revision
        self.root = Path(root) if root is not None else default_root(repo_id)
        limits = limits or Limits()
        if not (self.root / "meta" / "info.json").is_file():
            remedy = f"download it first: hf download --repo-type dataset {repo_id} --local-dir {self.root}"
            raise RecordingNotFoundError(self.root, "holds no LeRobot dataset", remedy=remedy)
        self.dataset: Dataset = open_dataset(self.root, limits)
        self.info = json_file(self.root / "meta" / "info.json", limits)
        for name, feature in self.info["features"].items():
            if not _is_described(name, feature):
                problem = f"feature {name!r} is {str(feature)[:60]!r}, not a dtype and a shape that fit"
                raise DamagedRecordingError(self.root / "meta" / "info.json", problem, remedy=CHECK)
            feature["shape"] = tuple(feature["shape"])
        self.task_texts = self._texts("task", limits)
        self.subtask_texts = self._texts("subtask", limits)
        self.episodes = Episodes(self._episode_rows(limits))
        self.stats: Statistics | None = read_statistics(self.root, limits)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Of info.json: dtype, shape (a tuple) and names of each."""
        features: dict[str, dict[str, Any]] = self.info["features"]
        return features

    @property
    def fps(self) -> float:
        """Frames a second, as info.json spells it."""
        fps: float = self.info["fps"]
        return fps

    @property
    def video_keys(self) -> list[str]:
        """Features that are stored as video."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "video"]

    @property
    def image_keys(self) -> list[str]:
        """Features that are stored as images, one a row."""
        return [name for name, feature in self.features.items() if feature["dtype"] == "image"]

    @property
    def camera_keys(self) -> list[str]:
        """Features that are images, however they are stored."""
        return [name for name, feature in self.features.items() if feature["dtype"] in ("video", "image")]

    @property
    def names(self) -> dict[str, Any]:
        """Names of each feature's columns or axes."""
        return {name: feature.get("names") for name, feature in self.features.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one row of each feature."""
        return {name: feature["shape"] for name, feature in self.features.items()}

    @property
    def robot_type(self) -> str | None:
        """What recorded it."""
        robot: str | None = self.info.get("robot_type")
        return robot

    @property
    def data_path(self) -> str:
        """The template of the Parquet files' paths."""
        path: str = self.info["data_path"]
        return path

    @property
    def video_path(self) -> str | None:
        """The template of the videos' paths."""
        path: str | None = self.info.get("video_path")
        return path

    @property
    def chunks_size(self) -> int | None:
        """Files, or for v2.1 episodes, of a folder."""
        size: int | None = self.info.get("chunks_size")
        return size

    @property
    def total_episodes(self) -> int:
        """Episodes in the folder, whichever are selected."""
        return len(self.episodes)

    @property
    def total_frames(self) -> int:
        """Frames in the folder, whichever episodes are selected."""
        return sum(entry.length for entry in self.dataset.episodes)

    @property
    def total_tasks(self) -> int:
        """Different tasks."""
        return len(self.task_texts)

    @property
    def tasks(self) -> Any:  # noqa: ANN401 -- pandas is optional
        """The tasks as LeRobot's table: indexed by text, with the column `task_index`.

        Raises:
            BackendUnavailableError: pandas is not installed; `task_texts` needs none.
        """
        try:
            import pandas as pd
        except ImportError as error:
            message = "meta.tasks is a pandas table, and pandas is not installed: install it, or use meta.task_texts"
            raise BackendUnavailableError(message) from error
        return pd.DataFrame({"task_index": list(self.task_texts)}, index=list(self.task_texts.values()))

    def get_task_index(self, task: str) -> int | None:
        """The number of a task.

        Args:
            task: Its text.
        """
        return next((index for index, text in self.task_texts.items() if text == task), None)

    def get_data_file_path(self, ep_index: int) -> Path:
        """The Parquet file of an episode, relative to the folder.

        Args:
            ep_index: Its place in `episodes`.
        """
        return self.dataset.data_file(self.dataset.episodes[ep_index]).relative_to(self.root)

    def get_video_file_path(self, ep_index: int, vid_key: str) -> Path:
        """The video file of an episode's camera, relative to the folder.

        Args:
            ep_index: Its place in `episodes`.
            vid_key: One of `video_keys`.

        Raises:
            DamagedRecordingError: The metadata do not say.
        """
        return self.video_file(ep_index, vid_key)[0].relative_to(self.root)

    def video_file(self, ep_index: int, vid_key: str) -> tuple[Path, float]:
        """The video file of an episode's camera, and the second in it at which the episode begins.

        Args:
            ep_index: Its place in `episodes`.
            vid_key: One of `video_keys`.

        Raises:
            DamagedRecordingError: The metadata do not say.
        """
        entry = self.dataset.episodes[ep_index]
        found = self.dataset.video_files(entry).get(vid_key)
        if found is None:
            problem = f"does not say where the video {vid_key} of episode {entry.index} is"
            raise DamagedRecordingError(self.root / "meta" / "info.json", problem, remedy=CHECK)
        return found

    def _texts(self, what: str, limits: Limits) -> dict[int, str]:
        """Tasks, or subtasks, by their number."""
        table = self.root / "meta" / f"{what}s.parquet"
        if table.is_file():
            rows = read_rows(table, None, limits)
            key = next((name for name in (rows[0] if rows else ()) if name != f"{what}_index"), "")
        else:
            lines = table.with_suffix(".jsonl")
            rows, key = (json_lines(lines, limits) if lines.is_file() else []), what
        pairs = [(row.get(f"{what}_index"), row.get(key)) for row in rows]
        texts = {index: text for index, text in pairs if isinstance(index, int) and isinstance(text, str)}
        if not all(isinstance(index, int) and isinstance(text, str) for index, text in pairs):
            raise DamagedRecordingError(table, f"is not a table of {what}s and their numbers", remedy=CHECK)
        return dict(sorted(texts.items()))

    def _episode_rows(self, limits: Limits) -> list[dict[str, Any]]:
        """As stored, without the statistics; what v2.1 does not store is made from the lengths."""
        rows: dict[int, dict[str, Any]] = {}
        videos = [f"videos/{key}/{what}" for key in self.video_keys for what in VIDEO_COLUMNS]
        names = [*EPISODE_COLUMNS, "data/chunk_index", "data/file_index", *videos]
        for file in sorted((self.root / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
            found = read_rows(file, names, limits, optional=names)
            rows |= {row["episode_index"]: row for row in found}
        ends = np.cumsum([entry.length for entry in self.dataset.episodes]).tolist()
        for entry, end in zip(self.dataset.episodes, ends, strict=True):
            made = (entry.index, [entry.task], entry.length, end - entry.length, end)
            rows[entry.index] = {**dict(zip(EPISODE_COLUMNS, made, strict=True)), **rows.get(entry.index, {})}
        return [rows[entry.index] for entry in self.dataset.episodes]
