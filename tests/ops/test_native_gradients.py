"""Gradients, registration and function transforms where the compiled CPU library serves."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import robocache as rc
from robocache.errors import BackendUnavailableError
from robocache.ops.limits import encode_policies, encode_policy
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp

POLICIES = (Linear(max_gap=0.9, outside="nan"), Linear(outside="extrapolate"), Nearest(), Previous(), Slerp(), Angle())
by_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{type(p).__name__}-{p.outside}")
BOX = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 3, 4))
pytestmark = pytest.mark.usefixtures("native")


def stream(width=4, source=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(2, source, width, generator=generator, dtype=torch.float64) * 0.4 + 0.5
    times = torch.rand(2, source, generator=generator, dtype=torch.float64).cumsum(1)
    targets = torch.rand(2, 7, generator=generator, dtype=torch.float64) * 4 - 0.3
    targets[0, 3] = times[0, 4]
    return data, times, targets


def cloud():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(30, 3, generator=generator) * 5 - 0.5, torch.randn(30, 2, generator=generator)


class TestGradients:
    @by_policy
    def test_first_and_second_derivatives(self, policy):
        """The second one needs a backward that keeps its graph when asked to (`create_graph=True`)."""
        data, times, targets = stream()

        def values(leaf):
            return rc.resample_trajectories(leaf, times, targets, policy=policy, backend="native").nan_to_num(0.0)

        leaf = data.requires_grad_()
        assert torch.autograd.gradcheck(values, [leaf])
        if not isinstance(policy, Slerp):  # the norm of no chord at all has no second derivative
            assert torch.autograd.gradgradcheck(values, [leaf])

    def test_of_a_fuse(self):
        parts = [stream(width, source, width) for width, source in ((1, 5), (4, 6), (2, 9))]

        def values(*leaves):
            pairs = [x for leaf, (_, times, _) in zip(leaves, parts, strict=True) for x in (leaf, times)]
            policies = [Linear(), Angle(), Previous()]
            return rc.fuse_multimodal(*pairs, parts[0][2], policies=policies, backend="native")

        leaves = [data.requires_grad_() for data, _, _ in parts]
        assert torch.autograd.gradcheck(values, leaves)
        assert torch.autograd.gradgradcheck(values, leaves)

    @pytest.mark.parametrize("mode", ["mean", "sum", "max", "min"])
    def test_of_features_are_those_of_the_portable_backend(self, mode):
        points, features = cloud()
        gradients = []
        for backend in ("native", "pytorch"):
            leaf = features.clone().requires_grad_()
            grid = rc.voxelize_pointcloud(points, leaf, *BOX, mode, backend=backend)
            (grid * torch.arange(48.0).reshape(grid.shape)).sum().backward()
            gradients.append(leaf.grad)
        torch.testing.assert_close(*gradients)

    def test_without_a_gradient_there_is_no_graph(self):
        data, times, targets = stream()
        data.requires_grad_()
        with torch.no_grad():
            assert rc.resample_trajectories(data, times, targets, backend="native").grad_fn is None
        assert rc.resample_trajectories(data.detach(), times, targets, backend="native").grad_fn is None
        assert rc.resample_trajectories(data, times, targets, backend="native").grad_fn is not None


class TestRegistration:
    """torch.library.opcheck: schema, fake, autograd registration, aot dispatch."""

    @by_policy
    def test_resample(self, policy):
        data, times, targets = stream()
        arguments = (data.requires_grad_(), times, targets, torch.tensor([6, 3]), encode_policy(policy), "native")
        if policy.outside == "nan":
            targets.clamp_(min=times[:, :1], max=times[:, :1])  # opcheck takes NaN for a difference
        torch.library.opcheck(torch.ops.robocache.resample, arguments)

    def test_fuse(self):
        parts = [stream(width) for width in (1, 4)]
        data, times = [p[0].requires_grad_() for p in parts], [p[1] for p in parts]
        numbers = encode_policies([Linear(), Slerp()])
        arguments = (data, times, parts[0][2], [None, torch.tensor([6, 3])], numbers, "native")
        torch.library.opcheck(torch.ops.robocache.fuse, arguments)

    @pytest.mark.parametrize("mode", ["occupancy", "count", "mean", "max"])
    def test_voxelize(self, mode):
        points, features = cloud()
        features = features.requires_grad_() if mode in ("mean", "max") else None
        arguments = (points, features, *map(list, BOX), mode, None, "drop", "native")
        torch.library.opcheck(torch.ops.robocache.voxelize, arguments)


class TestTransforms:
    """Where tensors stand for something else, `backend=None` takes PyTorch's own functions."""

    def test_vmap_is_a_loop(self):
        data, times, targets = stream()
        many = torch.stack([data, data * 2, -data])
        mapped = torch.vmap(lambda leaf: rc.resample_trajectories(leaf, times, targets))(many)
        for values, one in zip(many, mapped, strict=True):
            torch.testing.assert_close(one, rc.resample_trajectories(values, times, targets))

    def test_functional_gradients_are_ordinary_ones(self):
        data, times, targets = stream()

        def total(leaf):
            return rc.resample_trajectories(leaf, times, targets).square().sum()

        leaf = data.clone().requires_grad_()
        total(leaf).backward()
        torch.testing.assert_close(torch.func.grad(total)(data), leaf.grad)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_forward_mode_has_its_tangent_or_says_no(self):
        data, times, targets = stream()

        def values(backend):
            return lambda leaf: rc.resample_trajectories(leaf, times, targets, backend=backend)

        _, tangent = torch.func.jvp(values(None), (data,), (torch.ones_like(data),))
        torch.testing.assert_close(tangent, torch.ones_like(tangent))  # the weights of two neighbours add up to 1
        with pytest.raises(BackendUnavailableError, match="'native' cannot run: it has no forward-mode derivative"):
            torch.func.jvp(values("native"), (data,), (torch.ones_like(data),))

    def test_tracing_sees_the_operation(self):
        """A call that goes past the tracer would be a constant in the graph."""
        data, times, targets = stream()
        for backend in (None, "native"):
            onto = {"source_times": times, "target_times": targets, "backend": backend}
            traced = make_fx(functools.partial(rc.resample_trajectories, **onto))(data)
            torch.testing.assert_close(traced(data * 3), rc.resample_trajectories(data * 3, times, targets))
