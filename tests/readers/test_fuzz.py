"""The targets of coverage-guided fuzzing, without atheris: on what they begin with, and on damage to it."""

import os
import random
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from robocache.readers import carmen, tf_example

from . import fuzz, fuzz_targets  # noqa: TID252 -- tests are not an installed package
from .conftest import IS_NIGHTLY, PEAK_BYTES  # noqa: TID252
from .fuzz_contract import FindError, judged, search  # noqa: TID252
from .fuzz_targets import TARGETS  # noqa: TID252

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_accepts_its_seeds_and_finds_nothing(name, tmp_path, monkeypatch):
    """Fails when seeds no longer reach the parser, and when one changed raises what the parser may not raise."""
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(fuzz_targets, "FOLDER", shared)
    with TARGETS[name].opened() as run:
        seeds = TARGETS[name].seeds(tmp_path)
        assert [run(seed) for seed in seeds] == [True] * len(seeds)
        assert search(run, seeds, 200 if IS_NIGHTLY else 8, random.Random(name)) is None
    assert not list(shared.iterdir())


def _planted(real):
    """The parser, which stumbles over one length in seven."""

    def parse(data):
        return real(data) if len(data) % 7 else [real][len(data)]

    return parse


def test_a_planted_bug_is_found(tmp_path, monkeypatch):
    """Catches a target that takes any exception for an answer, and a search that runs on what is not changed."""
    target = TARGETS["tf_example"]
    with target.opened() as run:
        seeds = [seed for seed in target.seeds(tmp_path) if len(seed) % 7]
        monkeypatch.setattr(fuzz_targets, "read_features", _planted(tf_example.read_features))
        assert all(judged(run, seed) for seed in seeds)
        find = search(run, seeds, 100, random.Random(1))
        assert find is not None
        with pytest.raises(IndexError):
            judged(run, find)
    monkeypatch.setattr(carmen.CarmenRecording, "_read", lambda *_: 1 // 0)
    with TARGETS["carmen"].opened() as run, pytest.raises(ZeroDivisionError):
        judged(run, TARGETS["carmen"].seeds(tmp_path)[0])


def test_what_is_slow_or_large_is_found():
    """Catches a contract without its limits (that of time is a thousandth here), or one that an earlier peak hides."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert bytearray(b"x") * (4 * PEAK_BYTES)
    assert judged(lambda _: bool(sum(range(10))), b"")
    with pytest.raises(FindError, match=r"s of processor time, and 0\.002 are allowed"):
        judged(lambda _: bool(sum(range(1_000_000))), b"", 0.002)
    with pytest.raises(FindError, match=r"took \d+ bytes, and 209715200 are allowed"):
        judged(lambda _: bool(bytearray(b"x") * int(2.5 * PEAK_BYTES)), b"")


def test_a_file_is_replayed(tmp_path, capsys):
    file = tmp_path / "find"
    file.write_bytes(b"no log")
    fuzz.main(["replay", "carmen", str(file)])
    assert "refused, as it should be" in capsys.readouterr().out


PLANTED = """
import sys
from tests.readers import fuzz
real = fuzz.imported
def planted(instrumented):
    targets = real(instrumented)
    from robocache.readers import carmen_lines
    carmen_lines.DamagedRecordingError = lambda *_, **__: 1 // 0
    return targets
fuzz.imported = planted
fuzz.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: pip install -e '.[fuzz]'")
def test_atheris_finds_a_planted_bug(tmp_path):
    """Catches modules that are imported outside of atheris's hook, for which it is blind, and a find that is lost."""
    command = [sys.executable, "-c", PLANTED, "one", "carmen", "--seconds", "60", "--finds", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=200)
    assert done.returncode
    assert "ZeroDivisionError" in done.stdout + done.stderr
    assert int(re.search(r"INITED cov: (\d+)", done.stderr)[1]) > 100
    assert [file.name.split("-")[0] for file in tmp_path.iterdir()] == ["carmen"]
