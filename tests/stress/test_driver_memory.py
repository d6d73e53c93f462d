"""Driver memory is this process's own where NVML tells; else another process neither fails a run nor hides a leak."""

from __future__ import annotations

import math
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robocache.stress.driver_memory import DriverMemory, Readers, driver_memory
from robocache.stress.monitor import Monitor
from robocache.stress.resources import Counter, QuietCollections, device_counters
from robocache.stress.settings import choose_device
from robocache.stress.verdicts import judge

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
READINGS = 200
ME, OTHER = 4_711, 1_234
LEAK = 1e6  # bytes an iteration


class MadeUpDevice:
    """What NVML and CUDA would say of a GPU on which this process and others hold bytes."""

    def __init__(self, **held):
        self.held = {int(name.removeprefix("p")): count for name, count in held.items()}
        self.listed = lambda: dict(self.held)

    def memory(self, *, with_nvml=True):
        readers = Readers(
            device_bytes=lambda: float(sum(self.held.values())),
            processes=(lambda: self.listed()) if with_nvml else None,
            why_not="" if with_nvml else "no NVML",
        )
        return DriverMemory(lambda: readers, process=ME)


def verdict_over(memory, each_iteration):
    counter = Counter("driver_bytes", memory.read, 100e6, 32e6, is_exact=False, scope=memory.scope, doubt=memory.doubt)
    counts = []
    for _ in range(READINGS):
        each_iteration()
        counts.append(counter.read())
    return judge(counter, np.arange(READINGS), np.array(counts), per_day=50 * 86_400)


def growth(device, *, me=0.0, other=0.0):
    def grow():
        device.held[ME] += me
        device.held[OTHER] += other

    return grow


def without_bytes(device):
    return lambda: dict.fromkeys(device.held)


def test_a_leak_of_this_process_is_found_beside_another_that_gives_memory_back():
    device = MadeUpDevice(p4711=1e8, p1234=1e9)
    verdict = verdict_over(device.memory(), growth(device, me=LEAK, other=-LEAK))
    assert verdict.outcome == "FAIL"
    assert verdict.why.endswith(", of this process")


def test_another_process_that_takes_memory_is_no_leak_of_this_one():
    device = MadeUpDevice(p4711=1e8, p1234=1e9)
    verdict = verdict_over(device.memory(), growth(device, other=LEAK))
    assert (verdict.outcome, verdict.why) == ("PASS", "no trend, level within 0.0 MB, of this process")


@pytest.mark.parametrize(("me", "other", "otherwise"), [(0.0, LEAK, "FAIL"), (LEAK, -LEAK, "PASS")])
def test_the_whole_device_says_nothing_while_another_process_is_seen(me, other, otherwise):
    device = MadeUpDevice(p4711=1e8, p1234=1e9)
    device.listed = without_bytes(device)
    verdict = verdict_over(device.memory(), growth(device, me=me, other=other))
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.why.startswith(f"1 other process seen on the device: run alone (else {otherwise}: ")
    assert verdict.why.endswith(", of the whole device (NVML does not say which bytes are this process's))")


def test_a_process_seen_once_is_remembered():
    device = MadeUpDevice(p4711=1e8)
    device.listed = without_bytes(device)
    memory = device.memory()
    memory.read()
    assert memory.doubt() == ""
    device.held.update({OTHER: 1.0, 99: 1.0})
    memory.read()
    del device.held[OTHER], device.held[99]
    memory.read()
    assert memory.doubt() == "2 other processes seen on the device: run alone"


@pytest.mark.parametrize("with_nvml", [True, False])
def test_the_whole_device_counts_where_nobody_else_is_seen(with_nvml):
    device = MadeUpDevice(p4711=1e8, p1234=0.0)
    device.listed = dict  # NVML in a container that shows no process
    verdict = verdict_over(device.memory(with_nvml=with_nvml), growth(device, me=LEAK))
    assert verdict.outcome == "FAIL"
    why = "NVML lists no process here, so others would not be seen" if with_nvml else "no NVML"
    assert verdict.why.endswith(f", of the whole device ({why})")


def test_in_a_container_the_only_process_is_this_one_and_stays_it():
    device = MadeUpDevice(p900001=5e8)  # the host's number for this process
    memory = device.memory()
    assert memory.read() == 5e8
    device.held[OTHER] = 1e9
    assert (memory.read(), memory.scope(), memory.doubt()) == (5e8, "of this process", "")


def test_this_process_among_others_under_another_number_is_not_guessed():
    device = MadeUpDevice(p900001=5e8, p1234=1e9)
    memory = device.memory()
    assert memory.read() == 1.5e9
    assert memory.doubt().startswith("1 other process ")


def test_a_process_that_is_no_longer_listed_makes_the_counter_invalid():
    device = MadeUpDevice(p4711=1e8, p1234=1e9)
    memory = device.memory()
    memory.read()
    del device.held[ME]
    assert math.isnan(memory.read())


class MadeUpNvml(SimpleNamespace):
    """`pynvml`, as far as it is used."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self):  # noqa: N802  NVML's name
        if self.is_broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802  NVML's name
        assert uuid == "GPU-0af3"
        return 5

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802  NVML's name
        assert handle == 5
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=700), SimpleNamespace(pid=-1, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle):  # noqa: N802  NVML's name
        assert handle == 5
        return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=700)]


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 4_000))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="0af3"))


@pytest.mark.parametrize(
    ("nvml", "count", "scope"),
    [
        (MadeUpNvml(is_broken=False), 700, "of this process"),
        (
            MadeUpNvml(is_broken=True),
            3_000,
            "of the whole device (NVML: Driver Not Loaded, so others would not be seen)",
        ),
        (
            None,
            3_000,
            "of the whole device (nvidia-ml-py is not installed, so others would not be seen; "
            "pip install 'robocache[metrics]')",
        ),
    ],
    ids=["nvml", "no_driver", "not_installed"],
)
def test_nvml_is_asked_where_it_is(nvml, count, scope, cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # None: importing it fails
    memory = driver_memory(torch.device("cuda"))
    assert memory.scope() == ""
    assert memory.read() == count
    assert (memory.scope(), memory.doubt()) == (scope, "")


def test_the_devices_counter_carries_scope_and_doubt_into_the_verdict(cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", MadeUpNvml(is_broken=False))
    (driver,) = [counter for counter in device_counters("cuda") if counter.name == "driver_bytes"]
    monitor = Monitor([driver], readings=READINGS)
    with QuietCollections():
        for iteration in range(READINGS):
            monitor.read(iteration)
    (verdict,) = monitor.verdicts()
    assert str(verdict) == "PASS driver_bytes: no trend, level within 0.0 MB, of this process"


@pytest.mark.gpu
def test_on_a_gpu_the_reading_holds_what_pytorch_has_reserved():
    if choose_device() == "cpu":  # fails without a GPU where one is required
        pytest.skip("driver memory needs a GPU, and PyTorch finds none here")
    tensor = torch.zeros(50_000_000, dtype=torch.uint8, device="cuda")
    memory = driver_memory(tensor.device)
    assert torch.cuda.memory_reserved(tensor.device) <= memory.read() <= torch.cuda.mem_get_info(tensor.device)[1]
    assert memory.scope().startswith(("of this process", "of the whole device ("))
