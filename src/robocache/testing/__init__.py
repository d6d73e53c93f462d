"""Public helpers for tests: states to wait for, readers that misbehave, leaks to find, hangs to end, a dataset."""

from robocache.testing.faults import FAULTS, EagerReader, FailingReader, Fault, Leak, StallingReader
from robocache.testing.hanging import HangWatch
from robocache.testing.memory_dataset import MemoryDataset
from robocache.testing.waiting import wait_until

__all__ = [
    "FAULTS",
    "EagerReader",
    "FailingReader",
    "Fault",
    "HangWatch",
    "Leak",
    "MemoryDataset",
    "StallingReader",
    "wait_until",
]
