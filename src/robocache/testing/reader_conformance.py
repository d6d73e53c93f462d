"""What every reader promises, asked of one reader: also of one that is not ours."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from robocache.errors import ClosedError, RoboCacheError, UnknownStreamError
from robocache.readers import Recording
from robocache.records import Episode, RecordedStream
from robocache.testing.image_conformance import (
    image_differences,
    images_are_those_asked_for,
    images_close,
    read_first_images,
)

UNKNOWN = "a stream that no recording has"
Open = Callable[[], Recording]


class ReaderConformanceError(RoboCacheError, AssertionError):
    """A reader that breaks its promises; the message lists each of them."""


@dataclass(frozen=True)
class ReaderReport:
    """What was asked of a reader that keeps every promise.

    Args:
        requirements: Each in words.
        episodes: How many were read.
        samples: How many they hold in all.
    """

    requirements: tuple[str, ...]
    episodes: int
    samples: int


def check_reader(open_: Open, *, episodes: int = 3, timeout_s: float = 60.0) -> ReaderReport:
    """Ask a reader for everything that RoboCache's own readers promise.

    Args:
        open_: Opens the same recording anew, each time that it is called.
        episodes: How many of the first episodes to read.
        timeout_s: How long reading in a thread, or in a forked process, may take.

    Raises:
        ReaderConformanceError: It breaks promises; the message lists all of them.

    Example:
        >>> report = check_reader(lambda: robocache.open_recording("run.mcap"))  # or your own: lambda: MyRecording(...)
    """
    problems: list[str] = []
    counted = [0, 0]
    for requirement, check in REQUIREMENTS.items():
        try:
            found = list(check(open_, episodes, timeout_s))
        except Exception as error:  # noqa: BLE001 -- whatever a reader raises is the finding
            found = [f"{type(error).__name__}: {error}"]
        problems += [f"{requirement}: {problem}" for problem in found]
    if problems:
        raise ReaderConformanceError("\n".join(problems))
    with open_() as recording:
        for episode in _episodes(recording, episodes):
            counted[0] += 1
            counted[1] += sum(len(stream.times_ns) for stream in episode.streams.values())
    return ReaderReport(tuple(REQUIREMENTS), *counted)


def _episodes(recording: Recording, count: int) -> Iterator[Episode]:
    for index in range(min(count, len(recording.episode_names))):
        yield recording.read_episode(index)


def _is_a_recording(open_: Open, *_: object) -> Iterator[str]:
    with open_() as recording:
        if not isinstance(recording, Recording):
            yield f"{type(recording).__name__} lacks a member of robocache.readers.Recording"
        texts: tuple[object, ...] = (recording.path, recording.format)
        if not all(isinstance(text, str) and text for text in texts):
            yield f"path and format must be texts, got {recording.path!r} and {recording.format!r}"


def _names_are_unique(open_: Open, count: int, _: float) -> Iterator[str]:
    with open_() as recording:
        names: object = recording.episode_names
        if not isinstance(names, tuple) or not names or len(set(names)) != len(names):
            yield f"episode_names must be a tuple of one unique name or more, got {str(names)[:200]}"
        for name, episode in zip(recording.episode_names, _episodes(recording, count), strict=False):
            if episode.name != name:
                yield f"episode {name!r} calls itself {episode.name!r}"
            wrong = [key for key, stream in episode.streams.items() if stream.name != key]
            if wrong:
                yield f"stream {wrong[0]!r} of {name} calls itself {episode.streams[wrong[0]].name!r}"


def _times_ascend(open_: Open, count: int, _: float) -> Iterator[str]:
    with open_() as recording:
        for episode in _episodes(recording, count):
            for stream in episode.streams.values():
                times_ns = stream.times_ns
                if times_ns.dtype != np.int64 or times_ns.ndim != 1:
                    yield f"times_ns of {stream.name} is {times_ns.dtype}{list(times_ns.shape)}, not int64 [source]"
                elif np.any(times_ns[1:] < times_ns[:-1]):
                    yield f"times_ns of {stream.name} goes back in row {int(np.argmax(np.diff(times_ns) < 0)) + 1}"


def _clocks_agree(open_: Open, count: int, _: float) -> Iterator[str]:
    with open_() as recording:
        for episode in _episodes(recording, count):
            for stream in episode.streams.values():
                lengths = {name: len(clock) for name, clock in stream.clocks.items()}
                if set(lengths.values()) - {len(stream.times_ns)}:
                    yield f"clocks of {stream.name} have {lengths} stamps, and times_ns has {len(stream.times_ns)}"
                if not np.array_equal(stream.clocks.get(stream.clock, ()), stream.times_ns):
                    yield f"times_ns of {stream.name} is not its clock {stream.clock!r}"


def _only_what_is_asked_for(open_: Open, *_: object) -> Iterator[str]:
    with open_() as recording:
        whole = recording.read_episode(0).streams
        for wanted in ([], list(whole)[:1], list(whole)[-2:]):
            part = recording.read_episode(0, wanted).streams
            if set(part) != set(wanted):
                yield f"asked for {wanted}, got {list(part)}"
            yield from (f"{name} alone: {what}" for name in part for what in _differences(part[name], whole[name]))


def _unknown_streams_are_refused(open_: Open, *_: object) -> Iterator[str]:
    with open_() as recording:
        try:
            recording.read_episode(0, [UNKNOWN])
        except UnknownStreamError:
            return
        yield "a stream that is not there raises no UnknownStreamError"


def _spans_are_cut(open_: Open, *_: object) -> Iterator[str]:
    with open_() as recording:
        whole = recording.read_episode(0).streams
        for name, full in whole.items():
            if not len(full.times_ns):
                continue
            low, high = (int(full.times_ns[len(full.times_ns) * part // 4]) for part in (1, 3))
            for start_ns, end_ns in ((low, high), (None, low), (high, None), (low, low)):
                got = recording.read_episode(0, [name], start_ns=start_ns, end_ns=end_ns).streams[name]
                inside = np.ones(len(full.times_ns), dtype=bool)
                inside &= True if start_ns is None else full.times_ns >= start_ns
                inside &= True if end_ns is None else full.times_ns < end_ns
                rows = inside if full.offsets is None else np.repeat(inside, np.diff(full.offsets))
                is_cut = np.array_equal(got.times_ns, full.times_ns[inside])
                if not is_cut or np.asarray(got.values).tobytes() != full.values[rows].tobytes():
                    yield f"{name} from {start_ns} to {end_ns} is not what a mask over the whole gives"
                elif full.frames is not None:
                    numbers = full.values[inside][:1, 0].astype(np.int64)
                    yield from (f"{name} from {start_ns}: {what}" for what in image_differences(got, full, numbers))


def _reading_again_gives_the_same(open_: Open, count: int, _: float) -> Iterator[str]:
    with open_() as recording, open_() as other:
        for index, first in enumerate(_episodes(recording, count)):
            for again in (recording.read_episode(index), other.read_episode(index)):
                yield from _episode_differences(again, first)


def _closes(open_: Open, *_: object) -> Iterator[str]:
    recording = open_()
    recording.close()
    recording.close()
    try:
        recording.read_episode(0)
    except ClosedError:
        return
    yield "read_episode after close raises no ClosedError"


def _leaves_no_descriptor(open_: Open, *_: object) -> Iterator[str]:
    def use() -> int:
        with open_() as recording:
            read_first_images([*recording.read_episode(0).streams.values()])
        del recording
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- names are enough

    if os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        use()
        gc.disable()  # what only a collection would close is left open
        try:
            before, after = use(), use()
        finally:
            gc.enable()
        if after > before:
            yield f"{after - before} descriptors more are open after a recording was closed"


def _reads_in_a_thread(open_: Open, _: int, timeout_s: float) -> Iterator[str]:
    found: list[str] = []

    def read() -> None:
        try:
            found.extend(_episode_differences(recording.read_episode(0), first))
        except Exception as error:  # noqa: BLE001 -- handed to whoever waits
            found.append(f"{type(error).__name__}: {error}")

    with open_() as recording:
        first = recording.read_episode(0)
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            yield f"does not end within {timeout_s:g} s"
    yield from found


def _reads_after_fork(open_: Open, _: int, timeout_s: float) -> Iterator[str]:
    if "fork" not in multiprocessing.get_all_start_methods():
        return
    context = multiprocessing.get_context("fork")
    with open_() as recording:
        first = recording.read_episode(0)
        receiver, sender = context.Pipe(duplex=False)

        def read() -> None:
            try:
                sender.send(list(_episode_differences(recording.read_episode(0), first)))
            except Exception as error:  # noqa: BLE001 -- handed to whoever waits
                sender.send([f"{type(error).__name__}: {error}"])

        process = context.Process(target=read, daemon=True)
        process.start()
        sender.close()
        try:
            yield from receiver.recv() if receiver.poll(timeout_s) else [f"does not end within {timeout_s:g} s"]
        except EOFError:
            yield "the child dies"
        finally:
            process.kill()
            process.join()
            process.close()
            receiver.close()
        yield from (
            f"in the parent afterwards: {what}" for what in _episode_differences(recording.read_episode(0), first)
        )


def _episode_differences(one: Episode, other: Episode) -> Iterator[str]:
    if list(one.streams) != list(other.streams):
        yield f"has the streams {list(one.streams)}, then {list(other.streams)}"
        return
    for name, stream in one.streams.items():
        yield from (f"{name}: {what}" for what in _differences(stream, other.streams[name]))


def _differences(one: RecordedStream, other: RecordedStream) -> Iterator[str]:
    if not np.array_equal(one.times_ns, other.times_ns):
        yield "other times"
    if one.values.dtype != other.values.dtype or np.asarray(one.values).tobytes() != np.asarray(other.values).tobytes():
        yield "other values"
    if (one.clock, one.columns, one.kind) != (other.clock, other.columns, other.kind):
        yield "another clock, other columns or another kind"
    if len(one.values) == len(other.values) and one.kind == other.kind == "image":
        yield from image_differences(one, other, one.values[[0, -1] if len(one.values) else [], 0].astype(np.int64))


REQUIREMENTS: dict[str, Callable[[Open, int, float], Iterator[str]]] = {
    "it is a Recording": _is_a_recording,
    "names are unique": _names_are_unique,
    "times are ascending int64 nanoseconds": _times_ascend,
    "every clock has a stamp for every row": _clocks_agree,
    "it reads the streams that are asked for": _only_what_is_asked_for,
    "an unknown stream is an UnknownStreamError": _unknown_streams_are_refused,
    "a span is the whole, cut": _spans_are_cut,
    "reading again gives the same": _reading_again_gives_the_same,
    "it closes, also twice, and is closed then": _closes,
    "it leaves no descriptor open": _leaves_no_descriptor,
    "it reads in another thread": _reads_in_a_thread,
    "it reads after a fork": _reads_after_fork,
    "images are those that are asked for": images_are_those_asked_for,
    "images are not read any more when it is closed": images_close,
}
