"""What the package costs to import, what it touches then, and what it says of itself."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import json
import os
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import robocache

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
# Triton comes with PyTorch on CUDA machines, in the version that PyTorch wants: a pin here would contradict it.
UNPINNED = {"triton"}
# What benchmarks compare with runs in a Python of its own, and is never a dependency.
PEERS = {"lerobot", "torchvision"}
# Formats, kernels and the terminal are imported by whoever uses them.
NOT_AT_IMPORT = ("triton", "h5py", "mcap", "mcap_ros2", "rosbags", "pyarrow", "pandas", "rich", "typer")
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


def canonical(requirement: str) -> str:
    """The package that a requirement names, as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~;\s]", requirement.strip())[0]).lower()


def named_dependencies(root: Path, *, with_dev: bool) -> set[str]:
    """The packages that pyproject.toml names."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if with_dev or name != "dev")]
    return {canonical(requirement) for group in groups for requirement in group} - {project["name"]}


def unpinned_dependencies(root: Path) -> list[str]:
    named = named_dependencies(root, with_dev=True)
    lines = (root / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line) for line in lines if re.match(r"[\w.-]+==\w", line)}
    return sorted(named - UNPINNED - pinned) + sorted(f"{name} must not be pinned" for name in UNPINNED & pinned)


def versions(root: Path) -> dict[str, str]:
    patterns = {
        "pyproject.toml": r'^version = "(.+)"$',
        "src/robocache/version.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
        "CHANGELOG.md": r"^## (\S+)",
    }
    found = {name: re.search(line, (root / name).read_text(), re.MULTILINE) for name, line in patterns.items()}
    return {name: match[1] if match else "none" for name, match in found.items()}


def undeclared_imports(root: Path) -> list[str]:
    """What the package imports but gets only because another package happens to bring it."""
    declared = named_dependencies(root, with_dev=False) | UNPINNED | PEERS
    providers = importlib.metadata.packages_distributions() | {"pynvml": ["nvidia-ml-py"]}
    found = set()
    for path in (root / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] for name in names}
    foreign = found - sys.stdlib_module_names - {"robocache"}
    return sorted(name for name in foreign if declared.isdisjoint(map(canonical, providers.get(name, [name]))))


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
    assert set(seen["initialisations"]) == {"torch.cuda was initialised"}  # where there is a GPU it asks twice
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


def test_constraints_pin_every_dependency():
    """Fails when pyproject.toml names a package that constraints.txt does not, or Triton is pinned against PyTorch."""
    assert unpinned_dependencies(ROOT) == []


def test_what_is_imported_is_declared():
    """Fails when a module imports a package that pyproject.toml does not name, such as scipy, which only dev has."""
    assert undeclared_imports(ROOT) == []


def test_versions_agree():
    """Fails when a release raises the version in one of the four places and forgets another."""
    assert versions(ROOT) == dict.fromkeys(versions(ROOT), robocache.__version__)
