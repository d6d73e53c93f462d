"""What an installation says of itself, what a missing backend says, and what an import costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import robocache as rc
from robocache.errors import BackendUnavailableError
from robocache.ops import native_library
from robocache.ops.resample_trajectories import native, torch_backend
from robocache.ops.resample_trajectories.cases import EDGE_CASES

OPERATIONS = {"resample_trajectories", "fuse_multimodal", "voxelize_pointcloud"}
ON_CPU = "pytorch" if native_library.PROBLEM else "native"


def python(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cuda_is_available_where_torch_sees_a_gpu():
    assert rc.is_cuda_available() is torch.cuda.is_available()


def test_check_installation_says_which_backend_serves_what_and_why():
    found = rc.check_installation()
    assert json.loads(json.dumps(found)) == found
    assert found["robocache"] == rc.__version__
    assert found["torch"] == torch.__version__
    assert found["cuda_available"] is torch.cuda.is_available()
    assert set(found["operations"]) == OPERATIONS
    for devices in found["operations"].values():
        assert devices["cpu"] == {"backend": ON_CPU, "reason": native_library.PROBLEM or "the compiled CPU library"}
        assert devices["cuda"]["backend"] == ("cuda" if torch.cuda.is_available() else None)
        assert all(how["reason"] for how in devices.values())
    if not torch.cuda.is_available():
        assert "install a CUDA build" in found["cuda_problem"] or "nvidia-smi" in found["cuda_problem"]


def test_print_installation_info_says_the_same_to_people(capsys):
    rc.print_installation_info()
    printed = capsys.readouterr().out
    assert f"RoboCache {rc.__version__}" in printed
    assert f"PyTorch {torch.__version__}" in printed
    for operation, devices in rc.check_installation()["operations"].items():
        for device, how in devices.items():
            assert f"{operation} on {device}: {how['backend']} ({how['reason']})" in printed


def test_self_test_passes_and_names_the_backend():
    assert rc.self_test() == dict.fromkeys(OPERATIONS, "cuda" if torch.cuda.is_available() else ON_CPU)
    assert rc.self_test("cpu") == dict.fromkeys(OPERATIONS, ON_CPU)


def test_self_test_names_what_is_broken(monkeypatch):
    """The positive control: a backend that is off by one sample."""
    right, right_plan = torch_backend.resample_trajectories, native.StreamsPlan.__call__

    def wrong(data, *rest):
        return right(data.roll(1, 1), *rest)

    def wrong_plan(plan, data, *rest):
        return right_plan(plan, [one.roll(1, 1) for one in data], *rest)

    if ON_CPU == "native":
        monkeypatch.setattr(native.StreamsPlan, "__call__", wrong_plan)
        monkeypatch.setattr(native.StreamsPlan, "call", lambda *_: None)
    else:
        monkeypatch.setattr(torch_backend, "resample_trajectories", wrong)
    with pytest.raises(rc.RoboCacheError, match="resample_trajectories differs from its reference in case 'odd_sizes'"):
        rc.self_test("cpu")


def test_the_case_that_the_control_relies_on_is_there():
    assert "odd_sizes" in [case.name for case in EDGE_CASES]


@pytest.mark.parametrize("backend", ["cuda", "native"])
@pytest.mark.parametrize("operation", ["resample", "fuse", "voxelize"])
def test_a_backend_that_cannot_run_says_why_and_what_to_do(backend, operation, monkeypatch, tmp_path):
    """Never a silent fallback; here for the library that no compiler was there for."""
    monkeypatch.setattr(native_library, "PROBLEM", native_library.find(tmp_path / "gone.so").problem)
    data, times = torch.zeros(1, 2, 3), torch.arange(2.0)[None]
    call = {
        "resample": lambda: rc.resample_trajectories(data, times, times, backend=backend),
        "fuse": lambda: rc.fuse_multimodal(data, times, data, times, data, times, times, backend=backend),
        "voxelize": lambda: rc.voxelize_pointcloud(data[0], backend=backend),
    }[operation]
    remedy = {
        "cuda": "on a GPU, but they are on cpu; move them or use 'pytorch'",
        "native": "install a C compiler.*or use 'pytorch'",
    }[backend]
    with pytest.raises(BackendUnavailableError, match=f"backend='{backend}'.*{remedy}") as caught:
        call()
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.gpu
def test_on_a_gpu_all_backends_that_can_run_do():
    data, times = torch.rand(1, 2, 3, device="cuda"), torch.arange(2.0, device="cuda")[None]
    for backend in (None, "cuda", "pytorch"):
        assert torch.equal(rc.resample_trajectories(data, times, times, backend=backend), data)


IMPORT = """
import json, sys, time
import torch
watched = ("triton", "h5py", "mcap", "rich")
before = [name for name in watched if name in sys.modules]
start = time.process_time()
import robocache
seconds = time.process_time() - start
brought = [name for name in watched if name in sys.modules and name not in before]
at_import = torch.cuda.is_initialized()
robocache.is_cuda_available()
print(json.dumps([seconds, brought, at_import, torch.cuda.is_initialized()]))
"""


@pytest.fixture(scope="module")
def imported():
    return json.loads(python(IMPORT))


def test_an_import_makes_no_cuda_context(imported):
    assert imported[2] is False


def test_asking_for_a_gpu_makes_no_cuda_context(imported):
    assert imported[3] is False


def test_an_import_brings_no_reader_no_progress_bar_and_no_triton(imported):
    assert imported[1] == []


def test_an_import_takes_less_than_a_second_and_a_half_beyond_torch(imported):
    """CPU time of the process, since a busy machine makes wall time of anything; once more, for cold caches."""
    assert imported[0] < 1.5 or json.loads(python(IMPORT))[0] < 1.5


def test_a_slower_launch_is_said(monkeypatch, capsys):
    """Fails when a kernel that takes the slow way is told to nobody."""
    from robocache.ops import launch

    monkeypatch.setattr(launch, "_PROBLEMS", {"a made-up reason"})
    assert rc.check_installation()["launch_problems"] == ["a made-up reason"]
    rc.print_installation_info()
    assert "slower launches so far in this process: a made-up reason" in capsys.readouterr().out
