"""Public helpers for tests: what readers promise, faults to inject, leaks to find, states to wait for."""

from robocache.testing.faults import EagerReader, FailingReader, Leak, StallingReader
from robocache.testing.hanging import HangWatch
from robocache.testing.reader_conformance import ReaderConformanceError, ReaderReport, check_reader
from robocache.testing.waiting import wait_until

__all__ = [
    "EagerReader",
    "FailingReader",
    "HangWatch",
    "Leak",
    "ReaderConformanceError",
    "ReaderReport",
    "StallingReader",
    "check_reader",
    "wait_until",
]
