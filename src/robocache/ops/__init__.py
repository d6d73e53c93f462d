"""Operations: tensors to tensors, no files. One folder an operation, the same files in each."""

from robocache.ops.fuse_multimodal import fuse_multimodal, fuse_streams
from robocache.ops.fuse_multimodal.plan import FusionPlan
from robocache.ops.gather_windows import gather_windows
from robocache.ops.installation import check_installation, is_cuda_available, print_installation_info, self_test
from robocache.ops.resample_trajectories import resample_trajectories
from robocache.ops.voxelize_pointcloud import voxelize_pointcloud
from robocache.ops.voxelize_pointcloud.grid import VoxelGrid
from robocache.ops.warming import WarmupReport, warmup

__all__ = [
    "FusionPlan",
    "VoxelGrid",
    "WarmupReport",
    "check_installation",
    "fuse_multimodal",
    "fuse_streams",
    "gather_windows",
    "is_cuda_available",
    "print_installation_info",
    "resample_trajectories",
    "self_test",
    "voxelize_pointcloud",
    "warmup",
]
