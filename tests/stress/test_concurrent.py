"""Inference from several threads, on several streams, and in the middle of invalid input."""

from __future__ import annotations

import pytest

from robocache.stress.concurrency import concurrent_inference
from robocache.stress.exceptions import exceptions
from robocache.stress.multistream import multistream_inference
from robocache.stress.settings import settings_from_environment

pytestmark = [pytest.mark.slow, pytest.mark.stress]


def test_multithreaded_inference(settings, lines):
    """4 threads x 100 iterations at once, on different inputs: every result of every thread is right.

    Edits seen to fail it: a fuse that passes its targets through a variable of the module; one grid for all threads.
    """
    report = concurrent_inference(settings, lines)
    assert report.iterations == 4 * 100
    assert report.problems == (), str(report)


@pytest.mark.gpu
def test_multistream_inference(lines):
    """4 CUDA streams x 100 iterations at once: bit for bit right, seen to overlap, and a race would be seen.

    Its control runs inside it: inputs that another stream still writes must give wrong results without `wait_stream`,
    and right ones with it. An operation that launched on another stream than the caller's would be such a race.
    """
    settings = settings_from_environment()  # fails without a GPU where one is required
    if settings.device == "cpu":
        pytest.skip("CUDA streams need a GPU, and PyTorch finds none here")
    report = multistream_inference(settings, lines)
    assert report.iterations == 4 * 100
    assert report.problems == (), str(report)


def test_exception_handling(settings, lines):
    """1000 iterations with 10 % invalid input: each kind its exact error, and the next result is right.

    Edits seen to fail it: a batch size not checked; a voxel size of 0 accepted; a message without both sides; points
    dropped in the call after an error.
    """
    report = exceptions(settings, lines)
    assert report.iterations == 1000
    assert report.measured["invalid"] == 100
    assert report.measured["kinds"] >= 10
    assert report.problems == (), str(report)
