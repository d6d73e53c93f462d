"""Public helpers for tests: waiting for states, readers that misbehave, leaks to find, hangs to end."""

from robocache.testing.faults import FAULTS, EagerReader, FailingReader, Fault, Leak, StallingReader
from robocache.testing.hanging import HangWatch
from robocache.testing.waiting import wait_until

__all__ = ["FAULTS", "EagerReader", "FailingReader", "Fault", "HangWatch", "Leak", "StallingReader", "wait_until"]
