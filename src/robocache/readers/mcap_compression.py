"""Decompression of MCAP chunks with a cap on the output."""

from __future__ import annotations

from pathlib import Path

from robocache.errors import BackendUnavailableError, DamagedRecordingError, RecordingLimitError
from robocache.readers.limits import Limits, MiB

INSTALL = 'pip install "robocache[mcap]"'


def decompressed(path: Path, offset: int, compression: bytes, data: memoryview, declared: int, limits: Limits) -> bytes:
    """The content of a chunk: exactly as long as it declares, and never longer than the limits.

    Raises:
        RecordingLimitError: It declares more than the limits allow for its compressed size.
        DamagedRecordingError: It does not decompress to the declared size.
        BackendUnavailableError: The library for its compression is not installed.
    """
    cap = len(data) if not compression else limits.decompressed_bytes(len(data))
    if declared > cap:
        problem = f"a chunk of {len(data)} bytes declares {declared} decompressed bytes, and {cap} are allowed"
        remedy = "open it with a larger Limits(block_bytes=..., expansion=...) if you trust it"
        raise RecordingLimitError(path, problem, offset=offset, remedy=remedy)
    if not compression:
        content, is_whole = bytes(data), True
    elif compression == b"zstd":
        content, is_whole = _zstd(path, offset, data, declared)
    elif compression == b"lz4":
        content, is_whole = _lz4(path, offset, data, declared)
    else:
        problem = f"a chunk is compressed with {compression[:20]!r}, which is not zstd or lz4"
        raise DamagedRecordingError(path, problem, offset=offset, remedy="convert it with `mcap compress`")
    if len(content) != declared or not is_whole:
        got = f"more than {declared}" if len(content) > declared else f"{len(content)}"
        problem = f"a chunk declares {declared} decompressed bytes, but has {got}"
        raise DamagedRecordingError(path, problem, offset=offset, remedy="copy or record it again")
    return content


def _zstd(path: Path, offset: int, data: memoryview, declared: int) -> tuple[bytes, bool]:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"{path} is compressed with zstd, but zstandard is not installed; {INSTALL}"
        ) from error
    try:
        # The one-shot call would trust the size in the frame; the stream stops where it is told to.
        with zstandard.ZstdDecompressor(max_window_size=128 * MiB).stream_reader(
            data, read_across_frames=True
        ) as stream:
            return stream.read(declared + 1), True
    except zstandard.ZstdError as error:
        raise _does_not_decompress(path, offset, "zstd", error) from error


def _lz4(path: Path, offset: int, data: memoryview, declared: int) -> tuple[bytes, bool]:
    try:
        from lz4.frame import LZ4FrameDecompressor
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"{path} is compressed with lz4, but lz4 is not installed; {INSTALL}") from error
    try:
        decompressor = LZ4FrameDecompressor()
        content = decompressor.decompress(data, max_length=declared + 1)
    except (RuntimeError, EOFError, MemoryError) as error:
        raise _does_not_decompress(path, offset, "lz4", error) from error
    return content, decompressor.eof


def _does_not_decompress(path: Path, offset: int, name: str, error: Exception) -> DamagedRecordingError:
    problem = f"a chunk does not decompress with {name} ({error})"
    return DamagedRecordingError(path, problem, offset=offset, remedy="copy or record it again")
