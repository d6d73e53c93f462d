"""Everything that can go wrong, on purpose: readers that misbehave, leaks, and a catalogue of faults to inject.

`FAULTS` holds each fault of the catalogue by name; `with FAULTS["aliased_outputs"].injected(): ...` breaks RoboCache
from outside until the block ends. The stress suite is run against all of them: `robocache stress kill-matrix`.
"""

# Importing these modules fills the catalogue.
from robocache.testing.faults import (
    between_processes,
    devices,
    engine,
    leaking,
    left_behind,
    loading,
    outside,
    results,
)
from robocache.testing.faults.catalogue import FAULTS, Fault, fault
from robocache.testing.faults.leak import Leak
from robocache.testing.faults.readers import EagerReader, FailingReader, StallingReader

__all__ = [
    "FAULTS",
    "EagerReader",
    "FailingReader",
    "Fault",
    "Leak",
    "StallingReader",
    "between_processes",
    "devices",
    "engine",
    "fault",
    "leaking",
    "left_behind",
    "loading",
    "outside",
    "results",
]
