"""Ten thousand calls of each operation leave host and device as they were."""

from __future__ import annotations

import pytest

from robocache.stress.memory_leak import OPERATIONS, repeated_operation

pytestmark = [pytest.mark.slow, pytest.mark.stress]


@pytest.mark.parametrize("name", OPERATIONS)
def test_ten_thousand_calls_leak_nothing(name, settings, lines):
    """Heap bytes, Python objects, tensors, threads, files, mappings and device bytes do not grow; results are right.

    Edits seen to fail it: a resample that keeps one object a call; a voxelization that keeps one number in a hundred
    calls; a fuse with a cache that has no bound.
    """
    report = repeated_operation(name, settings, lines)
    assert report.iterations == 10_000
    assert report.problems == (), str(report)
