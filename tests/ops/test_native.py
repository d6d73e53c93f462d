"""The compiled CPU library: its variants, its threads, and the tensors it must not read as they lie.

What it computes is proven with the other backends, row by row; here is what only a compiled library can get wrong.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

import robocache as rc
from robocache.ops import native_library
from robocache.ops.fuse_multimodal.cases import Case as FuseCase
from robocache.ops.resample_trajectories.cases import Case
from robocache.ops.voxelize_pointcloud import native as native_voxels
from robocache.ops.voxelize_pointcloud.cases import Case as CloudCase
from robocache.policies import Slerp

from .conftest import MODES, by_dtype, by_policy  # noqa: TID252 -- tests are not an installed package

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield lambda count: torch.set_num_threads(count)
    torch.set_num_threads(before)


def resample(*arguments, **options):
    return rc.resample_trajectories(*arguments, **options, backend="native")


def levels(library):
    """Every set of inner loops that this processor runs: what others would."""
    library.robocache_limit_instructions(99)
    for level in range(library.robocache_instructions() + 1):
        library.robocache_limit_instructions(level)
        assert library.robocache_instructions() == level
        yield level


class TestInstructions:
    """A library built on one machine runs on another, and gives the same bits there."""

    @by_policy
    @by_dtype
    def test_every_set_gives_the_same_resample(self, library, policy, dtype, assert_same_bits):
        for dim in (1, 3, 4, 8, 17, 36):
            if isinstance(policy, Slerp) and dim % 4:
                continue
            inputs = Case("any", 2, 23, 41, dim, dtype, torch.float64).inputs("cpu")
            results = [resample(*inputs, policy=policy) for _ in levels(library)]
            for result in results[1:]:
                assert_same_bits(result, results[0])

    @pytest.mark.parametrize("mode", MODES)
    @by_dtype
    def test_every_set_gives_the_same_voxels(self, library, mode, dtype, assert_same_bits):
        for features in (1, 3, 8, 19):
            cloud = CloudCase("any", 900, (7, 9, 11), mode, 0 if mode in MODES[:2] else features, 0.8, dtype)
            points, values = cloud.inputs("cpu")
            values = None if values is None else values.to(dtype)
            box = (cloud.grid_min, cloud.voxel_size, cloud.grid_size, mode)
            results = [rc.voxelize_pointcloud(points, values, *box, backend="native") for _ in levels(library)]
            for result in results[1:]:
                assert_same_bits(result, results[0])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_every_half_survives_the_way_to_float_and_back(self, library, dtype, assert_same_bits):
        """All 65536 of them: halfway between two equal samples lies that sample, subnormal or not."""
        halves = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
        halves = halves[halves.isfinite()]
        data = halves.expand(2, -1)[None].contiguous()
        times, middle = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25]])
        for _ in levels(library):
            assert_same_bits(resample(data, times, middle)[0, 0] + 0, halves + 0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("weight", [0.25, 0.625])
    def test_halves_are_rounded_as_torch_rounds_them(self, library, dtype, weight, assert_same_bits):
        """Random bits, so half of the numbers are tiny or huge: ties, subnormals, overflow, infinities and NaN."""
        bits = torch.randint(-(2**15), 2**15, (2, 200_003), generator=torch.Generator().manual_seed(0))
        data = bits.to(torch.int16).view(dtype)[None]
        low, high = data[0].float()
        share, base = (weight, low) if weight < 0.5 else (weight - 1, high)
        expected = (base + share * (high - low)).to(dtype)
        for _ in levels(library):
            assert_same_bits(resample(data, torch.tensor([[0.0, 1.0]]), torch.tensor([[weight]]))[0, 0], expected)

    def test_doctor_and_people_can_ask_which(self, library):
        assert native_library.instructions() in native_library.INSTRUCTIONS
        library.robocache_limit_instructions(0)
        assert native_library.instructions() == "any processor's instructions"


class TestThreads:
    """As many as `torch.get_num_threads()`, for one call; the result does not depend on how many."""

    @by_policy
    def test_a_resample_is_the_same_to_the_bit(self, two_threads, policy, assert_same_bits):
        data, times, targets = Case("any", 5, 90, 301, 128, torch.float32, torch.int64).inputs("cpu")
        lengths = torch.tensor([90, 0, 7, 1, 88])
        results = []
        for count in (1, 2, 7):
            two_threads(count)
            results.append(resample(data, times, targets, policy=policy, lengths=lengths, return_valid=True))
        for data, valid in results[1:]:
            assert_same_bits(data, results[0][0])
            assert torch.equal(valid, results[0][1])

    def test_a_fuse_is_the_same_to_the_bit(self, two_threads, assert_same_bits):
        data, times, targets = FuseCase("any", 3, ((30, 512), (100, 64), (200, 12)), 157).inputs("cpu")
        pairs = [tensor for pair in zip(data, times, strict=True) for tensor in pair]
        results = []
        for count in (1, 2, 5):
            two_threads(count)
            results.append(rc.fuse_multimodal(*pairs, targets, backend="native"))
        for result in results[1:]:
            assert_same_bits(result, results[0])

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("mode", MODES)
    def test_voxels_are_the_same_to_the_bit(self, two_threads, mode, packed, assert_same_bits):
        """Sums too: every voxel adds its points in their order, whoever does it. One voxel holds a third of them."""
        torch.use_deterministic_algorithms(mode=False)
        points, _ = CloudCase("any", 400_000, (40, 50, 60)).inputs("cpu")
        points[::3] = 0.01
        features = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(1)) if mode in MODES[2:] else None
        offsets = torch.tensor([7, 100, 100, 250_000, 399_999]) if packed else None
        results = []
        for count in (1, 2, 5):
            two_threads(count)
            box = ((-2.0, -2.5, -3.0), 0.1, (40, 50, 60), mode)
            results.append(rc.voxelize_pointcloud(points, features, *box, offsets=offsets, backend="native"))
        for result in results[1:]:
            assert_same_bits(result, results[0])
        counts = rc.voxelize_pointcloud(points, None, *box[:3], "count", offsets=offsets, backend="pytorch")
        if mode == "count":
            assert torch.equal(results[0], counts)
        is_filled = results[1] != 0
        assert torch.equal(is_filled if features is None else is_filled.any(-1), counts > 0)

    @pytest.mark.parametrize("points", [2**18, 2**18 + 1, 2**18 + 4095])
    @pytest.mark.parametrize("threads", [2, 3, 4])
    @pytest.mark.parametrize("where", ["in_one_voxel", "anywhere"])
    def test_counts_are_those_of_bincount_where_blocks_just_fill(self, two_threads, where, threads, points):
        """Fails when a range of voxels that all points go to needs a block more than its share has room for."""
        two_threads(threads)
        cloud = torch.full((points, 3), 31.5)
        if where == "anywhere":
            cloud = torch.rand(points, 3, generator=torch.Generator().manual_seed(points)) * 34 - 1
        grid = rc.voxelize_pointcloud(cloud, None, (0, 0, 0), 1.0, (32, 32, 32), "count", backend="native")
        cells = cloud[((cloud >= 0) & (cloud < 32)).all(dim=1)].long() @ torch.tensor([1024, 32, 1])
        assert torch.equal(grid.flatten().long(), torch.bincount(cells, minlength=32**3))

    def test_two_at_once_are_both_right(self, two_threads):
        two_threads(2)
        cases = [Case("any", 4, 60, 200, 96, torch.float32, torch.float64).inputs("cpu", seed) for seed in (0, 1)]
        expected = [resample(*inputs) for inputs in cases]
        wrong = []

        def work(index):
            results = [resample(*cases[index]) for _ in range(20)]
            wrong.extend(index for result in results if not torch.equal(result, expected[index]))

        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_other_python_threads_go_on_meanwhile(self, library, monkeypatch):
        """A library called with the GIL held (`ctypes.PyDLL`) counts nothing between the two readings."""
        points = torch.rand(2_000_000, 3)
        counted, starts, done, meanwhile = [0], threading.Event(), threading.Event(), []

        class Watching:
            def robocache_voxelize(self, call):
                starts.set()
                before = counted[0]
                result = library.robocache_voxelize(call)
                meanwhile.append(counted[0] - before)
                return result

        def work():
            native_voxels.voxelize_pointcloud(points, None, (0.0,) * 3, (0.1,) * 3, (9, 9, 9), "count", None, "drop")
            done.set()

        monkeypatch.setattr(native_library, "_LIBRARY", Watching())
        interval = sys.getswitchinterval()
        sys.setswitchinterval(0.1)  # so that nothing but a released lock lets this thread count within the call
        try:
            thread = threading.Thread(target=work)
            thread.start()
            starts.wait()
            while not done.is_set():
                counted[0] += 1
            thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert meanwhile[0] > 100


WORKERS = """
import sys, torch, robocache as rc
from robocache.ops.resample_trajectories.cases import Case

def compute(seed):
    torch.set_num_threads(2)
    data, times, targets = Case("any", 4, 60, 200, 256).inputs("cpu", seed)
    points = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(seed))
    grid = rc.voxelize_pointcloud(points, points, (0, 0, 0), 0.1, (10, 10, 10), "mean", backend="native")
    return rc.resample_trajectories(data, times, targets, backend="native"), grid

class Computed(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, seed):
        return compute(seed)

if __name__ == "__main__":
    expected = [compute(seed) for seed in range(6)]
    how = {"batch_size": None, "num_workers": 2, "multiprocessing_context": sys.argv[1]}
    loader = torch.utils.data.DataLoader(Computed(), **how)
    found = list(loader)
    assert len(found) == 6
    for pair, wanted in zip(found, expected, strict=True):
        assert all(map(torch.equal, pair, wanted))
    print("the same from workers")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_use_it_after_their_parent_did(method, tmp_path):
    """Threads of a pool would be gone after the fork, and a call would wait for them without end."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "the same from workers\n", done.stderr
