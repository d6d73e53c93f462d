"""HDF5 files: plain ones (one dataset a stream, such as BROAD), robomimic and ALOHA.

HDF5 has no checksum of its data by default: a flipped bit in a dataset that is neither compressed nor has the
Fletcher-32 filter is a wrong number that no reader can notice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from robocache.errors import DamagedRecordingError, RecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.hdf5_images import image_frames
from robocache.readers.hdf5_layout import TimeAxis, flavour_of, kind_and_columns, nanoseconds, time_axis
from robocache.readers.hdf5_tree import Hdf5File
from robocache.readers.limits import MAX_RATE_HZ, MIN_RATE_HZ, Limits
from robocache.readers.recording import (
    OpenRecording,
    ascending_stream,
    image_stream,
    requested_streams,
    synthetic_times_ns,
)
from robocache.readers.span import Span
from robocache.readers.stills import StillFrames
from robocache.records import Episode, Int64, RecordedStream

if TYPE_CHECKING:
    from h5py import Dataset

_Value = TypeVar("_Value")
TIMES_AT_ONCE = 2**18


class Hdf5Recording(OpenRecording):
    """An HDF5 file as a `Recording`: one episode, or one a demonstration of a robomimic file.

    A stream is a dataset of numbers with one or two axes, called by its path ("imu_acc", "obs/robot0_eef_pos"). Its
    times are those of a dataset called time, times, timestamp, timestamps, stamp or t beside it, or further up, with
    as many rows (floats are seconds, integers nanoseconds, unless an attribute `units` or a suffix such as `_ms` says
    otherwise); else t = k / rate, on a clock called "synthetic", with the rate from `rate_hz`, from an attribute of
    the file (`sampling_rate`, ...), from robomimic's `control_freq`, or 50 Hz, at which ALOHA records.

    What has neither times nor a row for each action (ALOHA's `compress_len`) is left out.

    Pictures, [images, height, width, 3] uint8, and JPEG or PNG in rows of bytes, which may be padded, are streams of
    images, read and decoded when they are asked for.

    Other datasets (texts, odd lengths) are listed in the episode's attributes under "skipped".

    Args:
        path: The file.
        limits: What it may make the reader allocate.
        rate_hz: Rate of datasets without times; overrides what the file says.
    """

    format = "hdf5"

    def __init__(self, path: Path, *, limits: Limits, rate_hz: float | None = None) -> None:
        self._file = Hdf5File(path, limits)
        try:
            self._tree = self._file.tree()
            self._flavour = flavour_of(self._file, self._tree)
            super().__init__(str(path), self._flavour.episodes)
            self._rate_hz = self._flavour.rate_hz if rate_hz is None else rate_hz
            self._check_rate()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file. Closing twice is allowed; reading after it raises `ClosedError`."""
        super().close()
        self._file.close()

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read the datasets of one episode."""
        prefix = self._flavour.prefix(index)
        datasets, skipped = _below(prefix, self._tree.datasets), _below(prefix, self._tree.skipped)
        frames = self._images(prefix, datasets, skipped)
        axes: dict[str, TimeAxis] = {}
        for name in datasets:
            axis = time_axis(name, datasets, self._rate_hz)
            if isinstance(axis, str):
                skipped[name] = axis
            elif axis is not None:
                axes[name] = axis
        if not axes:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3]) or "it holds no dataset"
            remedy = "is this a recording?"
            if datasets:
                remedy = "give a rate: open_recording(path, rate_hz=...), or --source-rate on the command line"
            place = f"group {prefix.rstrip('/')}" if prefix else None
            raise UnknownFormatError(self.path, f"has no stream with a time ({reasons})", place=place, remedy=remedy)
        names = requested_streams(self.path, streams, axes, skipped)
        made = self._streams(prefix, datasets, {name: axes[name] for name in names}, frames, span)
        attributes = self._attributes(prefix, skipped)
        return Episode(self.episode_names[index], made, self.path, attributes)

    def _images(self, prefix: str, datasets: dict[str, Dataset], skipped: dict[str, str]) -> dict[str, StillFrames]:
        """What decodes the datasets of images, which are added to the others; why some cannot be goes to `skipped`."""
        images = _below(prefix, self._tree.images)
        frames: dict[str, StillFrames] = {}
        for name, dataset in [*images.items(), *datasets.items()]:
            found = image_frames(self._file, dataset, prefix + name) if name in images or dataset.ndim == 2 else None
            if isinstance(found, str):
                skipped[name] = found
                datasets.pop(name, None)
            elif found is not None:
                frames[name] = found
                datasets[name] = dataset
            elif name in images:
                skipped[name] = f"its values are {dataset.dtype}, not numbers"
        return frames

    def _streams(
        self,
        prefix: str,
        datasets: Mapping[str, Dataset],
        axes: Mapping[str, TimeAxis],
        frames: Mapping[str, StillFrames],
        span: Span,
    ) -> dict[str, RecordedStream]:
        made: dict[str, RecordedStream] = {}
        stamps: dict[str, tuple[range, Int64]] = {}
        held = 0
        for name, axis in axes.items():
            count = int(datasets[name].shape[0])
            if axis.dataset is None:
                rows = range(*span.synthetic_rows(count, axis.rate_hz))
            else:
                if axis.dataset not in stamps:
                    stamps[axis.dataset] = self._stamps(datasets[axis.dataset], prefix + axis.dataset, span)
                rows, times_ns = stamps[axis.dataset]
            # Numbers before synthetic times: their shape is believed only when they were read.
            values = None if name in frames else self._file.read(datasets[name], prefix + name, rows)
            if axis.dataset is None:
                times_ns = self._synthetic(axis, count, prefix + name, rows, are_read=values is not None)
            clocks = {axis.clock: times_ns}
            if values is None:
                whole = image_stream(name, frames[name], clocks, axis.clock, rows)
            else:
                kind, columns = kind_and_columns(self._file, datasets[name], name, self._flavour.name)
                whole = ascending_stream(name, values, clocks, axis.clock, columns=columns, kind=kind)
            made[name] = span.cut(whole)
            held += made[name].nbytes
            if held > self._file.limits.episode_bytes:
                problem = f"its streams take more than the limit of {self._file.limits.episode_bytes} bytes"
                remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
                raise RecordingLimitError(self.path, problem, place=f"dataset {name}", remedy=remedy)
        return made

    def _synthetic(self, axis: TimeAxis, count: int, full: str, rows: range, *, are_read: bool) -> Int64:
        limits = self._file.limits
        # Images that were never written take no space in the file, and would still have times.
        if 8 * len(rows) > (limits.episode_bytes if are_read else limits.bytes_of_times):
            problem = f"declares {count} rows, whose times alone are more than the limit allows"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, place=f"dataset {full}", remedy=remedy)
        try:
            return synthetic_times_ns(count, axis.rate_hz, rows)
        except ValueError as error:
            remedy = "give rate_hz=..., or --source-rate on the command line"
            raise DamagedRecordingError(self.path, str(error), place=f"dataset {full}", remedy=remedy) from error

    def _stamps(self, dataset: Dataset, full: str, span: Span) -> tuple[range, Int64]:
        """The rows that may be inside, and their times; read block by block, for times need not be ascending."""
        units = self._file.text(dataset, "units")
        count = int(dataset.shape[0])
        first, after = count, 0
        try:
            for start in range(0, 0 if span.is_everything else count, TIMES_AT_ONCE):
                block = range(start, min(start + TIMES_AT_ONCE, count))
                inside = np.flatnonzero(
                    span.mask(nanoseconds(self._file.read(dataset, full, block)[:, 0], full, units))
                )
                if len(inside):
                    first, after = min(first, start + int(inside[0])), start + int(inside[-1]) + 1
            rows = range(count) if span.is_everything else range(min(first, after), after)
            return rows, nanoseconds(self._file.read(dataset, full, rows)[:, 0], full, units)
        except RecordingError:
            raise
        except ValueError as error:
            remedy = "if it is in another unit, say so in its attribute `units`, or in its name (time_ms)"
            raise DamagedRecordingError(self.path, str(error), place=f"dataset {full}", remedy=remedy) from error

    def _attributes(self, prefix: str, skipped: dict[str, str]) -> dict[str, object]:
        attributes: dict[str, object] = {"layout": self._flavour.name, "skipped": skipped}
        if self._rate_hz is not None:
            attributes["rate_hz"] = self._rate_hz
        for owner in {"", prefix.rstrip("/")}:
            for name in ("info", "task", "language_instruction", "env_args"):
                text = self._file.text(self._tree.groups[owner], name)
                if text is not None:
                    attributes[name] = text
        return attributes

    def _check_rate(self) -> None:
        rate_hz = self._rate_hz
        if rate_hz is not None and not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:  # also true for NaN
            problem = f"declares a rate of {rate_hz!r} Hz, not between 0.000001 and 1000000000"
            remedy = "give rate_hz=..., or --source-rate on the command line"
            raise DamagedRecordingError(self.path, problem, place=self._flavour.rate_source, remedy=remedy)


def _below(prefix: str, found: Mapping[str, _Value]) -> dict[str, _Value]:
    """What lies below a prefix, by the rest of its name."""
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
