"""What the log of a burn-in says, as JSON: `python -m benchmarks.burn_in LOG --out FILE --machine ... --commit ...`.

The log is what `pytest tests/stress/test_long_running.py::test_24h_burn_in -v -s` prints.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

CHECK = re.compile(
    r"\[(?P<hours>[\d.]+)h\] Iter (?P<iteration>\d+): "
    r"GPU=(?P<gpu>[\d.]+)MB \((?P<gpu_growth>[+-][\d.]+)\), CPU=(?P<cpu>[\d.]+)MB \((?P<cpu_growth>[+-][\d.]+)\)"
)
END = re.compile(r"✓ Burn-in complete: (\d+) iterations, no memory leaks")
DURATION = re.compile(r"(\d+) passed in ([\d.]+)s")


def summary(log: str) -> dict[str, object]:
    """The figures of a finished burn-in.

    Raises:
        SystemExit: The log holds no check, or does not end well.
    """
    checks = list(CHECK.finditer(log))
    end, duration = END.search(log), DURATION.search(log)
    if not checks or end is None or duration is None:
        raise SystemExit("this log holds no finished burn-in: no check, no '✓ Burn-in complete', or no '1 passed'")
    seconds = float(duration[2])
    return {
        "iterations": int(end[1]),
        "seconds_with_warm_up": seconds,
        "iterations_per_second": round(int(end[1]) / seconds, 1),
        "lines": len(checks),
        "gpu_growth_mb": sorted({check["gpu_growth"] for check in checks}),
        "cpu_growth_mb": sorted({check["cpu_growth"] for check in checks}, key=float),
        "first": checks[0][0],
        "last": checks[-1][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machine", required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    found = {"machine": given.machine, "commit": given.commit, "note": given.note}
    found |= summary(given.log.read_text(encoding="utf-8"))
    given.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
