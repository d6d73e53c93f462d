"""Public helpers for tests: what readers promise, faults to inject, leaks to find, hangs to end, a dataset."""

from robocache.testing.faults import FAULTS, EagerReader, FailingReader, Fault, Leak, StallingReader
from robocache.testing.hanging import HangWatch
from robocache.testing.memory_dataset import MemoryDataset
from robocache.testing.reader_conformance import ReaderConformanceError, ReaderReport, check_reader
from robocache.testing.waiting import wait_until

__all__ = [
    "FAULTS",
    "EagerReader",
    "FailingReader",
    "Fault",
    "HangWatch",
    "Leak",
    "MemoryDataset",
    "ReaderConformanceError",
    "ReaderReport",
    "StallingReader",
    "check_reader",
    "wait_until",
]
