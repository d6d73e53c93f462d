"""Write the charts in docs/ and the tables between the markers of README.md and docs/*.md from stored results.

    python -m benchmarks.render [RESULT.json ...] [--document FILE ...] [--charts FOLDER] [--check]

Without results, all of benchmarks/results/ops_*.json are taken; of two of the same kind of device the later counts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import engine, goals, stress, trials
from robocache.benchmarks import chart, results, tables
from robocache.errors import RoboCacheError

ROOT = Path(__file__).resolve().parents[1]
FILLED = ("benchmarks", "lerobot", "loader", "stress")
NAMES = {"cuda": "gpu", "cpu": "cpu"}


def main(arguments: list[str] | None = None) -> int:
    """0: written, or with --check up to date; 1: --check found something stale; 2: an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, help="stored results; default: all of benchmarks/results")
    parser.add_argument("--document", action="append", type=Path, help="Markdown to fill; may be given several times")
    parser.add_argument("--charts", type=Path, default=ROOT / "docs", help="folder of the charts")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is not up to date")
    options = parser.parse_args(arguments)
    paths = options.results or sorted((ROOT / "benchmarks" / "results").glob("ops_*.json"))
    documents = options.document or [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in FILLED)]
    try:
        texts = rendered(paths, documents, options.charts)
    except (RoboCacheError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stale = {path: text for path, text in texts.items() if not path.is_file() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        print(f"{'not up to date' if options.check else 'written'}: {path}")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if options.check and stale else 0


def rendered(paths: list[Path], documents: list[Path], charts: Path) -> dict[Path, str]:
    """What each file should hold."""
    texts: dict[Path, str] = {}
    folder = ROOT / "benchmarks" / "results"
    blocks = trials.blocks(folder) | goals.blocks(folder) | stress.blocks(folder) | engine.blocks(folder)
    for device, result in latest(paths).items():
        texts[charts / f"benchmarks_{NAMES[device]}.svg"] = chart.chart(result)
        blocks |= tables.blocks(result)
    for document in documents:
        texts[document] = tables.inserted(document.read_text("utf-8"), blocks, document.name)
    return texts


def latest(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """The latest result of each kind of device."""
    found = sorted((results.load(path) for path in paths), key=lambda result: result["date"])
    return {result["device"]: result for result in found}


if __name__ == "__main__":
    sys.exit(main())
