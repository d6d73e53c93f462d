"""The loader over recordings, again and again: the short form of `robocache soak`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from robocache.cache.units import Source
from robocache.stress.monitor import Monitor
from robocache.stress.report import Lines, Report, silent
from robocache.stress.resources import QuietCollections, device_counters, host_counters
from robocache.stress.settings import Settings
from robocache.stress.soak import Soak, generated_robot

BATCHES = 1_500
_READINGS = 128
_WARM_UP = 150


def loader_burn_in(
    settings: Settings,
    lines: Lines = silent,
    *,
    source: Source = generated_robot,
    batches: int = BATCHES,
    heartbeat: Callable[[], object] = int,
    after_batch: Callable[[], object] = int,
) -> Report:
    """Epoch after epoch of a recording that is aligned into a cache of its own.

    A failure of the report is a batch that differs from its episodes, a cached episode that differs from its files, or
    a sample that is lost or doubled; its verdicts are of every counter.

    Args:
        settings: Device, batch size and seed.
        lines: Gets one line.
        source: Whatever `robocache.open` takes.
        batches: How many.
        heartbeat: Called after each.
        after_batch: Called after each; a test makes it leak.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="robocache-stress-") as folder, QuietCollections():
        soak = Soak(source, settings, Path(folder))
        monitor = Monitor((*host_counters(), *device_counters(settings.device)), readings=_READINGS)
        try:
            pause = max(1, (batches - _WARM_UP) // _READINGS)
            for iteration in range(batches):
                soak.run(iteration)
                after_batch()
                if iteration >= _WARM_UP and (iteration - _WARM_UP) % pause == 0:
                    monitor.read(iteration)
                heartbeat()
        finally:
            soak.close()
    measured = soak.measured()
    lines(f"{batches} batches, {measured['epochs']} epochs, {len(soak.failures())} failures")
    return Report(
        "loader-burn-in",
        settings.device,
        iterations=batches,
        seconds=time.monotonic() - started,
        failures=tuple(soak.failures()),
        verdicts=monitor.verdicts(),
        measured=measured,
        series=monitor.series(),
    )
