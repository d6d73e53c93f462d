"""Rows *streams, devices*, *size* and *torch.compile* (graph capture): what only a GPU can show; threads everywhere."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

import robocache as rc
from robocache.ops.fuse_multimodal import reference as fuse_reference
from robocache.ops.voxelize_pointcloud import reference as voxelize_reference
from robocache.policies import Linear, Nearest, Previous, Slerp

BOX = ((-1.0, -1.0, -1.0), (0.25, 0.25, 0.25), (8, 8, 8))
POLICIES = [Linear(), Slerp(), Previous()]
SLEEP_CYCLES = 100_000_000  # some 60 ms, many times what the work behind it takes


@dataclass
class Work:
    """Inputs of a fuse and a count; `run` gives both results, in the inputs' place on the device."""

    inputs: list[torch.Tensor]

    @classmethod
    def of(cls, seed, device):
        generator = torch.Generator().manual_seed(seed)
        inputs = []
        for source, dim in ((9, 3), (30, 8), (70, 5)):
            inputs.append(torch.randn(2, source, dim, generator=generator))
            inputs.append(torch.rand(2, source, generator=generator).sort(1).values)
        inputs += [torch.rand(2, 40, generator=generator), torch.rand(500, 3, generator=generator) * 2.4 - 1.2]
        return cls([tensor.to(device) for tensor in inputs])

    def run(self):
        *fused, points = self.inputs
        return rc.fuse_multimodal(*fused, policies=POLICIES), rc.voxelize_pointcloud(points, None, *BOX, "count")

    def check(self, results):
        *streams, targets, points = (tensor.cpu() for tensor in self.inputs)
        data, times = list(streams[::2]), list(streams[1::2])
        expected, _ = fuse_reference.fuse(data, times, targets, POLICIES, [None] * 3)
        torch.testing.assert_close(results[0].cpu(), expected)
        counts = voxelize_reference.voxelize_pointcloud(points, None, *BOX, "count", None, "drop")
        assert torch.equal(results[1].cpu(), counts)


def test_threads_with_inputs_of_their_own_get_results_of_their_own(kernel_device):
    def repeat(seed):
        work = Work.of(seed, kernel_device)
        for _ in range(10):
            results = work.run()
        work.check(results)
        return seed

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(repeat, range(8))) == list(range(8))


@pytest.mark.gpu
class TestStreams:
    def late_work(self):
        """Real inputs that arrive late on a side stream, over junk that is there already."""
        real, late = Work.of(1, "cuda"), Work.of(2, "cuda")
        torch.cuda.synchronize()
        return real, late

    def test_work_is_enqueued_on_the_current_stream(self):
        real, late = self.late_work()
        late.run()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(SLEEP_CYCLES)
            for to, source in zip(late.inputs, real.inputs, strict=True):
                to.copy_(source)
            results = late.run()
        side.synchronize()
        real.check(results)

    def test_the_control_on_another_stream_it_reads_what_is_not_there_yet(self):
        real, late = self.late_work()
        late.run()
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(SLEEP_CYCLES)
            for to, source in zip(late.inputs, real.inputs, strict=True):
                to.copy_(source)
        results = late.run()
        torch.cuda.synchronize()
        with pytest.raises(AssertionError):
            real.check(results)

    def test_a_second_thread_uses_its_own_current_stream(self):
        real, late = self.late_work()

        def in_thread():
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                torch.cuda._sleep(SLEEP_CYCLES)
                for to, source in zip(late.inputs, real.inputs, strict=True):
                    to.copy_(source)
                results = late.run()
            side.synchronize()
            return results

        with ThreadPoolExecutor(1) as thread:
            real.check(thread.submit(in_thread).result())

    @pytest.mark.usefixtures("ordinary_algorithms")
    @pytest.mark.parametrize("backend", ["cuda", "pytorch"])
    def test_nothing_synchronises(self, backend):
        work = Work.of(3, "cuda")
        *fused, points = work.inputs
        features, lengths = torch.ones(500, 2, device="cuda"), [torch.tensor([5, 9], device="cuda"), None, None]

        def everything():
            policies = [Linear(max_gap=0.1), Slerp(outside="nan"), Nearest()]
            rc.fuse_multimodal(*fused, policies=policies, lengths=lengths, return_valid=True, backend=backend)
            rc.resample_trajectories(fused[0], fused[1], fused[-1], lengths=lengths[0], backend=backend)
            for mode in ("occupancy", "count", "mean", "max", "min", "sum"):
                kept = None if mode in ("occupancy", "count") else features
                rc.voxelize_pointcloud(points, kept, *BOX, mode, backend=backend)

        everything()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns that the mode is a prototype
            torch.cuda.set_sync_debug_mode("error")
        try:
            everything()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.usefixtures("ordinary_algorithms")
    def test_a_graph_replays_with_new_inputs(self):
        """Row *torch.compile*: CUDA-graph capturable."""
        static, fresh = Work.of(4, "cuda"), Work.of(5, "cuda")
        features = torch.randn(500, 2, device="cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        modes = ("mean", "max", "min", "sum")

        def run():
            return (*static.run(), *(rc.voxelize_pointcloud(static.inputs[-1], features, *BOX, m) for m in modes))

        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = run()
        for to, source in zip(static.inputs, fresh.inputs, strict=True):
            to.copy_(source)
        for _ in range(2):
            graph.replay()
        torch.cuda.synchronize()
        fresh.check(results[:2])
        for mode, grid in zip(modes, results[2:], strict=True):
            expected = voxelize_reference.voxelize_pointcloud(
                fresh.inputs[-1].cpu(), features.cpu(), *BOX, mode, None, "drop"
            )
            torch.testing.assert_close(grid.cpu(), expected)

    def test_a_grid_that_was_full_is_empty_for_the_next_cloud(self):
        """Fails where a kernel that starts beside the zeros writes or reads before they are there."""
        everywhere = torch.rand(500_000, 3, device="cuda").add_(-0.5).mul_(4)
        static, out = everywhere.clone(), torch.empty(64, 64, 64, dtype=torch.int32, device="cuda")
        how = ((-2.0, -2.0, -2.0), 4 / 64, (64, 64, 64), "occupancy")
        rc.voxelize_pointcloud(static, None, *how, out=out)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rc.voxelize_pointcloud(static, None, *how, out=out)
        for turn in range(40):
            cloud = everywhere if turn % 2 == 0 else everywhere.clamp(max=torch.rand((), device="cuda") * 2)
            static.copy_(cloud)
            for run in (graph.replay, lambda: rc.voxelize_pointcloud(static, None, *how, out=out)):
                run()
                assert torch.equal(out, rc.voxelize_pointcloud(cloud, None, *how, backend="pytorch"))

    def test_tensors_on_another_gpu_than_the_current_one(self):
        if torch.cuda.device_count() < 2:
            pytest.skip(f"needs two GPUs, and there is {torch.cuda.device_count()}")
        work = Work.of(6, "cuda:1")
        with torch.cuda.device(0):
            results = work.run()
        assert results[0].device == torch.device("cuda:1")
        work.check(results)


def needs_gib(amount):
    """A skip that says what it misses."""
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < amount:
        pytest.skip(f"needs {amount} GiB of free GPU memory, and there are {free:.1f}")


@pytest.mark.gpu
@pytest.mark.usefixtures("ordinary_algorithms")
class TestSize:
    """Row *size*: offsets in int64, results over 2**31 elements are right."""

    @pytest.fixture(autouse=True)
    def _give_back(self):
        needs_gib(24)
        yield
        torch.cuda.empty_cache()

    @pytest.mark.parametrize(("batch", "target"), [(33, 2**20), (1, 2**25 + 8)], ids=["wide_batch", "many_targets"])
    def test_large_results(self, batch, target):
        data = torch.randn(batch, 4, 64, device="cuda", dtype=torch.bfloat16)
        times = torch.arange(4.0, device="cuda").expand(batch, 4)
        targets = torch.linspace(-0.5, 3.5, target, device="cuda").expand(batch, target)
        result, valid = rc.resample_trajectories(data, times, targets, return_valid=True)
        assert result.numel() > 2**31
        expected, expected_valid = rc.resample_trajectories(
            data[-1:], times[-1:], targets[-1:, -1000:], return_valid=True, backend="pytorch"
        )
        torch.testing.assert_close(result[-1:, -1000:], expected)
        assert torch.equal(valid[-1:, -1000:], expected_valid)
        fused = rc.fuse_streams({"all": rc.Stream(data, times)}, targets)
        assert torch.equal(fused.data[-1, -1000:], result[-1, -1000:])

    def test_a_large_source(self):
        data = torch.zeros(1, 2**25 + 8, 64, device="cuda", dtype=torch.bfloat16)
        assert data.numel() > 2**31
        data[0, -2:] = torch.tensor([[2.0], [4.0]], device="cuda")
        times = torch.arange(2**25 + 8, device="cuda")[None] * 4
        result = rc.resample_trajectories(data, times, times[:, -2:] + torch.tensor([1, 0], device="cuda"))
        assert result[0, :, -1].tolist() == [2.5, 4.0]

    @pytest.mark.parametrize("mode", ["occupancy", "count"])
    def test_a_large_grid(self, mode):
        size = (1300, 1300, 1300)
        points = torch.tensor([[0.5, 0.5, 0.5], [1299.5, 1299.5, 1298.5], [1299.5] * 3, [1300.5] * 3], device="cuda")
        grid = rc.voxelize_pointcloud(points, None, (0, 0, 0), 1.0, size, mode)
        assert grid.numel() > 2**31
        assert grid[-1, -1, -2:].tolist() == [1, 1]
        assert grid.sum(dtype=torch.int64) == 3

    @pytest.mark.parametrize("mode", ["mean", "max", "min", "sum"])
    def test_a_large_grid_of_features(self, mode):
        size = (1024, 1024, 257)
        points = torch.tensor([[1023.5, 1023.5, 256.5], [0.5, 0.5, 0.5]], device="cuda")
        features = torch.arange(-20.0, -4, device="cuda").reshape(2, 8)
        grid = rc.voxelize_pointcloud(points, features, (0, 0, 0), 1.0, size, mode)
        assert grid.numel() > 2**31
        assert torch.equal(grid[-1, -1, -1], features[0])
        assert torch.equal(grid[0, 0, 0], features[1])
        assert grid[512].count_nonzero() == 0

    def test_a_large_cloud(self):
        count = 2**31 // 3 + 100
        points = torch.zeros(count, 3, device="cuda", dtype=torch.bfloat16)
        points[-3:, 2] = 1.0
        grid = rc.voxelize_pointcloud(points, None, (0, 0, 0), 1.0, (1, 1, 2), "count")
        assert grid.flatten().tolist() == [count - 3, 3]
