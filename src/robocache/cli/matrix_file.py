"""The kill matrix on disk: written after every cell, so that whoever stops it keeps what it found, and gone on with."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robocache.benchmarks.whole_file import write_whole
from robocache.cli.console import json_text
from robocache.errors import ArgumentError

if TYPE_CHECKING:
    from robocache.stress.kill_matrix import Cell

_SHARED = ("device", "machine", "torch", "code", "is_full")
Runs = Sequence[tuple[str, str]]


class MatrixFile:
    """What a matrix has found so far.

    Args:
        path: Where the JSON goes; None: nowhere.
        runs: The pairs of a fault and a scenario that are wanted.
        device: Where they run.
        is_full: Every fault with every scenario is wanted.
        resume: Keep the cells that the file holds.
        jobs: How many pairs run at a time.

    Raises:
        ArgumentError: To be resumed, and without a file's name, or what the file holds is no matrix or another's.
    """

    def __init__(
        self, path: Path | None, runs: Runs, device: str, *, is_full: bool, resume: bool, jobs: int = 1
    ) -> None:
        from robocache.stress.kill_matrix import Cell

        self._path, self._runs, self._header = path, runs, _header(device, is_full=is_full)
        self._jobs = jobs
        self.cells: list[Cell] = []
        if resume:
            if path is None:
                raise ArgumentError("--resume goes on with a file: name it with --out")
            found = _read(path, self._header) if path.exists() else []
            self.cells = [cell for cell in map(Cell.from_dict, found) if (cell.fault, cell.scenario) in runs]

    @property
    def left(self) -> list[tuple[str, str]]:
        """The pairs that no cell is there for."""
        there = {(cell.fault, cell.scenario) for cell in self.cells}
        return [pair for pair in self._runs if pair not in there]

    def add(self, cell: Cell) -> None:
        """Keep a cell, and write the file, whole or not at all.

        Args:
            cell: What was found.

        Raises:
            OutputError: It cannot be written.
        """
        self.cells.append(cell)
        if self._path is not None:
            write_whole(self._path, json_text(self.document()), remedy="name another --out")

    def document(self) -> dict[str, Any]:
        """A fault is killed if the scenario that must notice it does; in a full matrix the others may or may not."""
        from robocache.testing import FAULTS

        order = {pair: number for number, pair in enumerate(self._runs)}
        cells = sorted(self.cells, key=lambda cell: order[cell.fault, cell.scenario])
        own = [cell for cell in cells if cell.fault in FAULTS and cell.scenario == FAULTS[cell.fault].scenario]
        clean = [cell for cell in cells if cell.fault not in FAULTS]
        return self._header | {
            "is_complete": not self.left,
            "pairs": len(self._runs),
            "jobs": self._jobs,
            "faults": len(own),
            "killed": sum(cell.is_good for cell in own),
            "false_alarms": sum(not cell.is_good for cell in clean),
            "seconds": round(sum(cell.seconds for cell in cells), 1),
            "passed": not self.left and all(cell.is_good for cell in own + clean),
            "cells": [cell.as_dict() for cell in cells],
        }


def _header(device: str, *, is_full: bool) -> dict[str, Any]:
    import torch

    from robocache.cli.endurance import code_hash

    return {
        "command": "stress kill-matrix",
        "device": device,
        "machine": platform.machine() if device == "cpu" else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "code": code_hash(),
        "is_full": is_full,
    }


def _read(path: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        document = json.loads(path.read_text("utf-8"))
        cells: list[dict[str, Any]] = document["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path}: holds no kill matrix to go on with; name another --out") from error
    for name in _SHARED:
        if document.get(name) != header[name]:
            raise ArgumentError(
                f"{path}: is of {name} {document.get(name)!r}, and this is {name} {header[name]!r}; "
                "one matrix cannot be of both: leave out --resume to begin anew"
            )
    return cells
