"""The loader on a GPU: the same batches, in order, from every tier."""

import pytest
import torch

import robocache as rc

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(200)]


@pytest.mark.parametrize(("memory", "tier"), [("40KB", "disk"), ("16MiB", "gpu")])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_batches_on_a_gpu_are_those_of_a_loop(make_dataset, check, memory, tier, prefetch):
    """Fails when a stage is written while it is copied, or the consumer's stream does not wait for the copy."""
    dataset = make_dataset(lengths=[60] * 8, names=("state", "imu", "action", "image"))
    with rc.Loader(dataset, batch_size=8, window=2, device="cuda", memory=memory, prefetch=prefetch) as loader:
        assert loader.statistics().tier == tier
        for number, batch in enumerate(loader):
            if number % 10 == 0:
                check(batch.to("cpu"), [dataset], 2)
        assert loader.statistics().peak_bytes <= loader.statistics().limit_bytes


def test_points_become_voxels_on_the_gpu(make_dataset, check):
    """Fails when clouds and their offsets part on the way: with points the tier is never the GPU's."""
    dataset = make_dataset()
    with rc.Loader(dataset, batch_size=4, window=2, device="cuda", memory="4MiB") as loader:
        assert loader.statistics().tier == "ram"
        for batch in loader:
            assert batch["voxels"].is_cuda
            check(batch, [dataset], 2)


def test_a_batch_used_on_another_stream_and_dropped_is_not_overwritten(make_dataset):
    """Fails when the allocator is not told that the consumer's stream uses the memory."""
    dataset = make_dataset(lengths=[60] * 8, names=("state", "image"))
    with rc.Loader(dataset, batch_size=16, device="cuda", memory="60KB", shuffle=False) as loader:
        expected = [batch["image"].sum().item() for batch in loader]
        loader.set_epoch(0)
        sums, stream = [], torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for batch in loader:
                torch.cuda._sleep(1_000_000)
                sums.append(batch["image"].sum())
                del batch
            stream.synchronize()
    assert [one.item() for one in sums] == expected


def test_pinned_batches_are_pinned(make_dataset, check):
    dataset = make_dataset(names=("state", "image"))
    with rc.Loader(dataset, batch_size=4, pin=True) as loader:
        for batch in loader:
            assert batch["image"].is_pinned()
            check(batch.to("cuda", non_blocking=True), [dataset], 1)
