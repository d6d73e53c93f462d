"""`align` says why few frames are left of a long recording."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from robocache.cli.main import app


@pytest.mark.parametrize(("rows", "is_said"), [(2, True), (90, False)])
def test_what_leaves_little_to_the_others_is_named(tmp_path, rows, is_said):
    """A mode that was published once or twice. Fails where nobody is named, or where nearly everything is covered."""
    path = tmp_path / "run.h5"
    with h5py.File(path, "w") as file:
        file["arm/pos"], file["arm/time"] = np.zeros((100, 3)), np.arange(100) / 10
        file["mode/state"], file["mode/time"] = np.zeros(rows, np.int64), 0.5 + np.arange(rows) / 10
    done = CliRunner().invoke(app, ["align", str(path), "--rate", "10", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    expected = "in run mode/state starts at 0.5 s, mode/state ends at 0.6 s: leave such a stream out with --streams, or"
    assert (expected in text) == is_said
    assert ("--span union" in text) == is_said
