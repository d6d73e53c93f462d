"""RLDS episodes in TFRecord files, as TensorFlow Datasets writes them, without TensorFlow."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from robocache.errors import DamagedRecordingError, RecordingLimitError, UnknownFormatError
from robocache.readers.limits import Limits
from robocache.readers.recording import OpenRecording, ascending_stream, requested_streams, synthetic_times_ns
from robocache.readers.rlds_info import check_counts
from robocache.readers.span import Span
from robocache.readers.tf_example import ExampleError, Feature, read_features
from robocache.readers.tfrecord import COPY, Record, index_records, read_record
from robocache.records import Episode, RecordedStream

_STEPS = "steps/"
_FLAGS = ("steps/is_first", "steps/is_last", "steps/is_terminal")
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
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
    are attributes; encoded images are listed under "skipped".

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
        self._files = [(file, *index_records(file)) for file in files]
        check_counts(path if path.is_dir() else path.parent, {file: len(offsets) for file, offsets, _ in self._files})
        self._ends = list(accumulate(len(offsets) for _, offsets, _ in self._files))
        super().__init__(str(path), (f"episode_{index:06d}" for index in range(self._ends[-1])))

    def read_episode(
        self,
        index: int,
        streams: Collection[str] | None = None,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> Episode:
        """Read one record; see `Recording.read_episode`."""
        self._check_episode(index)
        span = Span(start_ns, end_ns)
        record = self._record(index)
        data = read_record(record, self._limits)
        try:
            episode = self._episode(index, record.path.name, data, streams)
        except ExampleError as error:
            at = record.offset + error.offset
            raise DamagedRecordingError(record.path, error.problem, offset=at, remedy=COPY) from error
        return replace(episode, streams={name: span.cut(stream) for name, stream in episode.streams.items()})

    def _record(self, index: int) -> Record:
        number = bisect_right(self._ends, index)
        path, offsets, lengths = self._files[number]
        row = index - self._ends[number]  # counted from the file's last record back
        return Record(path, int(offsets[row]), int(lengths[row]))

    def _episode(self, index: int, file: str, data: bytes, requested: Collection[str] | None) -> Episode:
        features = read_features(data)
        steps = _step_count(features)
        attributes: dict[str, object] = {}
        available: dict[str, Feature] = {}
        skipped: dict[str, str] = {}
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
                _take_texts(name, feature, data, attributes, skipped)
            elif is_step:
                available[name] = feature
            elif feature.count == 1:
                attributes[name] = feature.numbers()[0].item()
            else:
                skipped[name] = f"its {feature.count} numbers do not belong to steps"
        attributes["task"] = _task(attributes)
        attributes |= {"rate_hz": self._rate_hz, "file": file, "skipped": skipped}
        names = requested_streams(self.path, requested, available)
        made = self._streams({name: available[name] for name in names}, steps)
        return Episode(self.episode_names[index], made, self.path, attributes)

    def _streams(self, features: dict[str, Feature], steps: int) -> dict[str, RecordedStream]:
        held = sum(8 * (feature.count + steps) for feature in features.values())
        if held > self._limits.episode_bytes:
            problem = f"an episode's streams take up to {held} bytes, and the limit is {self._limits.episode_bytes}"
            remedy = "read fewer streams, or raise Limits(episode_bytes=...)"
            raise RecordingLimitError(self.path, problem, remedy=remedy)
        try:
            times_ns = synthetic_times_ns(steps, self._rate_hz)
        except ValueError as error:
            raise DamagedRecordingError(self.path, str(error), remedy=GIVE_RATE) from error
        return {
            name: ascending_stream(name, feature.numbers().reshape(steps, -1), {"synthetic": times_ns}, "synthetic")
            for name, feature in features.items()
        }


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


def _take_texts(
    name: str, feature: Feature, data: bytes, attributes: dict[str, object], skipped: dict[str, str]
) -> None:
    """A text becomes an attribute: itself where all steps have the same, else the different ones in their order."""
    bounds = np.frombuffer(feature.bounds, np.int64).reshape(-1, 2)
    first = data[int(bounds[0, 0]) : int(bounds[0, 1])]
    if first.startswith(_IMAGES):
        skipped[name] = "its values are encoded images, not numbers"
        return
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
