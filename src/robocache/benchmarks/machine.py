"""On what a result was measured: the machine, the versions, the commit. No names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from robocache.version import __version__

PACKAGES = ("torch", "triton", "numpy", "scipy", "open3d", "cupy-cuda12x")


def describe() -> dict[str, Any]:
    """GPU, CPU, cores, memory and operating system."""
    has_gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory if has_gpu else None,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str | None]:
    """Of everything that is timed; None for what is not installed."""
    found: dict[str, str | None] = {"robocache": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["cuda"] = torch.version.cuda
    return found


def commit() -> dict[str, Any]:
    """The commit of the checkout that this package runs from, and whether sources differ from it; None elsewhere.

    `ROBOCACHE_COMMIT` in the environment names the commit where the sources were copied without their history.
    """
    if named := os.environ.get("ROBOCACHE_COMMIT"):
        return {"commit": named, "dirty": None}
    folder = Path(__file__).resolve().parent
    head = _git(folder, "rev-parse", "HEAD")
    # Results are written by the benchmark itself and change nothing that it measures.
    changes = _git(folder, "status", "--porcelain", "--", ":/src")
    return {"commit": head, "dirty": None if head is None or changes is None else bool(changes)}


def load_average() -> list[float]:
    """Of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def file_name(device: str) -> str:
    """Such as `ops_nvidia-h200.json`.

    Args:
        device: What was measured: "cuda" names the GPU, "cpu" the processor.
    """
    machine = describe()
    model = machine["gpu"] if device == "cuda" else f"{machine['cpu']} {machine['cores']} cores"
    return f"ops_{re.sub(r'[^a-z0-9]+', '-', str(model).lower()).strip('-')}.json"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
