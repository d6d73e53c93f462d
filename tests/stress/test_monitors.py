"""What watches a long run is started, sampled, asked and let go of, whatever happens."""

from __future__ import annotations

import pytest

from robocache.errors import ArgumentError, DeviceError
from robocache.stress.monitors import Monitors

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]


class Thermometer:
    def __init__(self, log, name="gpu_temperature_c", *, is_missing=False, problems=()):
        self.log, self.name, self.is_missing, self.found = log, name, is_missing, list(problems)

    def start(self):
        self.log.append(f"start {self.name}")
        if self.is_missing:
            raise DeviceError("there is no thermometer")

    def sample(self):
        return {self.name: 61.0}

    def problems(self):
        return self.found

    def close(self):
        self.log.append(f"close {self.name}")


def test_values_and_problems_of_all_monitors_come_together():
    """Fails when only the first is asked, or a problem is counted as a pass."""
    log = []
    with Monitors([Thermometer(log, "a"), Thermometer(log, "b", problems=["Xid 79: fell off the bus"])]) as monitors:
        assert monitors.sample() == {"a": 61.0, "b": 61.0}
        (verdict,) = monitors.verdicts()
    assert str(verdict) == "INVALID Thermometer: Xid 79: fell off the bus"
    assert log == ["start a", "start b", "close b", "close a"]


def test_a_monitor_that_cannot_start_leaves_none_open():
    """Fails when those started before it are not closed, or it is not itself."""
    log = []
    with pytest.raises(DeviceError, match="there is no thermometer"):
        Monitors([Thermometer(log, "a"), Thermometer(log, "b", is_missing=True)]).__enter__()
    assert log == ["start a", "start b", "close b", "close a"]


def test_two_values_of_one_name_are_refused():
    """Fails when one silently takes the other's place in the log."""
    with (
        Monitors([Thermometer([]), Thermometer([])]) as monitors,
        pytest.raises(ArgumentError, match="two monitors sample"),
    ):
        monitors.sample()
