"""RLDS episodes in TFRecord files, as TensorFlow Datasets writes them, without TensorFlow."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.gzip_stream import GzipStreams
from robocache.readers.images import ImageError, Uint8, image_shape, is_image
from robocache.readers.limits import Limits
from robocache.readers.recording import (
    OpenRecording,
    ascending_stream,
    image_stream,
    requested_streams,
    synthetic_times_ns,
)
from robocache.readers.rlds_info import check_counts, check_shards
from robocache.readers.sources import EpisodeSources
from robocache.readers.span import Span
from robocache.readers.stills import StillFrames, decoded_each
from robocache.readers.tf_example import ExampleError, Feature, read_features
from robocache.readers.tfrecord import COPY, Record, RecordFile, read_record
from robocache.records import Episode, Int64, RecordedStream

_STEPS = "steps/"
_FLAGS = ("steps/is_first", "steps/is_last", "steps/is_terminal")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MAX_TEXT_BYTES = 4096
_RAGGED = "/ragged_"  # how TensorFlow Datasets calls the parts of lists in lists
_INSTRUCTIONS = ("language_instruction", "natural_language_instruction")
GIVE_RATE = "give a rate: open_recording(path, rate_hz=...), or --source-rate on the command line"


class RldsRecording(OpenRecording):
    """The TFRecord files of an RLDS data set as a `Recording`, one episode a record: "episode_000000" and on.

    A stream is a feature of numbers with a value, or as many values each, for every step: "observation/state",
    "action", "reward", "is_first". The format has no times: t = k / rate, on the clock "synthetic". Texts, such as
    "language_instruction" (which is the "task" too), and what is said once for an episode ("episode_metadata/...")
    are attributes. Encoded images (JPEG, PNG) are streams of images, read from the file and decoded when asked for.

    A file that was cut between two records is whole to TFRecord; where a dataset_info.json lies beside it, the number
    of its records is compared with the one declared there.

    Args:
        path: The file, or the folder that holds the files.
        files: The TFRecord files, in the order of their episodes.
        limits: What they may make the reader allocate.
        rate_hz: Steps a second.
    """

    format = "rlds"

    def __init__(self, path: Path, files: Collection[Path], *, limits: Limits, rate_hz: float | None) -> None:
        if rate_hz is None:
            raise UnknownFormatError(path, "is an RLDS data set, which has no times", remedy=GIVE_RATE)
        self._rate_hz = rate_hz
        self._limits = limits
        if path.is_dir():
            check_shards(path, files)
        gzips = GzipStreams(limits)
        opened = [RecordFile(file, gzips) for file in files]
        self._files = [(file, *file.index()) for file in opened]
        check_counts(
            path if path.is_dir() else path.parent, {file.path: len(offsets) for file, offsets, _ in self._files}
        )
        self._ends = list(accumulate(len(offsets) for _, offsets, _ in self._files))
        super().__init__(str(path), (f"episode_{index:06d}" for index in range(self._ends[-1])))

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Read one record."""
        record = self._record(index)
        data = read_record(record, self._limits)
        try:
            episode = self._episode(index, record.file.path.name, data, streams)
        except ExampleError as error:
            at = record.offset + error.offset
            raise DamagedRecordingError(record.file.path, error.problem, offset=at, remedy=COPY) from error
        return replace(episode, streams={name: span.cut(stream) for name, stream in episode.streams.items()})

    def episode_sources(self, index: int) -> EpisodeSources:
        """The file with the episode's record; see `NamesItsSources`."""
        self._check_episode(index)
        record = self._record(index)
        return EpisodeSources((record.file.path,), {"offset": record.offset})

    def _record(self, index: int) -> Record:
        number = bisect_right(self._ends, index)
        file, offsets, lengths = self._files[number]
        row = index - self._ends[number]  # counted from the file's last record back
        return Record(file, int(offsets[row]), int(lengths[row]))

    def _episode(self, index: int, file: str, data: bytes, requested: Collection[str] | None) -> Episode:
        features = read_features(data)
        steps = _step_count(features)
        attributes: dict[str, object] = {}
        available: dict[str, Feature] = {}
        skipped: dict[str, str] = {}
        shapes: dict[str, tuple[int, int, int]] = {}
        for full, feature in sorted(features.items()):
            name, is_step = full.removeprefix(_STEPS), full.startswith(_STEPS)
            if _RAGGED in name:
                skipped[name] = "it has another number of values for each step"
                continue
            if is_step and feature.count % steps:
                raise ExampleError(feature.offset, f"{name} has {feature.count} values for {steps} steps")
            if feature.kind is None or feature.count == 0:
                skipped[name] = "it has no values"
            elif feature.kind == "bytes":
                shape = _take_bytes(name, feature, data, attributes, skipped)
                if shape is not None and is_step and feature.count == steps:
                    shapes[name], available[name] = shape, feature
            elif is_step:
                available[name] = feature
            elif feature.count == 1:
                attributes[name] = feature.numbers()[0].item()
            else:
                skipped[name] = f"its {feature.count} numbers do not belong to steps"
        attributes["task"] = _task(attributes)
        attributes |= {"rate_hz": self._rate_hz, "file": file, "skipped": skipped}
        names = requested_streams(self.path, requested, available, skipped)
        made = self._streams(index, {name: available[name] for name in names}, shapes, steps)
        return Episode(self.episode_names[index], made, self.path, attributes)

    def _streams(
        self, index: int, features: dict[str, Feature], shapes: dict[str, tuple[int, int, int]], steps: int
    ) -> dict[str, RecordedStream]:
        self._check_held(features.values(), steps)
        times_ns = self._times_ns(steps)
        made: dict[str, RecordedStream] = {}
        for name, feature in features.items():
            if name in shapes:
                frames = self._images(index, name, feature, shapes[name])
                made[name] = image_stream(name, frames, {"synthetic": times_ns}, "synthetic")
            else:
                values = feature.numbers().reshape(steps, -1)
                made[name] = ascending_stream(name, values, {"synthetic": times_ns}, "synthetic")
        return made

    def _check_held(self, features: Iterable[Feature], steps: int) -> None:
        held = sum(8 * (feature.count + steps) for feature in features)
        if held > self._limits.episode_bytes:
            problem = f"an episode's streams take up to {held} bytes, and the limit is {self._limits.episode_bytes}"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, remedy=remedy)

    def _times_ns(self, steps: int) -> Int64:
        try:
            return synthetic_times_ns(steps, self._rate_hz)
        except ValueError as error:
            raise DamagedRecordingError(self.path, str(error), remedy=GIVE_RATE) from error

    def _images(self, index: int, name: str, feature: Feature, shape: tuple[int, int, int]) -> StillFrames:
        record = self._record(index)
        bounds = np.frombuffer(feature.bounds, np.int64).reshape(-1, 2) + record.offset

        def payloads(numbers: Int64) -> Iterator[bytes]:
            self._check_episode(index)
            with record.file.opened() as file:
                for start, end in bounds[numbers].tolist():
                    file.seek(start)
                    yield file.read(end - start)

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            return decoded_each(payloads(numbers), self._limits)

        return StillFrames(str(record.file.path), f"episode {index}, {name}, image", len(bounds), shape, fetch)


def _step_count(features: dict[str, Feature]) -> int:
    """How many steps the episode has: one flag is_first, is_last, is_terminal for each."""
    flags = [features[name] for name in _FLAGS if name in features and features[name].kind == "int64"]
    if not flags or not flags[0].count:
        raise ExampleError(0, "this is no RLDS episode: it has no step with is_first, is_last or is_terminal")
    for flag in flags:
        if flag.count != flags[0].count:
            problem = f"{flag.name} has {flag.count} values, but {flags[0].name} has {flags[0].count}"
            raise ExampleError(flag.offset, problem)
    return flags[0].count


def _task(attributes: dict[str, object]) -> str | None:
    """The instruction, where the episode has one, and one only."""
    found = (text for name, text in attributes.items() if name.rpartition("/")[2] in _INSTRUCTIONS)
    return next((text for text in found if isinstance(text, str)), None)


def _take_bytes(
    name: str, feature: Feature, data: bytes, attributes: dict[str, object], skipped: dict[str, str]
) -> tuple[int, int, int] | None:
    """The shape of images; None of texts, which become attributes, and of what is skipped."""
    start, end = feature.bounds[:2]
    if not is_image(data[start:end]):
        _take_texts(name, feature, data, attributes, skipped)
        return None
    try:
        return image_shape(data[start:end])
    except ImageError as error:
        skipped[name] = f"its first image {error}"
        return None


def _take_texts(
    name: str, feature: Feature, data: bytes, attributes: dict[str, object], skipped: dict[str, str]
) -> None:
    """A text becomes an attribute: itself where all steps have the same, else the different ones in their order."""
    bounds = np.frombuffer(feature.bounds, np.int64).reshape(-1, 2)
    if int((bounds[:, 1] - bounds[:, 0]).max()) > _MAX_TEXT_BYTES:
        skipped[name] = f"its values are byte strings of more than {_MAX_TEXT_BYTES} bytes, not numbers"
        return
    raw = dict.fromkeys(data[start:end] for start, end in bounds.tolist())
    try:
        texts = [text.decode("utf-8") for text in raw]
    except UnicodeDecodeError:
        texts = []
    if not texts or any(_CONTROLS.search(text) for text in texts):
        skipped[name] = "its values are byte strings, not numbers"
        return
    attributes[name] = texts[0] if len(texts) == 1 else tuple(texts)
