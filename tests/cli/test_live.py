"""The live view of a long run, as a terminal of a given width gets it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from robocache.cli.live import LiveView, duration
from robocache.stress.long_run import Progress

PROGRESS = Progress(3.0, 8.0, 100, 54.3, 0.0, 355.5, {"gpu_temperature_celsius": 61.0})


@pytest.mark.parametrize("width", [60, 80, 200])
def test_memory_throughput_and_time_left_each_have_a_line_of_their_own(width):
    """Fails when the facts go on behind the bar, whose own end of line is missing: the host's memory was cut off."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None, emoji=False)
    with LiveView("robocache burn-in", console) as view:
        view.line("[0.00h] Iter 100: GPU=0.0MB (+0.0), CPU=355.5MB (+0.0)")
        view.update(PROGRESS)
    shown = [line.rstrip() for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue()).splitlines()]
    facts = [re.split(r" {2,}", line) for line in shown]
    assert ["memory", "GPU 0.0 MB", "CPU 355.5 MB"] in facts
    assert ["throughput", "54.3 a second", "100 iterations"] in facts
    assert ["time left", "5 s", "of 8 s"] in facts
    assert ["gpu_temperature_celsius", "61"] in facts
    assert "[0.00h] Iter 100: GPU=0.0MB (+0.0), CPU=355.5MB (+0.0)" in shown


def test_durations_are_for_people():
    assert [duration(each) for each in (42, 119.6, 3_599, 86_400)] == [
        "42 s",
        "2 min 00 s",
        "59 min 59 s",
        "24 h 00 min",
    ]
