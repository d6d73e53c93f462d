"""Whatever is wrong with a file is one error that names it, soon, and without eating the machine."""

import builtins
import re
import subprocess
import sys

import pytest
from mcap.writer import CompressionType

from robocache.errors import (
    BackendUnavailableError,
    DamagedRecordingError,
    RecordingLimitError,
    RecordingNotFoundError,
    UnknownFormatError,
)
from robocache.readers import open_recording

from .conftest import (  # noqa: TID252 -- tests are not an installed package
    IS_NIGHTLY,
    JOINT_STATE,
    SEEDS,
    START_NS,
    damaged,
    errors_in,
    joint_message,
    read_all,
    read_and_raise,
    write_mcap,
)
from .test_lerobot import DATA, EPISODES, write_dataset  # noqa: TID252

# ── nothing, or something else ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["missing.mcap", "missing/folder", "zero\0.mcap"])
def test_nothing_there(tmp_path, name):
    with pytest.raises(RecordingNotFoundError, match="check the path"):
        open_recording(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", DamagedRecordingError, "is empty"),
        (b"\x89MC", DamagedRecordingError, "ends after 3 bytes, inside the signature"),
        (b"\x89HDF\r\n", DamagedRecordingError, "ends after 6 bytes, inside the signature"),
        (b"PAR1" + bytes(100), UnknownFormatError, r"single Parquet file; name the folder that holds meta/info\.json"),
        (b"#ROSBAG V2.0\n", DamagedRecordingError, "at byte 13: ends inside a record"),
        (b"#ROSBAG V1.2\n", DamagedRecordingError, "the signature of a ROS 1 bag of version 2"),
        (b"RIFF 1234", UnknownFormatError, "no known signature; RoboCache reads MCAP"),
        (b"hello", UnknownFormatError, "no known signature"),
        (b"\x89MCAP0\r\n", DamagedRecordingError, "has only 8 bytes: it was truncated"),
        (b"\x89MCAP0\r\n" * 4, RecordingLimitError, "declares"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), DamagedRecordingError, "HDF5 cannot read it"),
    ],
    ids=[
        "empty",
        "mcap_head",
        "hdf5_head",
        "parquet",
        "rosbag",
        "rosbag1.2",
        "riff",
        "text",
        "mcap_only",
        "mcap_magic",
        "hdf5_magic",
    ],
)
def test_wrong_content(tmp_path, content, kind, message):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    error = read_all(path)
    assert isinstance(error, kind)
    assert re.search(message, str(error))


def test_folders_that_are_no_recording(tmp_path, joints_mcap):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnknownFormatError, match="the folder holds no recording"):
        open_recording(empty)
    for name in ("a.mcap", "b.mcap"):
        (empty / name).write_bytes(joints_mcap.read_bytes())
    with pytest.raises(UnknownFormatError, match=r"holds 2 recordings \(a\.mcap, b\.mcap\); name one of them"):
        open_recording(empty)
    with pytest.raises(RecordingNotFoundError, match="neither a file nor a folder"):
        open_recording("/dev/null")


def test_a_file_that_the_system_does_not_let_read(joints_mcap, monkeypatch):
    """Fails with a NameError where the error's maker is imported for types only."""

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refused)
    with pytest.raises(RecordingNotFoundError, match=r"cannot be read \(Permission denied\); check its permissions"):
        open_recording(joints_mcap)


# ── truncated and flipped ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_hdf5(plain_hdf5, kind):
    data, found = plain_hdf5.read_bytes(), []
    for seed in SEEDS:
        plain_hdf5.write_bytes(damaged(data, kind, seed))
        found.append(read_all(plain_hdf5))
    assert len(errors_in(found)) >= (len(SEEDS) if kind == "truncated" else int(IS_NIGHTLY))


@pytest.mark.parametrize("file", [DATA, EPISODES, "meta/info.json"], ids=["data", "episodes", "info"])
@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_lerobot(tmp_path, file, kind):
    root = write_dataset(tmp_path / "d")
    data, found = (root / file).read_bytes(), []
    for seed in SEEDS:
        (root / file).write_bytes(damaged(data, kind, seed))
        found.append(read_all(root))
    assert len(errors_in(found)) >= (len(SEEDS) if kind == "truncated" else int(IS_NIGHTLY))


# ── libraries that are not there ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("module", "extra"), [("h5py", "hdf5"), ("zstandard", "mcap"), ("lz4", "mcap")], ids=["h5py", "zstandard", "lz4"]
)
def test_a_missing_library_names_the_extra(tmp_path, plain_hdf5, monkeypatch, module, extra):
    kind = CompressionType.LZ4 if module == "lz4" else CompressionType.ZSTD
    topics = {"/j": ("sensor_msgs/msg/JointState", JOINT_STATE, [(START_NS, joint_message(START_NS))])}
    path = plain_hdf5 if module == "h5py" else write_mcap(tmp_path / "a.mcap", topics, compression=kind)
    real_import = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailableError, match=rf'pip install "robocache\[{extra}\]"'):
        read_and_raise(path)


def test_importing_the_readers_imports_no_format_library():
    program = "import robocache.readers, sys; print({'h5py', 'mcap', 'pyarrow', 'zstandard', 'lz4'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
