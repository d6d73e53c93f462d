"""How long and on what a scenario runs; read from the environment where a test has no other way in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from robocache.errors import ArgumentError, DeviceError

DURATION = "STRESS_TEST_DURATION"
BATCH_SIZE = "ROBOCACHE_BATCH_SIZE"
REQUIRE_GPU = "ROBOCACHE_REQUIRE_GPU"
FULL_DURATION_S = 86_400.0
_LONGEST_S = 366 * 86_400.0
_LARGEST_BATCH = 1_000_000  # of which the inputs alone are 70 GB


@dataclass(frozen=True)
class Settings:
    """How a scenario runs.

    Args:
        seconds: How long a scenario without an end of its own goes on.
        batch_size: Episodes in one fuse.
        device: "cuda", "cuda:1", "cpu".
        seed: Of the inputs.
        is_default_duration: Nobody chose `seconds`, so the run says how to shorten it.

    Raises:
        ArgumentError: A value that cannot be right.
    """

    seconds: float = FULL_DURATION_S
    batch_size: int = 4
    device: str = "cpu"
    seed: int = 0
    is_default_duration: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= _LONGEST_S:
            raise ArgumentError(f"seconds must be greater than 0 and at most a year, got {self.seconds!r}")
        if not 1 <= self.batch_size <= _LARGEST_BATCH:
            raise ArgumentError(f"batch_size must be 1 to {_LARGEST_BATCH}, got {self.batch_size!r}")


def settings_from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """`STRESS_TEST_DURATION` (seconds; unset: 24 hours), `ROBOCACHE_BATCH_SIZE` (unset: 4), the GPU if there is one.

    Args:
        environment: None: the process's own.

    Raises:
        ArgumentError: A variable holds something else than a number of 1 or more; the message names it.
        DeviceError: `ROBOCACHE_REQUIRE_GPU=1`, and there is no GPU that PyTorch can use.
    """
    variables = os.environ if environment is None else environment
    duration = variables.get(DURATION)
    return Settings(
        seconds=FULL_DURATION_S if duration is None else _duration(duration),
        batch_size=_whole_number(BATCH_SIZE, variables.get(BATCH_SIZE, "4")),
        device=choose_device(variables),
        is_default_duration=duration is None,
    )


def choose_device(environment: Mapping[str, str] | None = None) -> str:
    """The GPU if PyTorch can use one ("cuda"), else "cpu".

    Raises:
        DeviceError: `ROBOCACHE_REQUIRE_GPU=1`, and there is none.
    """
    variables = os.environ if environment is None else environment
    if torch.cuda.is_available():
        return "cuda"
    if variables.get(REQUIRE_GPU, "") not in ("", "0"):
        raise DeviceError(
            f"{REQUIRE_GPU}={variables[REQUIRE_GPU]}, but PyTorch finds no GPU here (torch {torch.__version__}); "
            f"install a CUDA build and a driver, or unset {REQUIRE_GPU}"
        )
    return "cpu"


def _duration(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= _LONGEST_S:  # also NaN and infinity
        raise ArgumentError(
            f"{DURATION} must be a number of seconds, 1 or more (3600 is an hour, a year the most; unset is "
            f"24 hours), got {text!r}"
        )
    return seconds


def _whole_number(name: str, text: str) -> int:
    number = int(text) if text.strip().isdecimal() and len(text) < 20 else 0
    if not 1 <= number <= _LARGEST_BATCH:
        raise ArgumentError(f"{name} must be a whole number, 1 to {_LARGEST_BATCH} (unset is 4), got {text!r}")
    return number
