"""Backends against the reference on Hypothesis-made clouds: on planes, beside them, far, not finite, crowded."""

from __future__ import annotations

import math

import pytest
import torch

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
checked_on = hypothesis.settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


@st.composite
def clouds(draw):
    """`(points, grid)`: some on planes, some beside them, some far, some not finite; or all in one voxel, or none."""
    dtype = draw(st.sampled_from((torch.float32, torch.float64, torch.float16)))
    size = draw(st.sampled_from((0.1, 0.25, 1 / 3, 2.0)))
    lowest = draw(st.sampled_from((0.0, -1.0, -0.3)))
    plane = st.integers(-2, 8).map(lambda k: lowest + k * size)
    near = st.floats(lowest - size, lowest + 7 * size)
    strange = st.sampled_from((math.nan, math.inf, -math.inf, 1e30, -1e30, 65504.0))
    coordinate = draw(
        st.sampled_from((plane | near | strange, plane | near, st.just(lowest + size / 2), st.just(lowest - size)))
    )
    rows = draw(st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=0, max_size=25))
    grid = {
        "grid_min": (lowest, lowest, lowest),
        "voxel_size": draw(st.sampled_from((size, (size, 2 * size, size)))),
        "grid_size": draw(st.tuples(*[st.integers(1, 6)] * 3)),
        "outside": draw(st.sampled_from(("drop", "clamp"))),
    }
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3).to(dtype), grid


@checked_on
@hypothesis.given(problem=clouds(), mode=st.sampled_from(("occupancy", "count")))
def test_voxels_are_the_references_to_the_bit(fast_backend, reference, problem, mode):
    points, grid = problem
    actual, expected = (judged.voxelize(points, None, mode, **grid) for judged in (fast_backend, reference))
    assert actual.dtype == expected.dtype
    assert torch.equal(actual, expected)


@checked_on
@hypothesis.given(
    problem=clouds(),
    mode=st.sampled_from(("mean", "max", "min", "sum")),
    width=st.integers(1, 3),
    dtype=st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.float64)),
    seed=st.integers(0, 2**31),
    has_nan=st.booleans(),
)
def test_features_are_the_references(fast_backend, reference, problem, mode, width, dtype, seed, has_nan):
    points, grid = problem
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(len(points), width, generator=random, dtype=torch.float64).to(dtype)
    if has_nan:
        features[torch.rand(features.shape, generator=random) < 0.2] = math.nan
    actual, expected = (judged.voxelize(points, features, mode, **grid) for judged in (fast_backend, reference))
    assert actual.dtype == expected.dtype == torch.float32
    exact = mode in ("max", "min")
    torch.testing.assert_close(actual, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5, equal_nan=True)


@checked_on
@hypothesis.given(problem=clouds(), data=st.data())
def test_packed_clouds_are_the_references(fast_backend, reference, problem, data):
    points, grid = problem
    cuts = sorted(data.draw(st.lists(st.integers(0, len(points)), max_size=3)))
    offsets = torch.tensor([0, *cuts, len(points)])
    actual, expected = (
        judged.voxelize(points, None, "count", offsets=offsets, **grid) for judged in (fast_backend, reference)
    )
    assert torch.equal(actual, expected)
