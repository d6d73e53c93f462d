"""How much a file may make a reader allocate."""

from __future__ import annotations

from dataclasses import dataclass, fields

from robocache.errors import ArgumentError

MiB = 2**20
MIN_RATE_HZ, MAX_RATE_HZ = 1e-6, 1e9
REACH_NS = 2**62  # 146 years from zero, either way: two stamps so near are less than an int64 apart


@dataclass(frozen=True)
class Limits:
    """What a reader refuses to exceed, whatever the file declares; beyond it a `RecordingLimitError` is raised.

    Args:
        block_bytes: Host bytes that one unit of a file may become when it is decompressed: a chunk of an MCAP file, a
            bag or an HDF5 file, a metadata file.
        expansion: A block may grow by this factor when it is decompressed, once it is larger than 16 MiB; real
            recordings grow by 2 to 50, a decompression bomb by 1000 and more.
        episode_bytes: Host bytes that the streams of one episode may hold.
        image_pixels: Height times width of one image or video frame; more is refused before anything is decoded. 4096
            x 4096 are allowed, twice a 4K frame; decoding a still image takes 7 to 12 bytes for each.
    """

    block_bytes: int = 256 * MiB
    expansion: int = 200
    episode_bytes: int = 8192 * MiB
    image_pixels: int = 16 * MiB

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, int) and value > 0):
                raise ArgumentError(f"{field.name} must be an integer greater than 0, got {value!r}")

    @property
    def bytes_of_times(self) -> int:
        """The most bytes that times may take which are counted, not read: 16 MiB, a day at 24 Hz, unless told."""
        return self.episode_bytes // 512

    def decompressed_bytes(self, compressed_bytes: int, *, of_block: bool = True) -> int:
        """The most bytes that a block, or an episode's whole stream, of this compressed size may become."""
        limit = self.block_bytes if of_block else self.episode_bytes
        return min(limit, max(16 * MiB, compressed_bytes * self.expansion))
