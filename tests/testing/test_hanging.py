"""The hang watch ends what hangs, with every thread's stack, and leaves alone what lives."""

import subprocess
import sys

import pytest

from robocache.errors import ArgumentError
from robocache.testing import HangWatch

pytestmark = pytest.mark.timeout(60)
SCRIPT = """
import sys, threading
from robocache.testing import HangWatch

def wait_in_a_thread():
    threading.Event().wait()

threading.Thread(target=wait_in_a_thread, daemon=True).start()
with HangWatch(limit_s=2, file=sys.stderr) as watch:
    for _ in range(4):
        threading.Event().wait(0.6)
        watch.beat()
    print("it lived", flush=True)
    {end}
print("it ended", flush=True)
"""


def run(end):
    script = SCRIPT.replace("{end}", end)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)


def test_a_hang_ends_with_the_stack_of_every_thread():
    done = run("threading.Lock().acquire(); lock = threading.Lock(); lock.acquire(); lock.acquire()")
    assert done.returncode == 1
    assert done.stdout == "it lived\n"
    assert "Timeout (0:00:02)!" in done.stderr
    assert "in wait_in_a_thread" in done.stderr


def test_what_ends_in_time_is_left_alone():
    done = run("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "it lived\nit ended\n", "")


@pytest.mark.parametrize("limit_s", [0, -1, float("nan")])
def test_a_limit_that_is_none_is_refused(limit_s):
    with pytest.raises(ArgumentError, match=r"^limit_s must be greater than 0, got "):
        HangWatch(limit_s=limit_s, file=2)
