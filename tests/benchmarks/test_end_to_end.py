"""The plain loop and ours give the same dataset before either is timed, and a difference is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import end_to_end

BESIDE_REPOSITORY = Path(__file__).resolve().parents[3] / "shared" / "recordings"


@pytest.fixture(scope="module")
def husky():
    found = sorted(Path(os.environ.get("ROBOCACHE_RECORDINGS", BESIDE_REPOSITORY)).glob("husky_mcap/*.mcap"))
    if not found:
        pytest.skip("no real recordings; set ROBOCACHE_RECORDINGS")
    return found[0]


def test_both_make_the_same_dataset_and_a_changed_number_is_seen(husky, tmp_path):
    """Fails when the two sides do different work, or when the comparison looks at nothing."""
    for run in end_to_end.RUNS:
        run(husky, tmp_path / run.__name__)
    assert end_to_end.difference(tmp_path / "commands", tmp_path / "peer") < 1e-6
    assert end_to_end.difference(tmp_path / "ours", tmp_path / "peer") < 1e-6
    path = tmp_path / "peer" / "data" / "file-000.parquet"
    table = pq.read_table(path)
    name = "observation.fix.fix"
    rows = table[name].to_pylist()
    rows[100][0] += 1e-3
    changed = table.set_column(table.column_names.index(name), name, pa.array(rows, table[name].type))
    pq.write_table(changed, path)
    assert end_to_end.difference(tmp_path / "ours", tmp_path / "peer") == pytest.approx(1e-3, rel=1e-3)


def test_the_stored_figures_are_medians_of_enough_rounds():
    """Fails when a ratio was typed by hand or came from a single round."""
    stored = json.loads((end_to_end.ROOT / "benchmarks" / "results" / "end_to_end_cpu.json").read_text("utf-8"))
    assert stored["rounds"] >= 3
    middle = {name: sorted(times)[len(times) // 2] for name, times in stored["seconds"].items()}
    for name, ratio in stored["ratio_of_medians"].items():
        assert len(stored["seconds"][name]) == stored["rounds"]
        assert ratio == pytest.approx(middle["peer"] / middle[name], rel=1e-9)
