"""What every stress test needs: settings, lines that show at once, and a watch that ends a hang with every stack."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robocache.errors import RoboCacheError
from robocache.stress.settings import REQUIRE_GPU, Settings, settings_from_environment
from robocache.testing import HangWatch

HANG_S = 600.0  # between two signs of life


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "as_long_as_set: takes STRESS_TEST_DURATION seconds, and may")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse nonsense in the environment before anything runs, and give a burn-in its time.

    Raises:
        pytest.UsageError: A variable that cannot be right; the message names it.
    """
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    if not here:
        return
    try:
        settings = settings_from_environment({**os.environ, REQUIRE_GPU: ""})  # a missing GPU fails tests, not this
    except RoboCacheError as error:
        raise pytest.UsageError(str(error)) from error
    for item in here:
        if item.get_closest_marker("as_long_as_set"):
            item.add_marker(pytest.mark.timeout(settings.seconds + HANG_S))


@pytest.fixture
def settings() -> Settings:
    """From STRESS_TEST_DURATION and ROBOCACHE_BATCH_SIZE, on the GPU if there is one."""
    return settings_from_environment()


@pytest.fixture
def lines() -> Callable[[str], None]:
    """Prints a line at once, also into a pipe; the first one not behind pytest's own text."""
    first = ["\n"]

    def show(line: str) -> None:
        print(first.pop() + line if first else line, flush=True)

    return show


@pytest.fixture
def hang_watch(request: pytest.FixtureRequest) -> Iterator[HangWatch]:
    """Takes the place of pytest's watch over the whole test: a day is fine, ten minutes without a beat are not."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        stderr = os.dup(2)  # the real one: what is captured is lost when the process ends
    with HangWatch(limit_s=HANG_S, file=stderr) as watch:
        yield watch
    os.close(stderr)


@pytest.fixture
def is_terminated() -> Iterator[Callable[[], bool]]:
    """True once SIGTERM has come, so that a long run can end with what it knows."""
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    yield lambda: bool(received)
    signal.signal(signal.SIGTERM, before)
