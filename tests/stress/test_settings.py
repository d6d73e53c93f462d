"""STRESS_TEST_DURATION, ROBOCACHE_BATCH_SIZE and ROBOCACHE_REQUIRE_GPU mean what the README says."""

from __future__ import annotations

import pytest
import torch

from robocache.errors import ArgumentError, DeviceError
from robocache.stress.burn_in import Hooks, _BurnIn
from robocache.stress.long_settings import thresholds_from_environment
from robocache.stress.resources import host_counters
from robocache.stress.settings import Settings, settings_from_environment

pytestmark = [pytest.mark.slow, pytest.mark.stress]


def test_nothing_set_is_a_day_with_batch_four():
    settings = settings_from_environment({})
    assert (settings.seconds, settings.batch_size, settings.is_default_duration) == (86_400, 4, True)
    assert settings.device == ("cuda" if torch.cuda.is_available() else "cpu")


def test_what_is_set_is_used():
    settings = settings_from_environment({"STRESS_TEST_DURATION": "3600", "ROBOCACHE_BATCH_SIZE": "2"})
    assert (settings.seconds, settings.batch_size, settings.is_default_duration) == (3_600, 2, False)


@pytest.mark.parametrize("text", ["0", "-5", "0.5", "an hour", "", "nan", "inf", "1e99", "60s"], ids=repr)
def test_a_duration_that_is_none_names_the_variable(text):
    with pytest.raises(ArgumentError, match=r"^STRESS_TEST_DURATION must be a number of seconds, 1 or more \(3600 is"):
        settings_from_environment({"STRESS_TEST_DURATION": text})


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "four", "", "1000001", "9" * 40], ids=repr)
def test_a_batch_size_that_is_none_names_the_variable(text):
    with pytest.raises(
        ArgumentError, match=r"^ROBOCACHE_BATCH_SIZE must be a whole number, 1 to 1000000 \(unset is 4\), got"
    ):
        settings_from_environment({"ROBOCACHE_BATCH_SIZE": text})


def test_a_required_gpu_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"^ROBOCACHE_REQUIRE_GPU=1, but PyTorch finds no GPU here"):
        settings_from_environment({"ROBOCACHE_REQUIRE_GPU": "1"})
    assert settings_from_environment({"ROBOCACHE_REQUIRE_GPU": "0"}).device == "cpu"


@pytest.mark.parametrize(("name", "value"), [("seconds", 0), ("seconds", float("nan")), ("batch_size", 0)])
def test_settings_check_themselves(name, value):
    with pytest.raises(ArgumentError, match=rf"^{name} must be "):
        Settings(**{name: value})


def test_thresholds_come_from_the_environment():
    """Catches the two variables taken for each other, and nonsense that becomes no limit at all."""
    limits = thresholds_from_environment({"ROBOCACHE_GPU_LEAK_MB": "200"})
    assert (limits.gpu_leak_mb, limits.cpu_leak_mb) == (200, 500)
    budgets = {each.name: each.budget_per_day for each in limits.applied(host_counters())}
    assert budgets["heap_bytes"] == budgets["resident_bytes"] == 500e6
    for nonsense in ("nan", "inf", "-1", "0", "many"):
        with pytest.raises(ArgumentError, match=rf"^ROBOCACHE_CPU_LEAK_MB must be a number of MB.*got '{nonsense}'$"):
            thresholds_from_environment({"ROBOCACHE_CPU_LEAK_MB": nonsense})


def test_a_burn_in_judges_by_the_threshold_that_is_set(monkeypatch):
    """Catches a variable that moves the assertion of the test and not the budget of the verdict."""
    monkeypatch.setenv("ROBOCACHE_CPU_LEAK_MB", "7")
    run = _BurnIn(Settings(seconds=1, batch_size=1), Hooks(), 64, 0.01)
    assert {
        each.budget_per_day for each in run._monitor._counters if each.name in ("heap_bytes", "resident_bytes")
    } == {7e6}
