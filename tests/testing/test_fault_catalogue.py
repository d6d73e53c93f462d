"""The catalogue of faults: what the stress suite must notice is all there, breaks things, and is undone."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess

import pytest
import torch

from robocache import ops
from robocache.cache import store
from robocache.cache.aligned_dataset import AlignedDataset
from robocache.cache.folder import CacheFolder
from robocache.cache.shard import Shard
from robocache.cache.store import ShardStore
from robocache.errors import ArgumentError
from robocache.loader import ByteBudget, Loader, Prefetcher, SampleOrder
from robocache.loader.episodes import OpenEpisodes
from robocache.loader.running import Running
from robocache.testing import FAULTS

NAMES = re.split(
    r"\s+",
    """aliased_outputs build_begins_anew child_processes clock_jumps_backwards cuda_events cuda_streams
    deadlock_holding_the_gil deadlock_without_the_gil descriptors doubled_sample episode_left_open
    epochs_wrap_at_32_bits errors_swallowed failing_reader full_disk gpu_blocks_100kb gpu_blocks_10kb
    gpu_blocks_1kb gpu_blocks_64b growing_cache killed_worker large_sizes_cut_short leak_on_the_error_path
    leftover_not_swept loader_buffer_left loader_thread_left lock_held_over_a_fork lost_batch lost_sample
    mapped_shard_kept missing_stream_dependency native_heap_100kb native_heap_10kb native_heap_1kb
    native_heap_64b out_of_memory_not_recovered parents_loader_used_in_a_fork pinned_memory_100kb
    pinned_memory_10kb pinned_memory_1kb pinned_memory_64b places_wrap_at_32_bits pool_in_pieces
    python_objects_100kb python_objects_10kb python_objects_1kb python_objects_64b reader_error_swallowed
    resumed_at_the_wrong_sample samples_swapped_in_a_batch scratch_shared_between_processes shared_memory
    shared_memory_files shared_scratch_buffer slow_reader stale_cache_after_a_shape_change stalled_reader
    state_corrupted_after_invalid_input tensor_every_100_calls tensors_100kb
    tensors_10kb tensors_1kb tensors_64b threads throughput_sagging torn_shard_accepted unbounded_queue
    wrong_in_1_of_10000 wrong_value_cached""",
)
PATCHED = [
    *((ops, name) for name in ("resample_trajectories", "fuse_multimodal", "fuse_streams", "voxelize_pointcloud")),
    *((Prefetcher, name) for name in ("__init__", "__next__", "_fail", "close")),
    (ByteBudget, "claim"),
    *((Loader, name) for name in ("_check_usable", "close", "load_state_dict")),
    *((OpenEpisodes, name) for name in ("_have", "close")),
    *((ShardStore, "_open"), (Shard, "close"), (CacheFolder, "sweep"), (AlignedDataset, "build")),
    *((store, name) for name in ("write_shard", "check_arrays")),
    *((Running, "__next__"), (SampleOrder, "samples_at"), (BaseProcess, "start"), (ProcessPoolExecutor, "submit")),
]


def test_the_catalogue_is_complete():
    """Fails when a fault is dropped, or its module is no longer imported."""
    assert sorted(FAULTS) == NAMES
    assert all(fault.description and re.compile(fault.reason) for fault in FAULTS.values())


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if "cpu" in fault.devices])
def test_what_a_fault_breaks_is_whole_again_after_it(name):
    """Fails when a fault stays behind, which would spoil every test after it."""
    before = [getattr(owner, attribute) for owner, attribute in PATCHED]
    with FAULTS[name].injected():
        pass
    assert [getattr(owner, attribute) for owner, attribute in PATCHED] == before


def test_a_fault_shows_within_its_block_only():
    """Fails when an injection does not reach the callers of `robocache.ops`."""
    cloud = torch.rand(100, 3)
    with FAULTS["aliased_outputs"].injected():
        assert ops.voxelize_pointcloud(cloud).data_ptr() == ops.voxelize_pointcloud(cloud).data_ptr()
    first, second = ops.voxelize_pointcloud(cloud), ops.voxelize_pointcloud(cloud)
    assert first.data_ptr() != second.data_ptr()


def test_a_fault_of_a_gpu_is_refused_on_a_cpu():
    with pytest.raises(ArgumentError, match=r"^cuda_events can be injected on cuda, not on cpu$"):
        FAULTS["cuda_events"].injected("cpu")
