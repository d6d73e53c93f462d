"""Compressed rosbag2: whole files, made plain in a folder of their own, or messages one by one; with zstd, as ROS 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robocache.errors import BackendUnavailableError, DamagedRecordingError, OutputError, RecordingLimitError
from robocache.readers.limits import Limits, MiB
from robocache.readers.recording import open_binary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

INSTALL = 'pip install "robocache[mcap]"'
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # a CDR message begins with a zero
_AT_ONCE = 2048  # compressed bytes: zstd may make 64 MiB of them
_AGAIN = "copy or record it again"
_TRUSTED = "raise Limits(episode_bytes=..., expansion=...) if you trust it"


def plain_file(path: Path, folder: Path, limits: Limits) -> Path:
    """A compressed file's content as a file.

    Args:
        path: The compressed one.
        folder: Where the other goes, under the same name without its last suffix.
        limits: How large it may become.

    Raises:
        DamagedRecordingError: It does not decompress.
        RecordingLimitError: It is larger than the limits allow for its compressed size.
        OutputError: The folder cannot hold it.
        BackendUnavailableError: zstandard is not installed.
    """
    cap = limits.decompressed_bytes(path.stat().st_size, of_block=False)
    made = folder / path.stem
    with open_binary(path) as source:
        try:
            with made.open("wb") as target:
                for piece in _decompressed(path, iter(lambda: source.read(_AT_ONCE), b""), cap):
                    target.write(piece)
        except OSError as error:
            problem = f"{path} cannot be decompressed into {folder} ({error.strerror or error})"
            raise OutputError(f"{problem}; name a folder with more room in TMPDIR") from error
    return made


def plain_message(path: Path, row: int, data: bytes, limits: Limits) -> bytes:
    """A compressed message's content.

    Args:
        path: The file, for errors.
        row: Its number, for errors.
        data: The compressed bytes.
        limits: How large it may become.

    Raises:
        DamagedRecordingError: It does not decompress.
        RecordingLimitError: It is larger than the limits allow for its compressed size.
        BackendUnavailableError: zstandard is not installed.
    """
    parts = (data[start : start + _AT_ONCE] for start in range(0, len(data), _AT_ONCE))
    cap = limits.decompressed_bytes(len(data))
    return b"".join(_decompressed(path, parts, cap, offset=row, place="messages row"))


def _decompressed(path: Path, parts: Iterable[bytes], cap: int, **where: Any) -> Iterator[bytes]:  # noqa: ANN401
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{path} is compressed with zstd, but zstandard is not installed; {INSTALL}"
        ) from error
    frame, left = None, cap
    try:
        for part in parts:
            data = part
            while data:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=64 * MiB).decompressobj()
                piece = frame.decompress(data)
                left -= len(piece)
                if left < 0:
                    problem = f"decompresses to more than the {cap} bytes that are allowed"
                    raise RecordingLimitError(path, problem, remedy=_TRUSTED, **where)
                yield piece
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        raise DamagedRecordingError(path, f"does not decompress with zstd ({error})", remedy=_AGAIN, **where) from error
    if frame is not None or left == cap:
        raise DamagedRecordingError(path, "ends inside what zstd compressed", remedy=_AGAIN, **where)
