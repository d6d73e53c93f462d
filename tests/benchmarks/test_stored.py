"""Stored results: tables, charts, markers in documents, comparisons; and the two scripts that people call."""

from __future__ import annotations

import copy
import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from robocache.benchmarks import chart, regression, results, tables
from robocache.errors import ArgumentError, OutputError

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def stored(tmp_path, result):
    """Store a result under a name; the path."""

    def store(name="ops_a.json", document=result):
        path = tmp_path / name
        results.save(document, path)
        return path

    return store


@pytest.fixture
def script(capsys, monkeypatch):
    """Runs a script of benchmarks/ as `python -m` does, in this process: importing PyTorch takes longer than each."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        code = 0
        try:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def test_a_result_comes_back_as_it_was(stored, result, tmp_path):
    """Fails when storing changes a figure, or leaves something else behind."""
    assert results.load(stored()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["ops_a.json"]


def test_unreadable_results_are_refused(tmp_path, stored, result):
    """Fails when a file of another schema, or none, is taken for a result."""
    for text, problem in (("{", "not a readable"), ("[]", "schema None"), ('{"schema": 2}', "schema 2")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ArgumentError, match=problem):
            results.load(tmp_path / "x.json")
    with pytest.raises(ArgumentError, match="not a readable"):
        results.load(tmp_path / "none.json")
    with pytest.raises(OutputError, match="give another --out"):
        results.save(result, stored() / "below_a_file.json")


def test_the_gpu_table(result):
    """Fails when a figure lands in another column."""
    header, rows = tables.time_table(result)
    assert dict(zip(header, rows[0], strict=True)) == {
        "case": "small",
        "device": "10.0",
        "cold L2": "11.0",
        "floor": "5.0",
        "of floor": "50%",
        "issue": "8.0",
        "synced": "20.0",
        "torch eager": "40.0 (4x)",
        "numpy": "2000 (100x)",
    }
    assert rows[1][-2] == "500 (10x)"


def test_the_ratio_table_shows_what_is_wrong_and_no_times(result):
    """Fails when a wrong peer looks like one that was not there, or a CPU table shows absolute times."""
    result["device"] = "cpu"
    result["cases"][0]["results"][1] = {"name": "torch eager", "kind": "peer", "status": "wrong", "reason": "x"}
    result["cases"][1]["scaled"] = "batch 1 instead of batch 8"
    header, rows = tables.ratio_table(result)
    assert header == ("case", "backend", "torch eager", "numpy")
    assert rows == [
        ("small", "cuda", "wrong", "100x"),
        ("large (batch 1 instead of batch 8)", "cuda", "10x", "100x"),
    ]


def test_the_scaling_table(result):
    """Fails when a size is missing, or bounds that were left are not shown."""
    result["scaling"][0]["within_bounds"] = False
    header, rows = tables.scaling_table(result)
    assert header[1:3] == ("16 MB", "1 GB")
    assert rows == [("resample_trajectories", "0.500", "0.600", "1.20", "NO")]


@pytest.mark.parametrize(
    ("ratio", "text"), [(0.934, "0.93x"), (1.0, "1x"), (3.54, "3.5x"), (26.51, "26.5x"), (1234.5, "1234x")]
)
def test_ratios_have_few_digits(ratio, text):
    """Fails when a table promises digits that no measurement has, or writes 1e+03."""
    assert tables.times_as_long(ratio) == text


def test_tables_go_between_their_markers_and_nowhere_else():
    """Fails when text around a marker changes, a second run differs, or a marker without a result is emptied."""
    text = "a\n<!-- bench:cpu -->\nold\n<!-- /bench -->\nb\n<!-- bench:gpu -->\nkept\n<!-- /bench -->\nc\n"
    once = tables.inserted(text, {"cpu": "| new |"}, "x.md")
    assert once == text.replace("old", "| new |")
    assert tables.inserted(once, {"cpu": "| new |"}, "x.md") == once
    assert tables.inserted("no markers\n", {"cpu": "| new |"}, "x.md") == "no markers\n"


@pytest.mark.parametrize(
    "text",
    [
        "<!-- bench:cpu -->\n",
        "<!-- bench:cpu -->\n<!-- bench:gpu -->\n<!-- /bench -->\n",
        "<!-- bench:tpu -->\n<!-- /bench -->\n",
    ],
)
def test_broken_markers_are_refused(text):
    """Fails when an unclosed marker swallows the rest of a README, or a mistyped one stays empty for ever."""
    with pytest.raises(ArgumentError, match=r"^x\.md: "):
        tables.inserted(text, {"cpu": "table"}, "x.md")


def test_the_chart_puts_dots_where_the_figures_are(result):
    """Fails when an axis is not logarithmic, a peer is missing, or the floor is not launch, then bandwidth."""
    picture = ET.fromstring(chart.chart(result))
    tips = [dot.find(f"{SVG}title").text for dot in picture.iter(f"{SVG}path") if dot.find(f"{SVG}title") is not None]
    legend = ["RoboCache", "torch eager"]
    dots = ["RoboCache, small: 10", "RoboCache, large: 50", "torch eager, small: 40", "torch eager, large: 500"]
    assert sorted(tips) == sorted([*legend, "floor", *dots])
    places = {}
    for dot in picture.iter(f"{SVG}path"):
        if dot.find(f"{SVG}title") is not None and dot.get("transform"):
            x, y = re.findall(r"[\d.]+", dot.get("transform"))
            places[dot.find(f"{SVG}title").text] = float(x), float(y)
    # 10 to 50 is a factor of 5, 40 to 500 one of 12.5; equal sizes stand above each other.
    small, large = places["RoboCache, small: 10"], places["RoboCache, large: 50"]
    eager_small, eager_large = places["torch eager, small: 40"], places["torch eager, large: 500"]
    assert small[0] == eager_small[0] < large[0] == eager_large[0]
    assert small[1] > large[1] > eager_large[1]
    slope = (small[1] - large[1]) / (eager_small[1] - eager_large[1])
    assert slope == pytest.approx(0.6990 / 1.0969, rel=0.01)  # lg 5 / lg 12.5
    words = [text.text for text in picture.iter(f"{SVG}text")]
    assert "Size against device time: GPU <1>" in words
    assert {"RoboCache", "torch eager", "10 µs", "100 µs", "10 MB"} <= set(words)


def test_every_candidate_has_its_own_mark(result):
    """Fails when two of the nine that a run can have look alike."""
    case = result["cases"][0]
    case["results"] = case["results"][:1] + [case["results"][1] | {"name": f"peer {number}"} for number in range(8)]
    result["cases"] = [case]
    picture = ET.fromstring(chart.chart(result))
    titled = [path for path in picture.iter(f"{SVG}path") if path.find(f"{SVG}title") is not None]
    names = {"RoboCache", *(f"peer {number}" for number in range(8))}
    marks = {path.find(f"{SVG}title").text: (path.get("class"), path.get("d")) for path in titled}
    legend = {name: mark for name, mark in marks.items() if name in names}
    assert len(legend) == 9
    assert len({style for style, _ in legend.values()}) == len({shape for _, shape in legend.values()}) == 9
    for style, _ in legend.values():
        assert chart.STYLE.count(f".{style}{{fill:") == 2  # light and dark


def test_the_chart_of_a_cpu_shows_no_times(result):
    """Fails when absolute times of a CPU are drawn, or multiples are of something else than the floor."""
    result["device"] = "cpu"
    for case in result["cases"]:
        for one in case["results"][:2]:
            one["times"] = {"wall_us": one["times"]["device_us"]}
    assert {dot.y for dot in chart.dots_of(result)} == {2.0, 10.0, 8.0, 100.0, 400.0}
    words = [text.text for text in ET.fromstring(chart.chart(result)).iter(f"{SVG}text")]
    assert "10x" in words
    assert not [word for word in words if "µs" in word or "ms" in word]


def test_ratios_that_fell_are_found(result):
    """Fails when absolute times are compared, a fall within the tolerance counts, or one beyond does not."""
    later = copy.deepcopy(result)
    for case in later["cases"]:
        for one in case["results"]:
            for name in one.get("times", {}):
                one["times"][name] *= 3  # a slower machine
    assert regression.compare(result, later) == regression.Comparison((), (), 4)
    later["cases"][0]["results"][0]["ratios"]["torch eager"] = 4 * 0.76
    assert regression.compare(result, later).worse == ()
    later["cases"][0]["results"][0]["ratios"]["torch eager"] = 4 * 0.74
    assert regression.compare(result, later).worse == ("small: cuda beside torch eager: 4.00x became 2.96x",)


def test_a_backend_that_is_wrong_now_is_worse(result):
    """Fails when a result that is no longer timed passes for one that was not compared."""
    later = copy.deepcopy(result)
    later["cases"][0]["results"][0] = {"name": "cuda", "kind": "backend", "status": "wrong", "reason": "1 differs"}
    assert regression.compare(result, later).worse == ("small: cuda was measured, and now is wrong: 1 differs",)


def test_what_cannot_be_compared_is_named(result):
    """Fails when a missing peer, or case, disappears in silence, or nothing compared is a pass."""
    later = copy.deepcopy(result)
    del later["cases"][1]
    del later["cases"][0]["results"][0]["ratios"]["numpy"]
    found = regression.compare(result, later)
    assert found.compared == 1
    assert found.notes == ("small: cuda beside numpy: numpy was not measured", "large: not part of the result")
    del later["cases"][0]
    with pytest.raises(ArgumentError, match="nothing was compared"):
        regression.compare(result, later)
    with pytest.raises(ArgumentError, match="measured on cuda, the result on cpu"):
        regression.compare(result, later | {"device": "cpu"})


def test_our_other_backends_are_no_peers_and_bounds_count(result):
    """Fails when a faster portable backend counts as a loss, or a scaling that left its bounds does not."""
    result["cases"][0]["results"][0]["ratios"]["pytorch"] = 9.0
    later = copy.deepcopy(result)
    later["cases"][0]["results"][0]["ratios"]["pytorch"] = 3.0
    assert regression.compare(result, later).worse == ()
    later["scaling"][0]["within_bounds"] = False
    assert len(regression.compare(result, later).worse) == 1


def test_render_writes_charts_and_tables_once(stored, tmp_path, script):
    """Fails when rendering is not repeatable, or --check does not see a table that was edited by hand."""
    path, readme = stored(), tmp_path / "README.md"
    readme.write_text("# X\n\n<!-- bench:gpu -->\n<!-- /bench -->\n", encoding="utf-8")
    call = ("render", path, "--document", readme, "--charts", tmp_path / "docs")
    stale = script(*call, "--check")
    assert (stale.returncode, stale.stderr) == (1, "")
    assert not (tmp_path / "docs").exists()
    assert script(*call).returncode == 0
    assert "| small | 10.0 | 11.0 | 5.0 | 50% |" in readme.read_text("utf-8")
    assert "copy 4.00 TB/s" in readme.read_text("utf-8")
    assert (tmp_path / "docs" / "benchmarks_gpu.svg").is_file()
    assert script(*call, "--check").stdout == ""
    readme.write_text(readme.read_text("utf-8").replace("10.0", "9.0"), encoding="utf-8")
    edited = script(*call, "--check")
    assert edited.returncode == 1
    assert "not up to date" in edited.stdout


def test_the_regression_script_says_what_got_worse(stored, result, script):
    """Fails when the exit code of a regression is 0, or of an unreadable file 1."""
    baseline = stored()
    same = script("check_regression", "--baseline", baseline, "--result", baseline)
    assert (same.returncode, same.stdout) == (0, "4 ratios compared, 0 got worse\n")
    result["cases"][1]["results"][0]["ratios"]["torch eager"] = 2.0
    worse = script("check_regression", "--baseline", baseline, "--result", stored("ops_b.json"))
    assert worse.returncode == 1
    assert "worse: large: cuda beside torch eager: 10.00x became 2.00x" in worse.stdout
    missing = script("check_regression", "--baseline", baseline, "--result", baseline.parent / "none.json")
    assert missing.returncode == 2
    assert "none.json: not a readable result" in missing.stderr


def test_stored_results_and_documents_agree(script):
    """Fails when a figure was typed by hand, or a result was stored and not rendered."""
    paths = sorted((ROOT / "benchmarks" / "results").glob("ops_*.json"))
    assert paths, "no result is stored"
    assert script("render", "--check").stdout == ""
    for path in paths:
        assert json.loads(path.read_text("utf-8"))["settings"]["quick"] is False
