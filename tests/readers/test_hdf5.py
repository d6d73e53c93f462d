"""HDF5: every number is what h5py says; times are the file's, or say that they are not."""

import json
from fractions import Fraction

import h5py
import numpy as np
import pytest

from robocache.errors import (
    ArgumentError,
    ClosedError,
    DamagedRecordingError,
    RecordingLimitError,
    UnknownFormatError,
    UnknownStreamError,
)
from robocache.readers import Limits, Recording, open_recording
from robocache.readers.hdf5_tree import Hdf5File

from .conftest import recording  # noqa: TID252 -- tests are not an installed package

BROAD = ["07_undisturbed_fast_rotation_B", "24_disturbed_tapping_A"]


@pytest.mark.parametrize("name", BROAD)
def test_broad_is_what_h5py_reads(name):
    path = recording("broad") / f"{name}.hdf5"
    with open_recording(path) as opened:
        assert isinstance(opened, Recording)
        assert (opened.format, opened.episode_names) == ("hdf5", (name,))
        episode = opened.read_episode(0)
    with h5py.File(path) as file:
        assert set(episode.streams) == set(file)
        for dataset, stream in episode.streams.items():
            expected = file[dataset][()]
            np.testing.assert_array_equal(stream.values, expected.reshape(len(expected), -1))
        assert episode.attributes["info"] == file.attrs["info"]
        rate = file.attrs["sampling_rate"]
    stream = episode.streams["opt_quat"]
    assert (stream.kind, stream.columns) == ("quaternion_wxyz", ("w", "x", "y", "z"))
    assert (stream.clock, list(stream.clocks), stream.has_synthetic_times) == ("synthetic", ["synthetic"], True)
    assert [int(time) for time in stream.times_ns[:3]] == [0, 3_500_000, 7_000_000]
    assert stream.times_ns[-1] == round((len(stream.times_ns) - 1) * 1e9 / rate)
    assert episode.streams["imu_acc"].columns == ("x", "y", "z")
    assert episode.streams["movement"].values.dtype == bool


def test_times_beside_a_dataset_win_over_the_rate(plain_hdf5):
    with open_recording(plain_hdf5) as opened:
        episode = opened.read_episode(0)
    assert set(episode.streams) == {"arm/pos", "arm/quat", "imu_acc"}
    arm, imu = episode.streams["arm/pos"], episode.streams["imu_acc"]
    assert (arm.clock, imu.clock) == ("time", "synthetic")
    # To the nanosecond what the file's float64 seconds say, which is not what was meant by them.
    assert arm.times_ns.tolist() == [round(Fraction(float(1.7e9 + row / 10)) * 10**9) for row in range(50)]
    np.testing.assert_array_equal(imu.times_ns, np.arange(60) * 10_000_000)
    assert episode.streams["arm/quat"].kind == "quaternion_xyzw"
    assert episode.attributes["skipped"] == {
        "names": "its values are object, not numbers",
        "image": "it has 3 axes, not one or two",
    }


@pytest.mark.parametrize(
    ("name", "stamps", "units", "expected"),
    [
        ("time", np.array([0.0, 0.1, 1.7e9 + 0.25]), None, [0, 100_000_000, 1_700_000_000_250_000_000]),
        ("timestamp", np.array([5, 6, 7], np.uint32), None, [5, 6, 7]),
        ("t_ms", np.array([5, 6, 7]), None, [5_000_000, 6_000_000, 7_000_000]),
        ("timestamps", np.array([5, 6, 7]), "us", [5_000, 6_000, 7_000]),
        ("stamps", np.array([0.5, 1.5, 2.0]), "milliseconds", [500_000, 1_500_000, 2_000_000]),
        ("time", np.array([3.0, 1.0, 2.0]), None, [1_000_000_000, 2_000_000_000, 3_000_000_000]),
    ],
    ids=["seconds", "integers", "suffix", "units", "float_units", "unsorted"],
)
def test_units_of_stamps(tmp_path, name, stamps, units, expected):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file[name] = stamps
        if units:
            file[name].attrs["units"] = units
    with open_recording(path) as opened:
        stream = opened.read_episode(0).streams["x"]
    assert (stream.clock, stream.times_ns.tolist()) == (name, expected)
    np.testing.assert_array_equal(stream.values[:, 0], np.argsort(stamps))


@pytest.mark.parametrize(
    ("stamps", "units", "message"),
    [
        ([0.0, np.nan], None, r"dataset time: its stamp in row 1 is nan, which"),
        ([1.7e12, 1.7e12], None, r"row 0 is 1700000000000\.0, .*; if it is in another unit, say so in its attribute"),
        ([0.0, 1e300], None, "row 1"),
        ([0, 2**62], "s", "more than 146 years from zero"),
        ([-(2**62) - 1, 0], None, "more than 146 years from zero"),
        ([0.0, 2.0**62], "ns", r"row 1 is 4\.6\d*e\+18, which"),
        ([0, 1], "fortnights", "'fortnights', which is not one of ns"),
    ],
    ids=["nan", "milliseconds", "huge", "overflow", "far_apart", "far_apart_floats", "unknown_unit"],
)
def test_stamps_that_are_no_times(tmp_path, stamps, units, message):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["time"] = np.arange(2.0), np.array(stamps)
        if units:
            file["time"].attrs["units"] = units
    with open_recording(path) as opened, pytest.raises(DamagedRecordingError, match=message):
        opened.read_episode(0)


def test_a_dataset_that_fits_no_times_is_listed(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"], file["time"] = np.arange(3.0), np.arange(5.0), np.arange(3.0)
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
        assert list(episode.streams) == ["x"]
        assert episode.attributes["skipped"] == {"y": "it has 5 rows, but time has 3"}
        with pytest.raises(UnknownStreamError, match=r"no stream 'y' \(it has 5 rows, but time has 3\); it has x"):
            opened.read_episode(0, ["y"])


def test_without_times_or_rate_the_remedy_is_a_rate(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(5.0)
    with (
        open_recording(path) as opened,
        pytest.raises(UnknownFormatError, match=r"open_recording\(path, rate_hz=\.\.\.\)"),
    ):
        opened.read_episode(0)
    with open_recording(path, rate_hz=250) as opened:
        stream = opened.read_episode(0).streams["x"]
    assert (stream.clock, stream.times_ns.tolist()) == ("synthetic", [0, 4_000_000, 8_000_000, 12_000_000, 16_000_000])
    for rate in (0.0, -1.0, float("nan"), 1e-7, 1e300):
        with pytest.raises(ArgumentError, match=r"^rate_hz \(--source-rate\) must be 0\.000001 to 1e9, got "):
            open_recording(path, rate_hz=rate)


def test_rows_that_would_last_for_centuries_are_refused(tmp_path):
    """Without the check of `synthetic_times_ns` the stamps overflow int64, and the numbers are wrong in silence."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(10_000.0)
    with (
        open_recording(path, rate_hz=1e-6) as opened,
        pytest.raises(DamagedRecordingError, match=r"dataset x: its 10000 rows at 1e-06 Hz would last more than 146"),
    ):
        opened.read_episode(0)


def test_robomimic_demonstrations_are_episodes_in_numerical_order(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        for number in (10, 2):
            data[f"demo_{number}/actions"] = np.full((number, 7), number)
            data[f"demo_{number}/obs/robot0_eef_quat"] = np.zeros((number, 4))
            data[f"demo_{number}/obs/agentview_image"] = np.zeros((number, 4, 4, 3), np.uint8)
    with open_recording(path) as opened:
        assert opened.episode_names == ("demo_2", "demo_10")
        second = opened.read_episode(1)
    assert set(second.streams) == {"actions", "obs/robot0_eef_quat", "obs/agentview_image"}
    assert second.streams["actions"].values.tolist() == [[10] * 7] * 10
    assert second.streams["obs/robot0_eef_quat"].kind == "quaternion_xyzw"
    np.testing.assert_array_equal(second.streams["actions"].times_ns, np.arange(10) * 50_000_000)
    assert second.streams["obs/agentview_image"].frames.shape == (4, 4, 3)
    assert second.attributes["layout"] == "robomimic"


def test_a_demonstration_that_holds_nothing_is_named(tmp_path):
    """Fails where the error says only of which file it is, among a thousand demonstrations."""
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data/demo_7")
    with open_recording(path) as opened, pytest.raises(UnknownFormatError, match=r"a\.hdf5, group data/demo_7: has no"):
        opened.read_episode(0)


def test_aloha_runs_at_50_hz(tmp_path):
    path = tmp_path / "episode_0.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = True
        file["observations/qpos"], file["action"] = np.ones((4, 14)), np.ones((4, 14))
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert (episode.name, episode.attributes["layout"]) == ("episode_0", "aloha")
    assert episode.streams["action"].times_ns.tolist() == [0, 20_000_000, 40_000_000, 60_000_000]


def test_big_endian_numbers_become_native(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(4, dtype=">f4")
        file.attrs["fps"] = 10
    with open_recording(path) as opened:
        values = opened.read_episode(0).streams["x"].values
    assert values.dtype.isnative
    assert values[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["link", "storage", "virtual"])
def test_nothing_outside_the_file_is_read(tmp_path, kind):
    path, other = tmp_path / "a.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(4.0)
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        if kind == "link":
            file["x"] = h5py.ExternalLink(str(other), "/x")
        elif kind == "storage":
            file.create_dataset("x", (4,), "f8", external=[(str(other), 0, 32)])
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "x", (4,))
            file.create_virtual_dataset("x", layout)
    with pytest.raises(DamagedRecordingError, match=r"object x.*(another|other) file.*copy that data into it"):
        open_recording(path)


def test_soft_links_and_cycles_end(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file["group/x"] = np.arange(3.0)
        file["group/again"] = file["group"]
        file["soft"] = h5py.SoftLink("/group/x")
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert list(episode.streams) == ["group/x"]
    assert episode.attributes["skipped"] == {"group/again": "the same object under another name", "soft": "a soft link"}


@pytest.mark.parametrize("chunks", [None, (1024,)], ids=["contiguous", "chunked"])
def test_a_shape_that_nobody_wrote_is_refused(tmp_path, chunks):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file.create_dataset("x", (2**40,), "f8", chunks=chunks)
    with open_recording(path) as opened, pytest.raises(RecordingLimitError, match=r"dataset x: declares 8796093022208"):
        opened.read_episode(0)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 10
        file.create_dataset("x", data=np.zeros(2**22), compression="gzip", chunks=(2**20,))
    with open_recording(path) as opened, pytest.raises(RecordingLimitError, match="declares 33554432 decompressed"):
        opened.read_episode(0)
    with open_recording(path, limits=Limits(expansion=5000)) as opened:
        assert len(opened.read_episode(0).streams["x"].values) == 2**22


def test_a_heap_on_which_hdf5_would_loop_for_ever_is_damage(plain_hdf5):
    data = bytearray(plain_hdf5.read_bytes())
    heap = data.find(b"GCOL")
    # The size of the heap's first object: all ones wrap round to nothing.
    data[heap + 24 : heap + 32] = b"\xff" * 8
    plain_hdf5.write_bytes(data)
    with open_recording(plain_hdf5) as opened, pytest.raises(DamagedRecordingError, match="text attributes: reading"):
        opened.read_episode(0)


def test_reading_after_close_is_refused(plain_hdf5):
    with open_recording(plain_hdf5) as opened:
        pass
    with pytest.raises(ClosedError):
        opened.read_episode(0)
    opened.close()


def test_too_little_memory_is_not_called_damage(tmp_path):
    """Fails when a MemoryError passes for a damaged file, whose remedy would be to record it again."""
    path = tmp_path / "whole.hdf5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((3, 2))
    opened = Hdf5File(path, Limits())
    try:
        refused = pytest.raises(RecordingLimitError, match=r"whole\.hdf5, x: HDF5 asks for more memory than there is")
        with refused, opened.damage_named("x"):
            raise MemoryError
    finally:
        opened.close()
