"""What `LeRobotDataset` is given, looked at before any file is read."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np
from torch import Tensor

from robocache.errors import ArgumentError, UnknownStreamError
from robocache.integrations.lerobot_metadata import LeRobotDatasetMetadata
from robocache.policies import Policy
from robocache.records import Int64

VIDEO_BACKENDS = (None, "pyav", "torchcodec")
_RECORDING = {
    "batch_encoding_size": 1,
    "vcodec": "libsvtav1",
    "streaming_encoding": False,
    "encoder_queue_maxsize": 30,
    "encoder_threads": None,
}


def check_arguments(video_backend: str | None, recording: Mapping[str, object], size: object, cache: object) -> None:
    """Those that say how frames are made, and those of LeRobot that are for recording."""
    if video_backend not in VIDEO_BACKENDS:
        raise ArgumentError(f"video_backend must be one of {VIDEO_BACKENDS}, got {video_backend!r}")
    for name, value in recording.items():
        if name not in _RECORDING:
            raise TypeError(f"LeRobotDataset got an unexpected argument {name!r}")
        if value != _RECORDING[name]:
            raise ArgumentError(f"{name} is for recording, and this dataset only reads: leave it out, got {value!r}")
    if size is not None and not (
        isinstance(size, tuple | list) and len(size) == 2 and all(isinstance(n, int) and 0 < n < 2**16 for n in size)
    ):
        raise ArgumentError(f"size must be (height, width), got {size!r}")
    if cache is not None and size is None:
        raise ArgumentError("cache needs size=(height, width): the size that the frames are kept at")


def check_items(deltas: object, tolerance_s: object, policies: object, transform: object, as_uint8: object) -> None:
    """Those that say what is in an item."""
    for name, seconds in _mapping("delta_timestamps", deltas).items():
        if not _is_list(seconds) or not all(map(_is_number, seconds)):
            raise ArgumentError(f"delta_timestamps[{name!r}] must be a list of seconds, got {seconds!r}")
    for name, policy in _mapping("policies", policies).items():
        if not isinstance(policy, Policy):
            raise ArgumentError(f"policies[{name!r}] must be a policy such as Linear(), got {policy!r}")
    if not _is_number(tolerance_s) or not 0 <= float(tolerance_s) < math.inf:  # type: ignore[arg-type]
        raise ArgumentError(f"tolerance_s must be 0 or more seconds, got {tolerance_s!r}")
    if transform is not None and not callable(transform):
        raise ArgumentError(f"image_transforms must be a function of images, got {transform!r}")
    if not isinstance(as_uint8, bool):
        raise ArgumentError(f"return_uint8 must be True or False, got {as_uint8!r}")


def selected(meta: LeRobotDatasetMetadata, episodes: Sequence[int] | None) -> list[int]:
    """The places of the wanted episodes among all, ascending."""
    place_of = {entry.index: place for place, entry in enumerate(meta.dataset.episodes)}
    if episodes is None:
        return list(place_of.values())
    given: object = episodes
    if not _is_list(given):
        raise ArgumentError(f"episodes must be a list of episode numbers, got {episodes!r}")
    unknown = [index for index in episodes if index not in place_of]
    if unknown or not len(episodes) or len(set(episodes)) != len(episodes):
        problem = f"there is no episode {unknown[0]!r}" if unknown else "they must be one or more, each once"
        raise UnknownStreamError(f"episodes: {problem}; {meta.root} has {len(place_of)}, from {min(place_of)} on")
    return sorted(place_of[index] for index in episodes)


def index_of(indices: Sequence[int] | Tensor) -> Int64:
    """Rows as int64, a copy."""
    given = np.asarray(indices.cpu().numpy() if isinstance(indices, Tensor) else indices)
    if given.size and given.dtype.kind not in "iu":
        raise ArgumentError(f"indices must be whole numbers, got {str(indices)[:60]} of {given.dtype}")
    return np.array(given, np.int64).reshape(-1)


def _mapping(name: str, value: object) -> Mapping[str, object]:
    if value is not None and not isinstance(value, Mapping):
        raise ArgumentError(f"{name} must be a dictionary by feature, got {value!r}")
    return value or {}


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence | np.ndarray | range) and not isinstance(value, str | bytes)


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real | np.number) and not isinstance(value, bool)
