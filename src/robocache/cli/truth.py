"""How far an aligned simulation is from its truth, and how far the usual shortcut would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.cli import page
from robocache.readers.synthetic import START_NS
from robocache.readers.synthetic_camera import CLOCK_BITS, MS, shown_milliseconds

if TYPE_CHECKING:
    from robocache.cli.conversion import Conversion
    from robocache.loader import Batch
    from robocache.readers import SyntheticRobot
    from robocache.records import Int64, RecordedStream

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StreamError:
    """The error of one stream on its valid frames.

    Args:
        stream: Its name.
        unit: Of the errors: "degrees" of rotation, or "units" of the signal, which spans about -1 to 1.
        rms: Root of the mean square of the aligned values' errors.
        percentile_95: Not exceeded by 95 % of them.
        arrival_rms: The same of the shortcut: the sample whose arrival (log) time is nearest to the frame, with
            times as float32 seconds since the first arrival.
        arrival_percentile_95: The same.
        frames: How many valid frames were compared.
    """

    stream: str
    unit: str
    rms: float
    percentile_95: float
    arrival_rms: float
    arrival_percentile_95: float
    frames: int

    def document(self) -> dict[str, object]:
        """For the summary."""
        return {key: value for key, value in vars(self).items() if key != "stream"}


def errors_against_truth(robot: SyntheticRobot, conversion: Conversion) -> list[StreamError]:
    """Compare every stream that has a value between its samples with the truth."""
    converted = conversion.first
    assert converted is not None  # a conversion without episodes has failed before
    aligned = converted.aligned
    errors = []
    for name, data in aligned.data.items():
        valid = aligned.valid[name].cpu().numpy()
        times_ns = aligned.times_ns[valid]
        stream = converted.episode.streams[name]
        truth = robot.truth(name, times_ns)
        ours = _distance(data.double().cpu().numpy()[valid], truth, stream.kind)
        shortcut = _distance(_nearest_arrival(stream, times_ns), truth, stream.kind)
        errors.append(
            StreamError(
                name,
                "degrees" if stream.kind.startswith("quaternion") else "units",
                *_measures(ours),
                *_measures(shortcut),
                frames=len(times_ns),
            )
        )
    return errors


def error_rows(errors: list[StreamError]) -> list[tuple[str, ...]]:
    """One row a stream: unit, our error, the shortcut's, and how many times as large that is."""
    return [
        (
            error.stream,
            error.unit,
            f"{error.rms:.2g}",
            f"{error.percentile_95:.2g}",
            f"{error.arrival_rms:.2g}",
            f"{error.arrival_percentile_95:.2g}",
            f"{error.arrival_rms / error.rms:.0f} x",
        )
        for error in errors
    ]


@dataclass(frozen=True)
class PictureTimes:
    """Whether pictures show the time that a batch says they have.

    Args:
        stream: Its name.
        pictures: How many were looked at.
        right: Of how many the clock in the picture is the frame's time less the age, to the millisecond.
    """

    stream: str
    pictures: int
    right: int

    def document(self) -> dict[str, int]:
        """For the summary."""
        return {"compared": self.pictures, "right": self.right}

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.right:,} of {self.pictures:,} pictures of {self.stream} in a batch show the time they should"


def picture_times(batch: Batch) -> list[PictureTimes]:
    """Read the clock in every picture of a batch of the simulated robot."""
    found = []
    for name in batch:
        if batch[name].dim() != 5:
            continue
        shown = shown_milliseconds(batch[name].movedim(2, -1).cpu().numpy())
        stamps_ns = (batch.times_ns - batch.age[name]).cpu().numpy()
        right = shown == (stamps_ns - START_NS) // MS % 2**CLOCK_BITS
        found.append(PictureTimes(name, right.size, int(right.sum())))
    return found


def truth_section(errors: list[StreamError], pictures: list[PictureTimes]) -> str:
    """The comparison, for the report."""
    rows = error_rows(errors)
    text = (
        "The signals are analytic, so every aligned value can be compared with the true one at that time. The usual"
        " shortcut takes the sample whose arrival time is nearest to the frame, and so inherits the sensor's delay."
    )
    header = ("Stream", "Unit", "RMS", "95 %", "Shortcut RMS", "Shortcut 95 %", "Better by")
    caption = "Errors on valid frames, in degrees of rotation or in units of the signal (which spans about -1 to 1)."
    below = "".join(f'<p class="soft">{each.text}.</p>' for each in pictures)
    return page.section("Error against the truth", text, page.table(caption, header, rows, left=2), below)


def _nearest_arrival(stream: RecordedStream, times_ns: Int64) -> Floats:
    arrivals_ns = stream.clocks["log"]
    start_ns = int(arrivals_ns[0])
    arrivals = ((arrivals_ns - start_ns) / 1e9).astype(np.float32)
    frames = ((times_ns - start_ns) / 1e9).astype(np.float32)
    after = np.clip(np.searchsorted(arrivals, frames), 1, len(arrivals) - 1)
    is_nearer = frames - arrivals[after - 1] <= arrivals[after] - frames
    return stream.values[np.where(is_nearer, after - 1, after)].astype(np.float64)


def _distance(got: Floats, truth: Floats, kind: str) -> Floats:
    """[frames]: the angle between two rotations in degrees, or the root of the mean square over columns."""
    if not kind.startswith("quaternion"):
        return np.asarray(np.sqrt(((got - truth) ** 2).mean(axis=1)))
    got = got / np.linalg.norm(got, axis=1, keepdims=True)
    chord = np.minimum(np.linalg.norm(got - truth, axis=1), np.linalg.norm(got + truth, axis=1))
    return np.asarray(np.degrees(4 * np.arcsin(np.clip(chord / 2, 0, 1))))


def _measures(errors: Floats) -> tuple[float, float]:
    return float(np.sqrt((errors**2).mean())), float(np.percentile(errors, 95))
