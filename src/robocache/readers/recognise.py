"""Which format is it? Decided by the first bytes of a file, or by what a folder holds; never by a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robocache.errors import (
    ArgumentError,
    DamagedRecordingError,
    RecordingNotFoundError,
    RoboCacheError,
    UnknownFormatError,
)
from robocache.readers.limits import MAX_RATE_HZ, MIN_RATE_HZ, Limits
from robocache.readers.recording import refusals_named, unreadable
from robocache.readers.tfrecord import is_tfrecord

if TYPE_CHECKING:
    from robocache.readers.recording import Recording

MCAP_MAGIC = b"\x89MCAP0\r\n"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ROS1_MAGIC = b"#ROSBAG V2.0\n"
SQLITE_MAGIC = b"SQLite format 3\0"
ZIP_MAGIC = b"PK\3\4"
PARQUET_MAGIC = b"PAR1"
READS = (
    "RoboCache reads MCAP (ROS 2 CDR, ROS 1) files, ROS 1 bags, rosbag2 folders, HDF5 files, CARMEN logs, RLDS "
    "(TFRecord) files or folders, plain or gzip, Zarr replay buffers (folders or zip files), and folders with a "
    "LeRobot v2.0, v2.1 or v3.0 dataset"
)
SUFFIXES = (".mcap", ".bag", ".db3", ".hdf5", ".h5", ".clf", ".clf.bz2", ".clf.gz", ".zarr.zip")
HEAD_BYTES = 8
SIGNATURES = {
    MCAP_MAGIC: "an MCAP file",
    HDF5_MAGIC: "an HDF5 file",
    ROS1_MAGIC: "a ROS 1 bag",
    SQLITE_MAGIC: "a rosbag2 file",
}


def open_recording(path: str | Path, *, rate_hz: float | None = None, limits: Limits | None = None) -> Recording:
    """Open a recording of any format that RoboCache reads, recognised by its content.

    Args:
        path: An MCAP file, ROS 1 bag or HDF5 file; a CARMEN log (plain, bzip2 or gzip); an RLDS TFRecord file (plain
            or gzip); a folder with a LeRobot dataset, a rosbag2 or the TFRecord files of an RLDS data set; or a folder
            around exactly one other file.
        rate_hz: Steps a second of an RLDS data set or a Zarr replay buffer, which need it, or rate of an HDF5 file's
            datasets without times, 1e-6 to 1e9; overrides what the file says. The other formats have times, and refuse
            it.
        limits: What the file may make the reader allocate.

    Raises:
        ArgumentError: A rate that is none, or for a format that has times.
        RecordingNotFoundError: There is nothing, or it may not be read.
        UnknownFormatError: It is none of the formats.
        DamagedRecordingError: It is empty, or what it says of itself is damaged.
        RecordingLimitError: It declares more than it holds, or more than `limits`.
        BackendUnavailableError: The library that reads the format is not installed; the message names the extra.

    Example:
        >>> with open_recording("run.mcap") as recording:
        ...     episode = recording.read_episode(0)
    """
    if rate_hz is not None and not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:  # also true for NaN
        raise ArgumentError(f"rate_hz (--source-rate) must be 0.000001 to 1e9, got {rate_hz!r}")
    location = Path(path)
    limits = Limits() if limits is None else limits
    try:
        str(location).encode()
    except UnicodeEncodeError as error:  # no table, page or JSON could hold it
        raise RecordingNotFoundError(
            ascii(str(location)), "has a name that is not UTF-8", remedy="rename it"
        ) from error
    with refusals_named(location):
        try:
            is_folder, exists = location.is_dir(), location.exists()
        except ValueError as error:
            raise RecordingNotFoundError(location, f"cannot be looked at ({error})", remedy="check the path") from error
        if not exists:
            raise RecordingNotFoundError(location, "there is no such file or folder", remedy="check the path")
        return _open_folder(location, limits, rate_hz) if is_folder else _open_file(location, limits, rate_hz)


def _refuse_rate(path: Path, rate_hz: float | None) -> None:
    if rate_hz is not None:
        raise ArgumentError(
            f"{path}: has times of its own; leave out rate_hz (--source-rate), which is for HDF5, RLDS and Zarr"
        )


def _open_file(path: Path, limits: Limits, rate_hz: float | None) -> Recording:
    if not path.is_file():
        raise RecordingNotFoundError(path, "is neither a file nor a folder", remedy="name a recording on disk")
    head = _head(path)
    if head == MCAP_MAGIC:
        from robocache.readers.mcap import McapRecording

        _refuse_rate(path, rate_hz)
        return McapRecording(path, limits=limits)
    if head == ROS1_MAGIC[:HEAD_BYTES]:
        from robocache.readers.ros1 import Ros1Recording

        _refuse_rate(path, rate_hz)
        return Ros1Recording(path, limits=limits)
    if head == SQLITE_MAGIC[:HEAD_BYTES]:
        return _open_rosbag2(path, limits, rate_hz)
    if head.startswith(ZIP_MAGIC):
        return _open_replay_buffer(path, limits, rate_hz)
    if _hdf5_superblock(path) is not None:
        from robocache.readers.hdf5 import Hdf5Recording

        return Hdf5Recording(path, limits=limits, rate_hz=rate_hz)
    if is_tfrecord(path):
        from robocache.readers.rlds import RldsRecording

        return RldsRecording(path, [path], limits=limits, rate_hz=rate_hz)
    if _is_carmen(path, head, limits):
        from robocache.readers.carmen import CarmenRecording

        _refuse_rate(path, rate_hz)
        return CarmenRecording(path, limits=limits)
    raise _why_unknown(path, head)


def _why_unknown(path: Path, head: bytes) -> RoboCacheError:
    if not head:
        return DamagedRecordingError(path, "is empty", remedy="copy or record it again")
    begun = [what for signature, what in SIGNATURES.items() if len(head) < HEAD_BYTES and signature.startswith(head)]
    if begun:
        problem = f"ends after {len(head)} bytes, inside the signature of {' or '.join(begun)}"
        return DamagedRecordingError(path, problem, offset=len(head), remedy="copy or record it again")
    if head.startswith(PARQUET_MAGIC):
        remedy = "name the folder that holds meta/info.json to read a LeRobot dataset"
        return UnknownFormatError(path, "is a single Parquet file", remedy=remedy)
    return UnknownFormatError(path, f"starts with {head!r}, which is no known signature", offset=0, remedy=READS)


def _open_rosbag2(path: Path, limits: Limits, rate_hz: float | None) -> Recording:
    from robocache.readers.rosbag2 import Rosbag2Recording

    _refuse_rate(path, rate_hz)
    return Rosbag2Recording(path, limits=limits)


def _open_split_mcap(path: Path, limits: Limits, rate_hz: float | None) -> Recording:
    from robocache.readers.mcap import McapRecording
    from robocache.readers.rosbag2 import listed_files

    _refuse_rate(path, rate_hz)
    return McapRecording(path, limits=limits, files=listed_files(path, ".mcap"))


def _open_replay_buffer(path: Path, limits: Limits, rate_hz: float | None) -> Recording:
    from robocache.readers.replay_buffer import ReplayBufferRecording

    return ReplayBufferRecording(path, limits=limits, rate_hz=rate_hz)


def _open_folder(path: Path, limits: Limits, rate_hz: float | None) -> Recording:
    if (path / "meta" / "info.json").is_file():
        from robocache.readers.lerobot import LeRobotRecording

        _refuse_rate(path, rate_hz)
        return LeRobotRecording(path, limits=limits)
    if (path / "meta" / "episode_ends").is_dir():
        return _open_replay_buffer(path, limits, rate_hz)
    try:
        entries = sorted(path.iterdir())
        files = [entry for entry in entries if entry.name.endswith(SUFFIXES) and entry.is_file()]
        shards = [entry for entry in entries if ".tfrecord" in entry.name and entry.is_file()]
    except OSError as error:
        problem = f"the folder cannot be listed ({error})"
        raise RecordingNotFoundError(path, problem, remedy="check its permissions") from error
    if path / "metadata.yaml" in entries and any(".db3" in entry.suffixes for entry in entries):
        return _open_rosbag2(path, limits, rate_hz)
    if path / "metadata.yaml" in entries and len(files) > 1 and all(file.suffix == ".mcap" for file in files):
        return _open_split_mcap(path, limits, rate_hz)
    if shards and not files:
        from robocache.readers.rlds import RldsRecording

        return RldsRecording(path, shards, limits=limits, rate_hz=rate_hz)
    if len(files) == 1:
        return _open_file(files[0], limits, rate_hz)
    if files:
        names = ", ".join(file.name for file in files[:4]) + (", …" if len(files) > 4 else "")
        problem = f"the folder holds {len(files)} recordings ({names})"
        raise UnknownFormatError(path, problem, remedy="name one of them")
    raise UnknownFormatError(
        path,
        "the folder holds no recording (no meta/info.json, .mcap, .bag, .db3, .hdf5, .clf or .tfrecord)",
        remedy=READS,
    )


def _head(path: Path, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error


def _is_carmen(path: Path, head: bytes, limits: Limits) -> bool:
    from robocache.readers.carmen_lines import compression_of, is_carmen

    compression = compression_of(head)
    if not is_carmen(path, limits):
        if compression is None:
            return False
        held = "no CARMEN log" if compression == "bzip2" else "neither a CARMEN log nor TFRecords"
        raise UnknownFormatError(path, f"is a {compression} file that holds {held}", offset=0, remedy=READS)
    return True


def _hdf5_superblock(path: Path) -> int | None:
    """Where the HDF5 superblock starts: at 0, or behind a user block of 512, 1024, 2048, ... bytes."""
    offset, size = 0, path.stat().st_size
    while offset < size:
        if _head(path, offset) == HDF5_MAGIC:
            return offset
        offset = offset * 2 or 512
    return None
