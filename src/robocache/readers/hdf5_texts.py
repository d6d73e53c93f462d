"""Texts of variable length in HDF5 files, read at arm's length.

On a damaged heap of texts, HDF5's own library was seen to loop for ever and to allocate gigabytes (HDF5 2.0), and a
loop in C cannot be ended from Python. So a short-lived process reads them, with a limit on its time and memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from robocache.errors import DamagedRecordingError

TIMEOUT_S = 60
_CHILD = Path(__file__).with_name("hdf5_texts_child.py")


def read_texts(path: Path, owners: Collection[str]) -> dict[str, dict[str, str]]:
    """The text attributes that the reader knows, by object and attribute name.

    Raises:
        DamagedRecordingError: HDF5 did not come back, crashed, or found damage.
    """
    # Without -P this folder would come first on the child's path, and our statistics.py before the standard one.
    command = [sys.executable, "-P", str(_CHILD), str(path.resolve())]
    remedy = "copy or record it again"
    try:
        child = subprocess.run(
            command, input=json.dumps(list(owners)), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        problem = f"HDF5 did not come back within {TIMEOUT_S} s"
        raise DamagedRecordingError(path, problem, place="text attributes", remedy=remedy) from error
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["without a message"]
        reason = f"was ended by signal {-child.returncode}" if child.returncode < 0 else f"failed ({lines[-1][:200]})"
        raise DamagedRecordingError(path, f"reading them with HDF5 {reason}", place="text attributes", remedy=remedy)
    texts: dict[str, dict[str, str]] = json.loads(child.stdout)
    return texts
