"""RoboCache: a GPU-accelerated data engine for robot foundation models.

Recordings of several sensors, each at its own rate, go in; aligned, fused and voxelized batches come out on the
training device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from robocache.errors import RoboCacheError
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp, Window
from robocache.version import __version__

if TYPE_CHECKING:
    from robocache.align import Align, AlignedEpisode, Follow, From, Rate, Resize, Voxelize, align_episode
    from robocache.cache.aligned_dataset import AlignedDataset
    from robocache.cache.opening import build
    from robocache.cache.opening import open_dataset as open  # noqa: A004, F401  in no `import *`
    from robocache.loader import Batch, ByteBudget, Loader, Prefetcher, SampleOrder
    from robocache.ops import (
        FusionPlan,
        VoxelGrid,
        WarmupReport,
        check_installation,
        fuse_multimodal,
        fuse_streams,
        is_cuda_available,
        print_installation_info,
        resample_trajectories,
        self_test,
        voxelize_pointcloud,
        warmup,
    )
    from robocache.readers import open_recording, open_recordings
    from robocache.records import Episode, Fused, RecordedStream, SparseVoxels, Stream

# Rooms that import NumPy, PyTorch or a format's library, on first use: `robocache --help` has no need of them, and what
# is imported before `main` runs cannot be interrupted without a traceback.
_LAZY = {
    "robocache.align": ("Align", "AlignedEpisode", "Follow", "From", "Rate", "Resize", "Voxelize", "align_episode"),
    "robocache.cache.aligned_dataset": ("AlignedDataset",),
    "robocache.cache.opening": ("build", "open"),
    "robocache.loader": ("Batch", "ByteBudget", "Loader", "Prefetcher", "SampleOrder"),
    "robocache.ops": (
        "FusionPlan",
        "VoxelGrid",
        "WarmupReport",
        "check_installation",
        "fuse_multimodal",
        "fuse_streams",
        "is_cuda_available",
        "print_installation_info",
        "resample_trajectories",
        "self_test",
        "voxelize_pointcloud",
        "warmup",
    ),
    "robocache.readers": ("open_recording", "open_recordings"),
    "robocache.records": ("Episode", "Fused", "RecordedStream", "SparseVoxels", "Stream"),
}
_NAME_IN_ROOM = {"open": "open_dataset"}  # where a name of its own keeps clear of a builtin
_ROOM_OF = {name: room for room, names in _LAZY.items() for name in names}

__all__ = [
    "Align",
    "AlignedDataset",
    "AlignedEpisode",
    "Angle",
    "Batch",
    "ByteBudget",
    "Episode",
    "Follow",
    "From",
    "Fused",
    "FusionPlan",
    "Linear",
    "Loader",
    "Nearest",
    "Prefetcher",
    "Previous",
    "Rate",
    "RecordedStream",
    "Resize",
    "RoboCacheError",
    "SampleOrder",
    "Slerp",
    "SparseVoxels",
    "Stream",
    "VoxelGrid",
    "Voxelize",
    "WarmupReport",
    "Window",
    "__version__",
    "align_episode",
    "build",
    "check_installation",
    "fuse_multimodal",
    "fuse_streams",
    "is_cuda_available",
    "open_recording",
    "open_recordings",
    "print_installation_info",
    "resample_trajectories",
    "self_test",
    "voxelize_pointcloud",
    "warmup",
]


def __getattr__(name: str) -> object:
    room = _ROOM_OF.get(name)
    if room is None:
        raise AttributeError(f"module 'robocache' has no attribute {name!r}")
    value = getattr(importlib.import_module(room), _NAME_IN_ROOM.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "open"})
