"""`LeRobotDataset`: LeRobot 0.4.4's arguments, keys and values, read by RoboCache, a batch at a time.

from robocache.integrations.lerobot import LeRobotDataset

dataset = LeRobotDataset("me/pick", root="data/pick", delta_timestamps={"action": [k / 30 for k in range(50)]})
loader = torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)   # takes a batch in one call
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from robocache.errors import ArgumentError, DamagedRecordingError
from robocache.integrations.lerobot_arguments import check_arguments, check_items, index_of, selected
from robocache.integrations.lerobot_cached_frames import CachedFrames
from robocache.integrations.lerobot_columns import read_packed
from robocache.integrations.lerobot_episodes import LeRobotEpisodes
from robocache.integrations.lerobot_frames import DecodedFrames, FrameSource
from robocache.integrations.lerobot_items import BatchItems
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.integrations.lerobot_taking import BatchRows
from robocache.integrations.lerobot_windows import windows
from robocache.policies import Policy
from robocache.readers.lerobot_table import CHECK
from robocache.readers.limits import Limits
from robocache.records import Int64

__all__ = ["LeRobotDataset", "LeRobotDatasetMetadata"]
_NOT_HERE = "LeRobotDataset of RoboCache has no {}: it only reads, and holds its columns packed; {}"
_INSTEAD = {
    "hf_dataset": "ask for items, or batch(indices)",
    "hf_features": "see features",
    "delta_indices": "see delta_timestamps, which may lie between two frames",
} | dict.fromkeys(
    ("push_to_hub", "pull_from_repo", "download", "create", "resume", "add_frame", "save_episode", "finalize"),
    "use LeRobot's own class for it",
)


class LeRobotDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """A LeRobot dataset folder, v3.0, v2.1 or v2.0, that needs no network and no `lerobot`.

    An item has the keys, dtypes and values of LeRobot 0.4.4's: one tensor a feature, `<feature>_is_pad` for each of
    `delta_timestamps`, camera frames as float32 [3, height, width] in 0..1, and the text `task`. PyTorch's `DataLoader`
    asks for a whole batch at once (`__getitems__`), which is one gather a column, and each video file is decoded in
    order. It may be pickled, and used in forked or spawned workers after it was used in their parent.

    Args:
        repo_id: What the dataset is called; it also says where the folder is, if `root` does not.
        root: The folder. None: where LeRobot would have put it.
        episodes: Which episodes, by their index. None: all. They come in the order of the files.
        image_transforms: Called with each camera's float32 (or uint8) frames of each item.
        delta_timestamps: By feature, seconds from the frame: an item then has the values at all of them. Beyond the
            episode's edges values are held and `_is_pad` is True. Times between two frames are answered by `policies`.
        tolerance_s: A delta so near to a multiple of 1 / fps means that frame.
        revision: Only kept.
        force_cache_sync: Must be False: nothing is ever downloaded.
        download_videos: No effect: nothing is ever downloaded.
        video_backend: None, "pyav" or "torchcodec"; frames are decoded by PyAV in any case, to the same bits.
        recording: What LeRobot takes for recording (`batch_encoding_size`, `vcodec`, ...): only its defaults.
        policies: For features with deltas between two frames: what to do there. Those missing get `Linear()`, and
            integers, bools and images `Nearest()`. `_is_pad` is then True wherever the result is not valid.
        size: (height, width) that frames are resized to, by an antialiased bilinear filter. None: as recorded.
        cache: A folder for frames of that size: each is decoded once, and memory-mapped afterwards. It needs `size`.
        cache_limit_bytes: What the cache may weigh. None: until the disk is full.
        return_uint8: Give frames as uint8 0..255, a quarter of the bytes, to be converted on the device.
        limits: What the files may make the reader allocate.

    Raises:
        RecordingNotFoundError: There is no such folder.
        RecordingError: It cannot be read.
        ArgumentError: An argument cannot be right, or has no meaning without a network.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- LeRobot's own signature
        self,
        repo_id: str,
        root: str | Path | None = None,
        episodes: list[int] | None = None,
        image_transforms: Callable[[Tensor], Tensor] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        tolerance_s: float = 1e-4,
        revision: str | None = None,
        force_cache_sync: bool = False,  # noqa: FBT001, FBT002
        download_videos: bool = True,  # noqa: FBT001, FBT002, ARG002
        video_backend: str | None = None,
        *,
        policies: Mapping[str, Policy] | None = None,
        size: tuple[int, int] | None = None,
        cache: str | Path | None = None,
        cache_limit_bytes: int | None = None,
        return_uint8: bool = False,
        limits: Limits | None = None,
        **recording: object,
    ) -> None:
        super().__init__()
        check_arguments(video_backend, recording, size, cache)
        check_items(delta_timestamps, tolerance_s, policies, image_transforms, return_uint8)
        limits = limits or Limits()
        self.meta = LeRobotDatasetMetadata(repo_id, root, revision, force_cache_sync, limits=limits)
        self.repo_id, self.root, self.revision = repo_id, self.meta.root, revision
        self.episodes = episodes
        self.image_transforms = image_transforms
        self.delta_timestamps = delta_timestamps
        self.tolerance_s = tolerance_s
        self.video_backend = video_backend
        self.places = selected(self.meta, episodes)
        self._places = np.array(self.places, np.int64)
        self.columns = read_packed(self.meta.dataset, self.places, self.features, limits)
        self.windows = windows(
            delta_timestamps or {},
            policies or {},
            self.features,
            self.columns,
            fps=self.meta.dataset.fps,
            tolerance_s=tolerance_s,
        )
        self._rows = BatchRows(self.columns, self.windows, list(self.features))
        # Those that are made one by one: texts, images of rows, and what lies between two frames.
        self._others = [name for name in self.features if name not in (*self._rows.names, *self.meta.video_keys)]
        self.return_uint8 = return_uint8
        first_rows = dict(zip(self.places, self.columns.first_rows.tolist(), strict=True))
        decoded = DecodedFrames(self.meta, size, limits, first_rows)
        self.frames: FrameSource = decoded
        if cache is not None and size is not None:
            self.frames = CachedFrames(self.meta, decoded, size, cache, cache_limit_bytes)
        for camera in self.meta.image_keys:
            if 0 in decoded.recorded_size(camera):
                message = f"{self.root}: {camera} holds images of the shape {self.features[camera]['shape']}"
                raise ArgumentError(f"{message}, and only those of three channels are items; open_recording reads them")

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.meta.fps

    @property
    def num_frames(self) -> int:
        """Frames of the selected episodes."""
        return len(self.columns.times_ns)

    @property
    def num_episodes(self) -> int:
        """Selected episodes."""
        return len(self.places)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Of info.json: dtype, shape and names of each."""
        return self.meta.features

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- only asked for what is not there
        if name in _INSTEAD:
            raise AttributeError(_NOT_HERE.format(name, _INSTEAD[name]))
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __len__(self) -> int:
        return self.num_frames

    def __repr__(self) -> str:
        return f"LeRobotDataset({self.repo_id!r}, {self.num_episodes} episodes, {self.num_frames} frames)"

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.__getitems__([index])[0])

    def __getitems__(self, indices: Sequence[int]) -> BatchItems:
        """Items, made together; PyTorch's `DataLoader` calls this, and does not collate them again.

        Args:
            indices: Frames, counted over the selected episodes.
        """
        return BatchItems(self.batch(indices), len(indices))

    def batch(self, indices: Sequence[int] | Tensor) -> dict[str, Any]:
        """A batch: what `default_collate` would make of the items.

        Args:
            indices: [item] frames, counted over the selected episodes; negative ones from the end.

        Returns:
            By key: tensors with the item as their first axis, and lists of texts.

        Raises:
            ArgumentError: Indices that are no whole numbers.
            IndexError: An index beyond the dataset.
            RecordingError: A video or an image cannot be decoded.
        """
        index = index_of(indices)
        found = self._rows.taken(index)
        if found is None:
            size = self.num_frames
            raise IndexError(f"indices must be {-size} to {size - 1}, got {index.min()} to {index.max()}")
        values, pads = found
        batch: dict[str, Any] = {}
        for camera in self.meta.video_keys:
            batch[camera] = self._images(camera, index, pads)
        if self._others:
            self._make_others(index, values, pads)
            batch |= {name: values[name] for name in self.features if name in values}
        else:
            batch |= values
        for name in self.windows:
            batch[f"{name}_is_pad"] = pads[f"{name}_is_pad"]
        for key, column, texts in (
            ("task", "task_index", self.meta.task_texts),
            ("subtask", "subtask_index", self.meta.subtask_texts),
        ):
            if texts and column in values:
                batch[key] = _said(self.root, column, texts, values[column].tolist())
        return batch

    def aligned(self) -> LeRobotEpisodes:
        """The same episodes as RoboCache's own loader reads them; frames come out of the cache."""
        return LeRobotEpisodes(self.meta, self.columns, self.places, self.windows, self.frames)

    def _make_others(self, index: Int64, values: dict[str, Any], pads: dict[str, Tensor]) -> None:
        rows = torch.from_numpy(index)
        bounds = self.columns.bounds.index_select(1, rows)
        for name in self._others:
            if name in self.columns.texts:
                values[name] = [self.columns.texts[name][row] for row in index.tolist()]
            elif name in self.meta.image_keys:
                values[name] = self._images(name, index, pads)
            elif name in self.columns.numbers:
                values[name], pads[f"{name}_is_pad"] = self.windows[name].values(
                    self.columns, self.columns.numbers[name], rows, bounds
                )

    def _images(self, camera: str, index: Int64, pads: dict[str, Tensor]) -> Tensor:
        window, rows, deltas = self.windows.get(camera), index, 1
        if window is not None:
            samples = torch.from_numpy(index)
            found, pads[f"{camera}_is_pad"] = window.rows(
                self.columns, samples, self.columns.bounds.index_select(1, samples)
            )
            rows, deltas = found.reshape(-1).numpy(), found.shape[1]
        images = self._frames_of(camera, rows)
        # As LeRobot's: one frame of a video has no axis of its own, and one image of a row has.
        if deltas != 1 or (window is not None and camera in self.meta.image_keys):
            images = images.reshape(len(index), deltas, *images.shape[1:])
        if self.image_transforms is not None:
            images = torch.stack([self.image_transforms(image) for image in images])
        return images

    def _frames_of(self, camera: str, rows: Int64) -> Tensor:
        """Frames of rows, [row, 3, height, width]."""
        dtype = torch.uint8 if self.return_uint8 else torch.float32
        out = torch.empty((len(rows), 3, *self.frames.size(camera)), dtype=dtype)
        episodes = np.searchsorted(self.columns.starts, rows, side="right") - 1
        self.frames.take(camera, self._places[episodes], rows - self.columns.starts[episodes], out.numpy())
        return out


def _said(root: Path, column: str, texts: Mapping[int, str], numbers: list[int]) -> list[str]:
    try:
        return [texts[number] for number in numbers]
    except KeyError as error:
        problem = f"has the number {error} in a row, and no text for it"
        raise DamagedRecordingError(root, problem, place=f"column {column}", remedy=CHECK) from error
