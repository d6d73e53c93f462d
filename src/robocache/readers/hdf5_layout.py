"""What an HDF5 file means: which family it is of, where its episodes, times and rates are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.readers.hdf5_tree import Hdf5File, Tree
from robocache.readers.limits import REACH_NS
from robocache.records import Int64, Kind

if TYPE_CHECKING:
    from h5py import Dataset

ALOHA_RATE_HZ = 50.0
_TIME = re.compile(r"(?:time|times|timestamp|timestamps|stamp|stamps|t)(?:_(ns|us|ms|s|sec))?", re.IGNORECASE)
_RATES = ("sampling_rate", "sample_rate", "sampling_frequency", "rate_hz", "fps", "frequency")
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "sec": 1_000_000_000}
_UNITS |= {"nanoseconds": 1, "microseconds": 1_000, "milliseconds": 1_000_000, "seconds": 1_000_000_000}
_ACTIONS = ("action", "actions")  # one row a step, in ALOHA's and robomimic's files: what else has no times follows it
_BROAD = {"imu_acc", "imu_gyr", "opt_quat"}
_DEMO = re.compile(r"data/(demo_(\d+))")
_XYZ = re.compile(r"(?:^|_)(?:acc|gyr|mag|pos|vel|force|torque)$")


@dataclass(frozen=True)
class Flavour:
    """Which family of HDF5 files one is of.

    Args:
        name: "plain", "broad", "robomimic" or "aloha".
        episodes: Names of the episodes.
        prefixes: Where each lies, "" or ending in a slash.
        rate_hz: What the file, or the family, says; None when neither does.
        rate_source: Where that stands.
    """

    name: str
    episodes: tuple[str, ...]
    prefixes: tuple[str, ...]
    rate_hz: float | None
    rate_source: str

    def prefix(self, index: int) -> str:
        """Where an episode lies."""
        return self.prefixes[index]


@dataclass(frozen=True)
class TimeAxis:
    """Where a dataset's times come from: another dataset, or a rate."""

    clock: str
    dataset: str | None = None
    rate_hz: float = 0.0


def flavour_of(file: Hdf5File, tree: Tree) -> Flavour:
    """Recognise robomimic, ALOHA and BROAD by what they always have; everything else is plain."""
    demos = sorted((int(match[2]), match[1]) for match in map(_DEMO.fullmatch, tree.groups) if match)
    stem = (file.path.stem,)
    if demos:
        names = tuple(name for _, name in demos)
        rate = _control_freq(file.text(tree.groups["data"], "env_args"))
        return Flavour("robomimic", names, tuple(f"data/{name}/" for name in names), rate, "attribute data.env_args")
    for name in _RATES:
        rate = file.number(tree.groups[""], name)
        if rate is not None:
            kind = "broad" if set(tree.datasets) >= _BROAD else "plain"
            return Flavour(kind, stem, ("",), rate, f"attribute {name}")
    if {"observations/qpos", "action"} <= set(tree.datasets):
        return Flavour("aloha", stem, ("",), ALOHA_RATE_HZ, "the ALOHA convention")
    return Flavour("plain", stem, ("",), None, "")


def time_axis(name: str, datasets: Mapping[str, Dataset], rate_hz: float | None) -> TimeAxis | str | None:
    """Where a dataset's times are; None for a dataset that is times itself; a text says why there are none."""
    folder, _, own = name.rpartition("/")
    if _TIME.fullmatch(own):
        return None
    rows = datasets[name].shape[0]
    mismatch = ""
    for candidate in _candidates(folder, datasets):
        if datasets[candidate].shape[0] == rows:
            return TimeAxis(candidate.rpartition("/")[2], candidate)
        mismatch = mismatch or f"it has {rows} rows, but {candidate} has {datasets[candidate].shape[0]}"
    if mismatch:
        return mismatch
    if rate_hz is None:
        return "it has neither times nor a rate"
    steps = next((action for action in _ACTIONS if action in datasets), name)
    if abs(rows - datasets[steps].shape[0]) > 1:  # a last observation has no action any more
        return f"it has {rows} rows, but {steps} has {datasets[steps].shape[0]}"
    return TimeAxis("synthetic", rate_hz=rate_hz)


def _candidates(folder: str, datasets: Mapping[str, Dataset]) -> list[str]:
    """Datasets of times in the folder, then in those around it, nearest first."""
    found = [
        name
        for name in datasets
        if _TIME.fullmatch(name.rpartition("/")[2])
        and _is_vector(datasets[name])
        and (name.rpartition("/")[0] == folder or folder.startswith(_inside(name.rpartition("/")[0])))
    ]
    return sorted(found, key=lambda name: -name.count("/"))


def _inside(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _is_vector(dataset: Dataset) -> bool:
    return len(dataset.shape) == 1 or dataset.shape[1] == 1


def nanoseconds(values: npt.NDArray[np.generic], name: str, units: str | None) -> Int64:
    """Stamps in int64 nanoseconds: floats are seconds and integers nanoseconds unless name or units say otherwise.

    Raises:
        ValueError: Stamps that are not finite, or beyond `REACH_NS`, or units that are not known.
    """
    match = _TIME.fullmatch(name.rpartition("/")[2])
    is_float = values.dtype.kind == "f"
    unit = (units or (match[1] if match else None) or ("s" if is_float else "ns")).lower()
    if unit not in _UNITS:
        raise ValueError(f"its stamps are in {unit!r}, which is not one of {', '.join(_UNITS)}")
    scale = _UNITS[unit]
    reach = REACH_NS / scale
    if not is_float:
        if len(values) and (int(values.max()) > reach or int(values.min()) < -reach):
            raise ValueError("its stamps are more than 146 years from zero")
        return np.asarray(values.astype(np.int64) * scale, dtype=np.int64)
    seconds = values.astype(np.float64)
    if not np.all(np.abs(seconds) < reach):  # also false for NaN
        row = int(np.argmin(np.abs(seconds) < reach))
        raise ValueError(f"its stamp in row {row} is {float(seconds[row])!r}, which is not a time")
    # Whole units apart from the rest: multiplied at once, today's epoch would lose its last digits.
    whole = np.floor(seconds)
    return whole.astype(np.int64) * scale + np.rint((seconds - whole) * scale).astype(np.int64)


def kind_and_columns(file: Hdf5File, dataset: Dataset, name: str, flavour: str) -> tuple[Kind, tuple[str, ...]]:
    """What the columns of a dataset mean, from its name, its width and its attribute `order`.

    A dataset of width 4 with "quat" in its name is a quaternion: scalar first in BROAD files, as `order` says in
    others, and scalar last (robosuite, ROS) where nothing says.
    """
    width = dataset.shape[1] if len(dataset.shape) == 2 else 1
    own = name.rpartition("/")[2].lower()
    if width == 4 and "quat" in own:
        is_scalar_first = flavour == "broad" or file.text(dataset, "order") == "wxyz"
        return ("quaternion_wxyz", tuple("wxyz")) if is_scalar_first else ("quaternion_xyzw", tuple("xyzw"))
    if width == 3 and _XYZ.search(own):
        return "vector", ("x", "y", "z")
    return "vector", ()


def _control_freq(env_args: str | None) -> float | None:
    """The rate in robomimic's description of its simulator."""
    if env_args is None:
        return None
    try:
        described = json.loads(env_args)
        rate = described["env_kwargs"]["control_freq"]
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError):
        return None  # another simulator; the reader then asks for rate_hz
    return float(rate) if isinstance(rate, (int, float)) else None
