"""DCGM's counters by a made-up `dcgmi`, which prints what NVIDIA's documentation shows; by a real one where it is."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys

import pytest

from robocache.stress.dcgm_monitor import DCGM_VALUES, DcgmMonitor
from robocache.testing.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
HEADING = "#Entity   GRACT        SMACT        SMOCC        DRAMA        MMTMP\nID\n"
OTHER = "GPU 1     0.111        0.111        0.111        0.111        11\n"
ROW = "GPU 0     0.951        0.874        0.312        N/A          58\n"


def dcgmi(folder, text, *, then="signal.pause()"):
    """A program that prints `text` and goes on as `then` says."""
    path = folder / "dcgmi"
    path.write_text(
        f"#!{sys.executable}\nimport signal, sys\n"
        "assert sys.argv[1:] == ['dmon', '-e', '1001,1002,1003,1005,140', '-i', '0', '-d', '1000'], sys.argv\n"
        f"print({text!r}, end='', flush=True)\n{then}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_the_last_line_of_this_gpu_is_sampled(tmp_path):
    """Catches another GPU's line taken for this one's, columns moved by one, and N/A as 0."""
    monitor = DcgmMonitor(program=dcgmi(tmp_path, HEADING + ROW + OTHER))
    monitor.start()
    try:
        wait_until(lambda: not math.isnan(monitor.sample()["dcgm_sm_active_ratio"]))
        values = dict(monitor.sample())
        assert (monitor.problems(), monitor.notes()) == ([], [])
    finally:
        monitor.close()
    assert math.isnan(values.pop("dcgm_dram_active_ratio"))
    assert values == {
        "dcgm_graphics_engine_active_ratio": 0.951,
        "dcgm_sm_active_ratio": 0.874,
        "dcgm_sm_occupancy_ratio": 0.312,
        "dcgm_memory_temperature_celsius": 58,
    }


def test_close_ends_the_program(tmp_path):
    monitor = DcgmMonitor(program=dcgmi(tmp_path, HEADING, then="signal.signal(15, signal.SIG_IGN)\nsignal.pause()"))
    monitor.start()
    process = monitor._process
    monitor.close()
    monitor.close()
    assert process.returncode in (-15, -9)


def test_a_machine_without_dcgm_gets_a_note():
    monitor = DcgmMonitor(program="no-such-dcgmi")
    monitor.start()
    assert (monitor.sample(), monitor.problems()) == ({}, [])
    assert monitor.notes() == ["no DCGM counters: no-such-dcgmi is not installed (datacenter-gpu-manager has it)"]
    monitor.close()


def test_a_dcgm_without_a_host_engine_gets_a_note(tmp_path):
    """Catches a sample that goes on with the last figures of a program which ended."""
    refusal = "Error: unable to establish a connection to the specified host: localhost\n"
    monitor = DcgmMonitor(program=dcgmi(tmp_path, ROW + refusal, then="sys.exit(255)"))
    monitor.start()
    monitor._process.wait()
    assert monitor.notes() == [f"no DCGM counters after 1 lines: dcgmi dmon ended: {refusal.strip()}"]
    assert all(math.isnan(monitor.sample()[name]) for name in DCGM_VALUES)
    assert monitor.problems() == []
    said = monitor.notes()
    monitor.close()
    assert monitor.notes() == said


@pytest.mark.gpu
def test_a_real_dcgm_is_understood():
    if shutil.which("dcgmi") is None:
        pytest.skip("no dcgmi here")
    listing = subprocess.run(["dcgmi", "discovery", "-l"], capture_output=True, text=True, check=False, timeout=30)
    if listing.returncode:
        pytest.skip(f"dcgmi finds no host engine: {listing.stdout.strip()[:100]}")
    monitor = DcgmMonitor()
    monitor.start()
    try:
        wait_until(lambda: not math.isnan(monitor.sample()["dcgm_sm_active_ratio"]), deadline_s=20)
        assert 0 <= monitor.sample()["dcgm_sm_active_ratio"] <= 1
    finally:
        monitor.close()
