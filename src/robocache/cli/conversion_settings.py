"""What a conversion is asked for: checked without PyTorch, so that a mistake is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robocache.align import Align, Rate
from robocache.errors import ArgumentError, BackendUnavailableError


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Args:
        rate: The clock; the frames a second of the dataset, where the description's clock follows a stream.
        span: As for `Align`.
        streams: Names in the recording, or None for all.
        backend: "cuda", "native", "pytorch", or None for the best.
        voxel_size: Metres, 1e-6 to 1e6.
        task: What the robot does; None: what the recording says.
        description: Which clock, streams and policies; None: `rate`, `span` and every stream.
    """

    rate: Rate
    span: Any = "overlap"
    streams: tuple[str, ...] | None = None
    backend: str | None = None
    voxel_size: float = 0.1
    task: str | None = None
    description: Align | None = None

    def __post_init__(self) -> None:
        if not 1e-6 <= self.voxel_size <= 1e6:  # also true for NaN
            raise ArgumentError(f"voxel size must be 0.000001 to 1000000 metres, got {self.voxel_size!r}")

    @property
    def spec(self) -> Align:
        """Which clock, streams and policies."""
        return self.description or Align(self.rate, span=self.span)

    @property
    def sources(self) -> tuple[str, ...] | None:
        """The streams to read; None for all, also where some may be missing."""
        if self.description is None or self.description.streams is None:
            return self.streams
        wanted = self.description.streams.values()
        return None if self.optional_sources else tuple(dict.fromkeys(source.source for source in wanted))

    @property
    def optional_sources(self) -> set[str]:
        """The streams that an episode may lack."""
        streams = self.spec.streams or {}
        return {source.source for source in streams.values() if source.optional}

    @property
    def device(self) -> str:
        """Where to compute.

        Raises:
            BackendUnavailableError: "cuda" was asked for and there is none; says why.
        """
        from robocache.ops import is_cuda_available
        from robocache.ops.installation import cuda_problem

        if self.backend == "cuda" and not is_cuda_available():
            raise BackendUnavailableError(f"backend 'cuda' cannot run here: {cuda_problem()}; leave --backend out")
        if self.backend == "native":  # serves the CPU only, also where there is a GPU
            return "cpu"
        return "cuda" if is_cuda_available() else "cpu"
