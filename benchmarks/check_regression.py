"""Did a backend get slower beside its peers? Compares the ratios of two results, never absolute times.

python -m benchmarks.check_regression --baseline FILE --result FILE [--tolerance 0.25]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robocache.benchmarks import regression, results
from robocache.errors import RoboCacheError


def main(arguments: list[str] | None = None) -> int:
    """0: nothing got worse; 1: something did, or is not timed any more; 2: an error."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check_regression", description=summary)
    parser.add_argument("--baseline", type=Path, required=True, help="the earlier result")
    parser.add_argument("--result", type=Path, required=True, help="the later result")
    parser.add_argument("--tolerance", type=float, default=regression.TOLERANCE, help="0.25: 4x may become 3x")
    options = parser.parse_args(arguments)
    if not 0 <= options.tolerance < 1:
        parser.error(f"--tolerance must be from 0 to below 1, got {options.tolerance}")
    try:
        found = regression.compare(results.load(options.baseline), results.load(options.result), options.tolerance)
    except RoboCacheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in found.notes:
        print(f"not compared: {note}")
    for row in found.worse:
        print(f"worse: {row}")
    print(f"{found.compared} ratios compared, {len(found.worse)} got worse")
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())
