"""What `import robocache` costs and touches, seen from a fresh interpreter."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import robocache

SOURCE = Path(__file__).resolve().parents[1] / "src"
# Formats, kernels and the terminal are imported by whoever uses them.
NOT_AT_IMPORT = ("triton", "h5py", "mcap", "mcap_ros2", "pyarrow", "pandas", "rich", "typer")
# One interpreter: imports torch, then robocache, and says what the second import did.
PROBE = f"""
import json, sys, time
import torch

initialisations = []
# Whatever makes a CUDA context goes through this function, also on a build without CUDA, where it would raise.
torch.cuda._lazy_init = lambda: initialisations.append("torch.cuda was initialised")
before = set(sys.modules)
started = time.perf_counter()
import robocache
seconds = time.perf_counter() - started
loaded = sorted({set(NOT_AT_IMPORT)!r} & (set(sys.modules) - before))
print(json.dumps({{"seconds": seconds, "loaded": loaded, "initialisations": initialisations,
                  "has_context": torch.cuda.is_initialized(), "file": robocache.__file__}}))
"""

HEAVY_PACKAGE = """
import contextlib, time
import h5py, torch

time.sleep(0.2)  # slow on purpose
with contextlib.suppress(Exception):  # a build without CUDA goes on to fail where no driver is
    torch.cuda.current_device()
"""


def imported_afresh(source: Path = SOURCE) -> dict[str, object]:
    """What one fresh interpreter reports about importing RoboCache from `source`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", PROBE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_import_is_quick_light_and_leaves_the_gpu_alone():
    """Fails when the import sleeps 1.5 s, imports h5py or any other of `NOT_AT_IMPORT`, or touches the GPU."""
    runs = [imported_afresh() for _ in range(3)]
    assert Path(runs[0]["file"]).parent == SOURCE / "robocache"
    assert [run["loaded"] for run in runs] == [[], [], []]
    assert [run["initialisations"] for run in runs] == [[], [], []]
    assert not any(run["has_context"] for run in runs)
    assert statistics.median(run["seconds"] for run in runs) < 1.5


def test_the_probe_sees_a_heavy_import(tmp_path):
    """Fails when the probe goes blind: this package sleeps, imports a reader's library and asks for the GPU."""
    package = tmp_path / "robocache"
    package.mkdir()
    package.joinpath("__init__.py").write_text(HEAVY_PACKAGE)
    seen = imported_afresh(tmp_path)
    assert seen["loaded"] == ["h5py"]
    assert seen["initialisations"] == ["torch.cuda was initialised"]
    assert seen["seconds"] >= 0.2


def test_public_names_exist_and_are_listed_once():
    """Fails when `__all__` names something that is not there, or names it twice."""
    assert [name for name in robocache.__all__ if not hasattr(robocache, name)] == []
    assert sorted(set(robocache.__all__)) == sorted(robocache.__all__)


def test_the_installed_package_is_typed_and_has_its_command():
    """Fails when py.typed is dropped, the version is not the installed one, or the command points elsewhere."""
    assert importlib.resources.files(robocache).joinpath("py.typed").is_file()
    assert importlib.metadata.version("robocache") == robocache.__version__
    scripts = importlib.metadata.entry_points(group="console_scripts", name="robocache")
    assert callable(next(iter(scripts)).load())
