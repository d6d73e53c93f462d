"""CARMEN logs: values as numpy.loadtxt reads them, stamps as Python's decimal does, damage as one error with its line.

Each of these edits was tried, and made a test fail: stamps through a float; `theta` and `odom_theta` swapped; the
clocks swapped; the second stream of a bzip2 file ignored; no check of the last line's end; no cap on expansion.
"""

import bz2
import gzip
import io
import re
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robocache.errors import ArgumentError, DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers import Limits, open_recording
from robocache.readers.carmen import stamp_ns

from .conftest import damaged, errors_in, read_all, recording  # noqa: TID252 -- tests are not an installed package

HEAD = "# CARMEN Logfile\nPARAM robot_length 0.47 1071078718.462472 merci 1071078718.462472\n"
PACKERS = {"plain": bytes, "bzip2": bz2.compress, "gzip": gzip.compress}


def odometry(step, *, ipc=None):
    numbers = " ".join(f"{value:.6f}" for value in (step / 10, -step, 3.1 - step, 0.5, -0.25, 0.0))
    return f"ODOM {numbers} {ipc or f'{1071078718 + step}.{step:06d}'} magnum {step}.000001\n"


def scan(step, beams=6, *, declared=None):
    ranges = " ".join(f"{value / 100:.2f}" for value in range(step, step + beams))
    return (
        f"FLASER {beams if declared is None else declared} {ranges} 1.5 2.5 -3.1 1.0 2.0 3.1 "
        f"{1071078718 + step}.500000 magnum {step}.250000\n"
    )


def log_text(steps=40):
    return HEAD + "".join(odometry(step) + scan(step) for step in range(steps))


def write(path, text, pack=bytes):
    path.write_bytes(pack(text.encode()))
    return path


def lines_of(data, name):
    return [line.split() for line in bz2.decompress(data).decode().splitlines() if line.startswith(name + " ")]


def exact_ns(texts):
    return np.array([int((Decimal(text) * 10**9).to_integral_value(ROUND_HALF_UP)) for text in texts])


def test_a_real_log_has_the_numbers_that_numpy_reads():
    path = recording("fr079_laser/fr079.clf.bz2")
    data = path.read_bytes()
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert (opened.format, opened.episode_names) == ("carmen", ("fr079",))
    for name, start, parts in (
        ("ODOM", 1, {"odom": [0, 1, 3, 4, 5], "odom.theta": [2]}),
        ("FLASER", 2, {"flaser": range(360), "flaser.position": [360, 361, 363, 364], "flaser.theta": [362, 365]}),
    ):
        fields = lines_of(data, name)
        text = io.StringIO("\n".join(" ".join(line[start:-3]) for line in fields))
        expected = np.loadtxt(text, ndmin=2)
        ipc, logger = exact_ns(line[-3] for line in fields), exact_ns(line[-1] for line in fields)
        order = np.argsort(ipc, kind="stable")
        for stream_name, columns in parts.items():
            stream = episode.streams[stream_name]
            assert stream.clock == "ipc"
            np.testing.assert_array_equal(stream.values, expected[:, list(columns)][order])
            np.testing.assert_array_equal(stream.times_ns, ipc[order])
            np.testing.assert_array_equal(stream.clocks["logger"], logger[order])
    assert len(episode.streams["odom"].times_ns) == 8951
    assert len(episode.streams["flaser"].times_ns) == 4934
    assert episode.attributes["parameters"]["robot_length"] == "0.47"
    assert (episode.streams["odom.theta"].kind, episode.streams["flaser.theta"].kind) == ("angle", "angle")


@given(st.decimals(-(10**9), 4 * 10**9, places=12, allow_nan=False))
def test_stamps_are_exact(seconds):
    assert stamp_ns(f"{seconds:f}".encode()) == int((seconds * 10**9).to_integral_value(ROUND_HALF_UP))


@pytest.mark.parametrize("text", ["", "-", "1e9", "nan", "1_0", "1.5.2", ".5", "0x1", "+1", "1" * 21])
def test_what_is_no_stamp(text):
    assert stamp_ns(text.encode()) is None


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_as_it_may_be(tmp_path, packer):
    """Two compressed streams in one file, as `cat a.bz2 b.bz2` makes it, are both read."""
    pack, text = PACKERS[packer], log_text()
    half = text.index("ODOM 2.0")
    path = tmp_path / "named_anyhow"
    path.write_bytes(pack(text[:half].encode()) + pack(text[half:].encode()))
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
        only = opened.read_episode(0, ["odom.theta"])
    assert episode.streams["flaser"].values.shape == (40, 6)
    np.testing.assert_array_equal(episode.streams["flaser"].values[39], np.arange(39, 45) / 100)
    np.testing.assert_array_equal(episode.streams["flaser.theta"].values[7], [-3.1, 3.1])
    assert episode.streams["flaser.theta"].columns == ("theta", "odom_theta")
    assert episode.streams["odom"].times_ns[39] == 1071078757_000039000
    assert list(only.streams) == ["odom.theta"]
    assert only.streams["odom.theta"].columns == ("theta",)


def test_what_is_left_out_is_listed_and_stamps_are_sorted(tmp_path):
    extra = "SYNC tag 1.0 magnum 1.0\n\n   \r\nGPS 1 2 3\nGPS 1 2 3\n# a remark\nRLASER 1 nan 0 0 0 0 0 0 1.0 h 2.0\n"
    text = HEAD + odometry(3) + odometry(1) + extra + odometry(2).replace("\n", "\r\n")
    with open_recording(write(tmp_path / "a.log", text)) as opened:
        episode = opened.read_episode(0)
    assert list(episode.attributes["skipped"]) == ["SYNC", "GPS"]
    assert episode.attributes["skipped"]["GPS"].startswith("2 messages")
    np.testing.assert_array_equal(episode.streams["odom"].values[:, 1], [-1, -2, -3])
    assert np.isnan(episode.streams["rlaser"].values[0, 0])


def test_a_folder_around_one_log_and_a_rate_that_it_does_not_need(tmp_path):
    path = write(tmp_path / "a.clf.gz", log_text(), gzip.compress)
    with open_recording(tmp_path) as opened:
        assert opened.path == str(path)
    with pytest.raises(ArgumentError, match="has times of its own"):
        open_recording(path, rate_hz=5)


# ── whatever is wrong ───────────────────────────────────────────────────────────────────────────

GOOD = odometry(1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("0.500000", "zero"), "b'zero' is not a number"),
        (GOOD.replace("0.500000", "0.5_0"), "b'0.5_0' is not a number"),
        (GOOD.replace("ODOM", "ODOM 1"), "ODOM has 11 fields instead of 10"),
        (GOOD.replace(" magnum", ""), "ODOM has 9 fields instead of 10"),
        (odometry(1, ipc="never"), "b'never' is not a time in seconds"),
        (odometry(1, ipc="1e18"), "b'1e18' is not a time in seconds"),
        (odometry(1, ipc=str(2**60)), "within 146 years of zero"),
        (scan(1, declared=2**60), f"declares {2**60} ranges, but its fields leave room for 6"),
        (scan(1, declared=5), "declares 5 ranges, but its fields leave room for 6"),
        (scan(1, declared=-1), "does not say how many ranges it has"),
        (scan(1, declared="six"), "does not say how many ranges it has"),
        (scan(1, beams=0), "declares 0 ranges"),
        ("FLASER\n", "does not say how many ranges"),
        (scan(1, beams=7), "has 7 ranges, but those before it have 6"),
        ("PARAM a b\n", "PARAM has 3 fields"),
        ("\x00\x01 1 2\n", "which is no name of a message"),
        (GOOD[:-1], "the file ends inside this line"),
        ("".join(f"A{kind} 1\n" for kind in range(1100)), "1001st kind of message"),
        ("PARAM a " + "b" * 2**20 + " 1.0 h 1.0\n", "PARAM lines take more than 1048576 bytes"),
        ("A " * 2**20, "does not end within 1048576 bytes"),
    ],
    ids=lambda value: None if "\n" in value or len(value) > 99 else re.sub(r"\W+", "_", value)[:40],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    text = HEAD + scan(0) + line
    error = read_all(write(tmp_path / "a.clf", text))
    assert isinstance(error, DamagedRecordingError | RecordingLimitError)
    assert message in str(error)
    assert error.place == "line"
    assert error.offset >= 4


def test_a_log_without_measurements_is_none(tmp_path):
    error = read_all(write(tmp_path / "a.clf", HEAD))
    assert isinstance(error, UnknownFormatError)
    assert "has no ODOM" in str(error)


@pytest.mark.parametrize("packer", ["bzip2", "gzip"])
def test_compressed_files_that_hold_something_else(tmp_path, packer):
    error = read_all(write(tmp_path / "a", "hello\n" * 99, PACKERS[packer]))
    assert isinstance(error, UnknownFormatError)
    assert f"is a {packer} file that holds n" in str(error)


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_logs(tmp_path, packer, kind):
    data, found, path = PACKERS[packer](log_text().encode()), [], tmp_path / "a.clf"
    for seed in range(25):
        broken = damaged(data, kind, seed)
        if packer == "plain" and kind == "truncated" and broken.endswith(b"\n"):
            broken = broken[:-1]  # cut between two lines, a plain log is whole
        path.write_bytes(broken)
        found.append(read_all(path))
    # The two compressions have checksums; some bytes of their headers mean nothing.
    assert len(errors_in(found)) >= {"plain": 25 if kind == "truncated" else 1, "bzip2": 20, "gzip": 20}[packer]


@pytest.mark.parametrize("packer", ["bzip2", "gzip"])
@pytest.mark.parametrize("filler", ["\n", "A 1\n", "# remark\n", "A", "ODOM 0 0 0 0 0 0 0 h 0\n"], ids=repr)
def test_bombs_are_stopped(tmp_path, packer, filler):
    """1 MiB from a few kB: stopped long before its end, within the two seconds and the memory of `read_all`."""
    path = tmp_path / "a.clf"
    path.write_bytes(PACKERS[packer]((HEAD + GOOD + filler * (2**20 // len(filler))).encode()))
    error = read_all(path)
    assert isinstance(error, RecordingLimitError)
    assert error.offset is not None


def test_streams_have_a_limit(tmp_path):
    with (
        open_recording(write(tmp_path / "a.clf", log_text()), limits=Limits(episode_bytes=1000)) as opened,
        pytest.raises(RecordingLimitError, match=r"line \d+: its streams take .* the limit is 1000"),
    ):
        opened.read_episode(0)
