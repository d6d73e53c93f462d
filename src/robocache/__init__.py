"""RoboCache: a GPU-accelerated data engine for robot foundation models.

Recordings of several sensors, each at its own rate, go in; aligned, fused and voxelized batches come out on the
training device.
"""

from robocache.errors import RoboCacheError
from robocache.ops import (
    check_installation,
    fuse_multimodal,
    fuse_streams,
    is_cuda_available,
    print_installation_info,
    resample_trajectories,
    self_test,
    voxelize_pointcloud,
)
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp
from robocache.records import Episode, Fused, RecordedStream, SparseVoxels, Stream
from robocache.version import __version__

__all__ = [
    "Angle",
    "Episode",
    "Fused",
    "Linear",
    "Nearest",
    "Previous",
    "RecordedStream",
    "RoboCacheError",
    "Slerp",
    "SparseVoxels",
    "Stream",
    "__version__",
    "check_installation",
    "fuse_multimodal",
    "fuse_streams",
    "is_cuda_available",
    "print_installation_info",
    "resample_trajectories",
    "self_test",
    "voxelize_pointcloud",
]
