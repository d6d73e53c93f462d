from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from robocache.align import Align, Follow, From, Rate, align_episode
from robocache.errors import ArgumentError
from robocache.policies import Linear


@pytest.mark.parametrize("hz", [0, -1, math.nan, math.inf, 2e9, "50", None, True], ids=str)
def test_a_rate_that_is_no_rate_is_refused_with_its_value(hz):
    with pytest.raises(ArgumentError, match=rf"rate must be .* got {hz!r}$"):
        Rate(hz)


@pytest.mark.parametrize("hz", [10**400, 10**5000, Fraction(10) ** 400, Fraction(1, 10**5000)], ids=range(4))
def test_a_rate_beyond_every_float_is_refused_like_any_other(hz):
    with pytest.raises(ArgumentError, match=r"^rate must be a number of frames a second, 0\.000001 to 1e9; got "):
        Rate(hz)


def test_a_latency_beyond_int64_is_refused():
    with pytest.raises(ArgumentError, match="is longer than int64 nanoseconds hold"):
        From("/imu", latency="9" * 400 + "s")


def test_a_float_rate_means_the_decimal_it_is_written_as():
    assert Rate(29.97).exact_hz == Fraction(2997, 100)
    assert Rate(np.float64(0.1)).exact_hz == Fraction(1, 10)
    assert Rate(Fraction(30000, 1001)).exact_hz == Fraction(30000, 1001)
    assert type(Rate(np.int64(50)).exact_hz.numerator) is int


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Align(clock=50), r"^clock must be Rate\(hz\) or Follow\(stream\), got 50$"),
        (lambda: Align(Rate(50), {}), r"^streams is empty"),
        (lambda: Align(Rate(50), {"a": "/imu"}), r"^streams\['a'\] must be From\(source\), got '/imu'$"),
        (lambda: Align(Follow("b"), {"a": From("/imu")}), r"^clock follows 'b', but streams has: a$"),
        (lambda: Align(Rate(50), span="all"), r"^span must be 'overlap' or 'union', got 'all'$"),
        (lambda: From("/imu", latency="38"), r"^'38' is not a duration"),
        (lambda: From("/imu", latency=0.038), r"^latency must be .* got 0\.038$"),
        (lambda: From("/imu", latency=-(2**62)), r"^latency must be shorter than 146 years"),
        (lambda: From("/imu", latency=10**30), r"^latency must be shorter than 146 years, got 10+$"),
        (lambda: align_episode(None, {"a": "/imu"}), r"^spec must be an Align, got \{'a': '/imu'\}$"),
        (lambda: From("/imu", missing="zero"), r"^missing must be 'drop' or 'keep', got 'zero'$"),
        (lambda: From("/imu", policy="linear"), r"^policy must be a policy such as Linear\(\), got 'linear'$"),
    ],
)
def test_a_description_that_cannot_be_right_says_what_is_wrong(build, message):
    with pytest.raises(ArgumentError, match=message):
        build()


def test_a_description_does_not_change_with_the_callers_dictionary():
    streams = {"a": From("/imu", Linear())}
    spec = Align(Rate(50), streams)
    streams["b"] = From("/odom")
    assert list(spec.streams) == ["a"]


def test_latency_is_in_nanoseconds():
    assert From("/imu", latency="38ms").latency_ns == 38_000_000
    assert From("/imu", latency=-5).latency_ns == -5
