"""Public helpers for tests: waiting for states, readers that misbehave, leaks to find."""

from robocache.testing.faults import EagerReader, FailingReader, Leak, StallingReader
from robocache.testing.waiting import wait_until

__all__ = ["EagerReader", "FailingReader", "Leak", "StallingReader", "wait_until"]
