"""Row *torch.compile, autograd*: gradients to data and not to times, registered operators, a graph without a break."""

from __future__ import annotations

import pytest
import torch

import robocache as rc
from robocache.ops.limits import encode_policies, encode_policy
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

POLICIES = (
    Linear(),
    Linear(outside="nan", max_gap=0.6),
    Linear(outside="extrapolate"),
    Nearest(),
    Previous(max_gap=0.2),
    Slerp(),
    Angle(),
)
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{type(p).__name__}-{p.outside}")
GRID = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 3, 4))


def stream(device, *, dtype=torch.float64, width=4, source=6, seed=0):
    """Data that wants a gradient, times with a duplicate, targets inside and outside."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(2, source, width, generator=generator, dtype=torch.float64) * 0.4 + 0.5
    times = torch.rand(2, source, generator=generator, dtype=torch.float64).cumsum(1)
    times[0, 2] = times[0, 1]
    targets = torch.rand(2, 7, generator=generator, dtype=torch.float64) * 4 - 0.3
    targets[0, 3] = times[0, 4]
    return data.to(dtype).to(device).requires_grad_(), times.to(device), targets.to(device)


def cloud(device):
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(30, 3, generator=generator) * 5 - 0.5).to(device)
    return points, torch.randn(30, 2, generator=generator).to(device)


class TestGradients:
    @by_policy
    def test_gradcheck(self, policy):
        data, times, targets = stream("cpu")

        def values(leaf):
            return rc.resample_trajectories(leaf, times, targets, policy=policy, backend="pytorch").nan_to_num(0.0)

        assert torch.autograd.gradcheck(values, [data])

    @by_policy
    def test_gradcheck_of_the_operator(self, policy):
        data, times, targets = stream("cpu")

        def values(leaf):
            numbers = encode_policy(policy)
            return torch.ops.robocache.resample(leaf, times, targets, None, numbers, "pytorch")[0].nan_to_num(0.0)

        assert torch.autograd.gradcheck(values, [data])

    def test_gradcheck_of_a_fuse(self):
        parts = [stream("cpu", width=width, source=source, seed=width) for width, source in ((1, 5), (4, 6), (2, 9))]
        targets, policies = parts[0][2], [Linear(), Slerp(), Previous()]

        def eager(*leaves):
            pairs = [x for leaf, (_, times, _) in zip(leaves, parts, strict=True) for x in (leaf, times)]
            return rc.fuse_multimodal(*pairs, targets, policies=policies)

        def operator(*leaves):
            times = [times for _, times, _ in parts]
            numbers = encode_policies(policies)
            return torch.ops.robocache.fuse(list(leaves), times, targets, [None] * 3, numbers, "pytorch")[0]

        leaves = [data for data, _, _ in parts]
        assert torch.autograd.gradcheck(eager, leaves)
        assert torch.autograd.gradcheck(operator, leaves)

    @by_policy
    def test_times_get_no_gradient(self, policy, kernel_device):
        data, times, targets = stream(kernel_device)
        times.requires_grad_()
        targets.requires_grad_()
        result = rc.resample_trajectories(data, times, targets, policy=policy)
        result.nan_to_num(0.0).sum().backward()
        assert data.grad is not None
        assert times.grad is None
        assert targets.grad is None

    @by_policy
    def test_a_nan_neighbour_does_not_leak_into_the_gradient(self, policy, kernel_device):
        data = torch.full((1, 3, 4), 0.5, device=kernel_device)
        data[:, 1] = float("nan")
        data.requires_grad_()
        times = torch.tensor([[0.0, 1.0, 2.0]], device=kernel_device)
        result = rc.resample_trajectories(data, times, times[:, ::2], policy=policy)
        result.sum().backward()
        assert data.grad[0].tolist() == [[1.0] * 4, [0.0] * 4, [1.0] * 4]

    @pytest.mark.usefixtures("ordinary_algorithms")
    @pytest.mark.parametrize("mode", ["mean", "sum", "max", "min"])
    def test_features_get_the_gradient_of_their_voxel(self, mode, kernel_device):
        points = torch.tensor([[0.5, 0.5, 0.5], [0.6, 0.6, 0.6], [1.5, 0.5, 0.5], [9.0, 0, 0]], device=kernel_device)
        features = torch.tensor([[1.0], [4.0], [2.0], [8.0]], device=kernel_device, requires_grad=True)
        grid = rc.voxelize_pointcloud(points, features, *GRID, mode)
        weights = torch.arange(24.0, device=kernel_device).reshape(2, 3, 4, 1) + 2
        (grid * weights).sum().backward()
        expected = {"mean": [1, 1, 14, 0], "sum": [2, 2, 14, 0], "max": [0, 2, 14, 0], "min": [2, 0, 14, 0]}[mode]
        assert features.grad.flatten().tolist() == expected

    @pytest.mark.gpu
    @by_policy
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_through_the_kernel_it_is_that_of_the_portable_backend(self, policy, dtype):
        results = []
        for backend in ("cuda", "pytorch"):
            data, times, targets = stream("cuda", dtype=dtype)
            values = rc.resample_trajectories(data, times, targets, policy=policy, backend=backend)
            values.nan_to_num(0.0).square().sum().backward()
            results.append(data.grad)
        torch.testing.assert_close(*results)

    @pytest.mark.gpu
    def test_without_a_gradient_the_kernel_keeps_no_graph(self):
        data, times, targets = stream("cuda")
        with torch.no_grad():
            assert rc.resample_trajectories(data, times, targets).grad_fn is None
        assert rc.resample_trajectories(data.detach(), times, targets).grad_fn is None
        assert rc.resample_trajectories(data, times, targets).grad_fn is not None


@pytest.fixture
def operator_backend(kernel_device):
    return "cuda" if kernel_device == "cuda" else "pytorch"


class TestRegistration:
    """torch.library.opcheck: schema, fake, autograd registration, aot dispatch. It takes NaN for a difference."""

    @pytest.mark.parametrize("policy", [Linear(), Slerp(), Nearest()], ids=lambda p: type(p).__name__)
    def test_resample(self, policy, kernel_device, operator_backend):
        data, times, targets = stream(kernel_device)
        lengths = torch.tensor([6, 3], device=kernel_device)
        arguments = (data, times, targets, lengths, encode_policy(policy), operator_backend)
        torch.library.opcheck(torch.ops.robocache.resample, arguments)

    @pytest.mark.parametrize("with_lengths", [(), (0,), (0, 1)], ids=str)
    def test_fuse(self, with_lengths, kernel_device, operator_backend):
        parts = [stream(kernel_device, width=width) for width in (1, 4)]
        data, times, targets = [p[0] for p in parts], [p[1] for p in parts], parts[0][2]
        numbers, lengths = encode_policies([Linear(), Slerp()]), [None, None]
        for index in with_lengths:
            lengths[index] = torch.tensor([6, 3], device=kernel_device)
        arguments = (data, times, targets, lengths, numbers, operator_backend)
        torch.library.opcheck(torch.ops.robocache.fuse, arguments)

    @pytest.mark.parametrize("mode", ["occupancy", "count", "mean", "max"])
    def test_voxelize(self, mode, kernel_device, operator_backend):
        points, features = cloud(kernel_device)
        features = features.requires_grad_() if mode in ("mean", "max") else None
        arguments = (points, features, *map(list, GRID), mode, None, "drop", operator_backend)
        torch.library.opcheck(torch.ops.robocache.voxelize, arguments)


COMPILERS = ("eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.gpu))


@pytest.mark.parametrize("compiler", COMPILERS)
class TestCompile:
    """`fullgraph=True` raises at any graph break."""

    @pytest.fixture(autouse=True)
    def _fresh(self):
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    def test_resample(self, compiler, kernel_device):
        data, times, targets = stream(kernel_device, dtype=torch.float32)

        def double(leaf, stamps):
            return rc.resample_trajectories(leaf, stamps, targets, policy=Linear(max_gap=0.6), return_valid=True)

        compiled = torch.compile(double, fullgraph=True, backend=compiler)
        for actual, expected in zip(compiled(data, times), double(data, times), strict=True):
            torch.testing.assert_close(actual, expected)
        compiled(data, times)[0].sum().backward()
        gradient, data.grad = data.grad, None
        double(data, times)[0].sum().backward()
        torch.testing.assert_close(gradient, data.grad)

    def test_fuse(self, compiler, kernel_device):
        parts = [stream(kernel_device, width=width, dtype=torch.float32) for width in (1, 4, 2)]
        pairs, targets = [x.detach() for part in parts for x in part[:2]], parts[0][2]

        def fuse(*tensors):
            return rc.fuse_multimodal(*tensors, policies=[Linear(), Slerp(), Nearest()]) * 2

        compiled = torch.compile(fuse, fullgraph=True, backend=compiler)
        torch.testing.assert_close(compiled(*pairs, targets), fuse(*pairs, targets))

    @pytest.mark.parametrize("how", [(), (Linear(max_gap=0.6),)], ids=["no policy", "a policy"])
    def test_fuse_streams(self, compiler, how, kernel_device):
        data, times, targets = (part.detach() for part in stream(kernel_device, dtype=torch.float32))

        def arm(values):
            streams = {"arm": rc.Stream(values, times, *how), "hand": rc.Stream(values * 2, times, *how)}
            return rc.fuse_streams(streams, targets)["hand"]

        torch.testing.assert_close(torch.compile(arm, fullgraph=True, backend=compiler)(data), arm(data))

    @pytest.mark.parametrize("mode", ["occupancy", "mean"])
    def test_voxelize(self, compiler, mode, kernel_device):
        points, features = cloud(kernel_device)

        def grid(where, what):
            return rc.voxelize_pointcloud(where, what, *GRID, mode) + 1

        compiled, features = torch.compile(grid, fullgraph=True, backend=compiler), features if mode == "mean" else None
        torch.testing.assert_close(compiled(points, features), grid(points, features))
