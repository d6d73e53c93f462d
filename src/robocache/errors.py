"""Every exception RoboCache raises.

    RoboCacheError
    ├── ArgumentError (ValueError)             a call that cannot be right
    │   ├── ShapeError (RuntimeError)          sizes that disagree
    │   ├── DTypeError (RuntimeError)          a dtype the operation has no meaning for
    │   ├── DeviceError (RuntimeError)         tensors on different devices, or on the wrong one
    │   └── UnknownStreamError                 a stream name the recording does not have
    ├── BackendUnavailableError (RuntimeError) a backend that cannot run here, with the reason
    ├── RecordingError (ValueError)            a recording that cannot be read
    │   ├── RecordingNotFoundError             nothing there, or not readable
    │   ├── UnknownFormatError                 not a format RoboCache reads
    │   ├── DamagedRecordingError              truncated, flipped or inconsistent bytes
    │   └── RecordingLimitError                a declared size beyond the file or a limit
    ├── OutputError (RuntimeError)             a result that cannot be written
    ├── BuildError (RuntimeError)              an episode that cannot become a shard, with the reason
    ├── CacheError (RuntimeError)              a cache folder that cannot be used
    │   ├── ShardNotFoundError                 no such shard, and nobody to build it
    │   ├── DamagedShardError                  a shard whose bytes are not those that were written
    │   └── CacheFullError                     no room: on the disk, or under the cache's limit
    ├── EpisodeError (RuntimeError)            an episode that cannot be made into batches
    ├── BudgetError (ValueError)               an item that can never fit its byte budget
    └── ClosedError (RuntimeError)             use after close

Argument errors are also what PyTorch users catch: `ValueError` throughout, and `RuntimeError` where PyTorch
itself raises that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class RoboCacheError(Exception):
    """The root: `except RoboCacheError` catches everything RoboCache raises on purpose."""


class ArgumentError(RoboCacheError, ValueError):
    """An argument whose value cannot be right; the message names it and shows the value."""


class ShapeError(ArgumentError, RuntimeError):
    """Two sizes that disagree, or a rank that is not the documented one."""


class DTypeError(ArgumentError, RuntimeError):
    """A dtype that the operation, or the policy, has no meaning for."""


class DeviceError(ArgumentError, RuntimeError):
    """Tensors on different devices, or on a device the chosen backend cannot serve."""


class UnknownStreamError(ArgumentError):
    """A stream that the recording does not hold; the message lists those it does."""


class BackendUnavailableError(RoboCacheError, RuntimeError):
    """A backend was asked for that cannot run here; the message says why and what to do."""


class RecordingError(RoboCacheError, ValueError):
    """A recording that cannot be read.

    Args:
        path: The file, or the folder, that is at fault.
        problem: What is wrong with it.
        offset: Byte in the file (or row, as `place` says) where it went wrong.
        place: What the offset counts, or a name inside the file such as an HDF5 dataset.
        remedy: What the reader can do about it.
    """

    def __init__(
        self,
        path: Path | str,
        problem: str,
        *,
        offset: int | None = None,
        place: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.path = str(path)
        self.problem = problem
        self.offset = offset
        self.place = place
        self.remedy = remedy
        where = f"{self.path}"
        if place is not None:
            where += f", {place}"
        if offset is not None:
            where += f" at byte {offset}" if place is None else f" {offset}"
        super().__init__(f"{where}: {problem}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword, so that the error survives the way out of a worker process."""
        state = {"offset": self.offset, "place": self.place, "remedy": self.remedy}
        return (_rebuild_recording_error, (type(self), self.path, self.problem, state))


def _rebuild_recording_error(
    kind: type[RecordingError], path: str, problem: str, state: dict[str, object]
) -> RecordingError:
    return kind(path, problem, **state)  # type: ignore[arg-type]


class RecordingNotFoundError(RecordingError):
    """There is nothing at the path, or it may not be read."""


class UnknownFormatError(RecordingError):
    """The file exists but is none of the formats RoboCache reads."""


class DamagedRecordingError(RecordingError):
    """Bytes that are missing, flipped, or contradict each other."""


class RecordingLimitError(RecordingError):
    """A size declared in the file that exceeds the file itself or a safety limit."""


class OutputError(RoboCacheError, RuntimeError):
    """A result that cannot be written; nothing partial is left behind."""


class BuildError(RoboCacheError, RuntimeError):
    """An episode that cannot become a shard; the message names recording and episode, `__cause__` is the reason."""


class CacheError(RoboCacheError, RuntimeError):
    """A cache folder that cannot be used; nothing partial is left in it."""


class ShardNotFoundError(CacheError):
    """There is no such shard, and no builder was given that could make it."""


class DamagedShardError(CacheError):
    """A shard whose bytes are not those that were written; the message names the file and the place in it."""


class CacheFullError(CacheError):
    """A shard for which there is no room; the cache is as it was before, and usable.

    Args:
        message: What a person reads.
        needed_bytes: Size of the shard.
        available_bytes: What there was room for.
    """

    def __init__(self, message: str, *, needed_bytes: int = 0, available_bytes: int = 0) -> None:
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        super().__init__(message)


class EpisodeError(RoboCacheError, RuntimeError):
    """An episode of a dataset that cannot be read, or whose arrays are not what the dataset says."""


class BudgetError(RoboCacheError, ValueError):
    """An item that can never fit the byte budget it must pass through."""


class ClosedError(RoboCacheError, RuntimeError):
    """Something was used after it was closed."""
