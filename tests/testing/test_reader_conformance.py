"""`check_reader` passes a reader that keeps its promises, and each of its checks can fail."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from robocache.errors import ArgumentError, RoboCacheError
from robocache.readers import SyntheticRobot
from robocache.testing import check_reader
from robocache.testing.reader_conformance import REQUIREMENTS


class Robot(SyntheticRobot):
    """A good reader; those below break one promise each."""

    def __init__(self):
        super().__init__(duration_s=1.0, lidar_points=8, episodes=2)

    def changed(self, stream):
        return stream

    def read_episode(self, index, streams=None, *, start_ns=None, end_ns=None):
        episode = super().read_episode(index, streams, start_ns=start_ns, end_ns=end_ns)
        return replace(episode, streams={name: self.changed(stream) for name, stream in episode.streams.items()})


class NoFormat(Robot):
    format = None


class OneName(Robot):
    def __init__(self):
        super().__init__()
        self.episode_names = ("a", "a")


class Backwards(Robot):
    def changed(self, stream):
        times_ns = stream.times_ns[::-1].copy()
        return replace(stream, times_ns=times_ns, clocks={stream.clock: times_ns})


class ShortClock(Robot):
    def changed(self, stream):
        return replace(stream, clocks={**stream.clocks, "log": stream.clocks["log"][1:]})


class Everything(Robot):
    def read_episode(self, index, streams=None, **span):
        super().read_episode(index, streams)
        return super().read_episode(index, None, **span)


class Lenient(Robot):
    def read_episode(self, index, streams=None, **span):
        known = None if streams is None else [name for name in streams if name.startswith("/")]
        return super().read_episode(index, known, **span)


class EndIncluded(Robot):
    def read_episode(self, index, streams=None, *, start_ns=None, end_ns=None):
        later = None if end_ns is None else end_ns + 1
        return super().read_episode(index, streams, start_ns=start_ns, end_ns=later)


class Counting(Robot):
    count = 0

    def changed(self, stream):
        Counting.count += 1
        return replace(stream, values=stream.values + np.asarray(Counting.count, stream.values.dtype))


class Immortal(Robot):
    def close(self):
        pass


class Leaking(Robot):
    def __init__(self):
        super().__init__()
        self.left_open = os.open("/dev/null", os.O_RDONLY)


class OneThread(Robot):
    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def changed(self, stream):
        if threading.get_ident() != self.thread:
            raise RuntimeError("in another thread")
        return stream


class OneProcess(Robot):
    def __init__(self):
        super().__init__()
        self.process = os.getpid()

    def changed(self, stream):
        if os.getpid() != self.process:
            raise RuntimeError("in another process")
        return stream


class Pictures:
    """Seven images, of which number k is full of k."""

    shape = (4, 6, 3)

    def __init__(self, robot):
        self.robot = robot

    def __len__(self):
        return 7

    def read(self, numbers, *, size=None):
        self.robot._check_episode(0)
        numbers = np.asarray(numbers)
        if len(numbers) and not 0 <= numbers.min() <= numbers.max() < 7:
            raise ArgumentError(f"numbers must be 0 to 6, got {numbers}")
        return self.filled(numbers, self.shape if size is None else (*size, 3))

    def filled(self, numbers, shape):
        return np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (len(numbers), *shape))


class Camera(Robot):
    """A good reader whose streams of numbers are images, which one they are told by their times."""

    Images = Pictures

    def changed(self, stream):
        if stream.kind != "vector":
            return stream
        numbers = (stream.times_ns // 1000 % 7)[:, None]
        return replace(stream, values=numbers, columns=("frame",), kind="image", frames=self.Images(self))


class Sorted(Camera):
    class Images(Pictures):
        def filled(self, numbers, shape):
            return super().filled(np.sort(numbers), shape)


class AsFloats(Camera):
    class Images(Pictures):
        def filled(self, numbers, shape):
            return super().filled(numbers, shape) / np.float32(255)


class NoSize(Camera):
    class Images(Pictures):
        def filled(self, numbers, shape):
            return super().filled(numbers, self.shape)


class NeverTwiceTheSame(Camera):
    class Images(Pictures):
        def filled(self, numbers, shape):
            Counting.count += 1
            return super().filled(numbers, shape) + np.uint8(Counting.count % 250)


class FromTheEnd(Camera):
    class Images(Pictures):
        def read(self, numbers, *, size=None):
            return super().read(np.asarray(numbers) % 7, size=size)


class TooFew(Camera):
    class Images(Pictures):
        def __len__(self):
            return 5


class NoFrames(Camera):
    def changed(self, stream):
        return replace(super().changed(stream), frames=None)


class Undead(Camera):
    class Images(Pictures):
        def __init__(self, robot):
            super().__init__(Robot())


BROKEN = [NoFormat, OneName, Backwards, ShortClock, Everything, Lenient, EndIncluded, Counting, Immortal, Leaking]
BROKEN += [OneThread, OneProcess, Sorted, Undead]


def test_a_good_reader_passes():
    report = check_reader(Robot)
    assert report.episodes == 2
    assert report.requirements == tuple(REQUIREMENTS)
    assert report.samples > 100


def test_a_good_reader_of_images_passes():
    assert check_reader(Camera).samples > 100


@pytest.mark.parametrize("reader", [Sorted, AsFloats, NoSize, NeverTwiceTheSame, FromTheEnd, TooFew, NoFrames])
def test_images_that_are_not_those_asked_for(reader):
    """Fails where one of the questions about images is no longer asked."""
    with pytest.raises(RoboCacheError, match=r"(?m)^images are those that are asked for: "):
        check_reader(reader, episodes=1)


@pytest.mark.parametrize(("requirement", "reader"), list(zip(REQUIREMENTS, BROKEN, strict=True)), ids=str)
def test_a_broken_promise_is_named(requirement, reader):
    """Fails where a check sees nothing any more."""
    with pytest.raises(RoboCacheError) as caught:
        check_reader(reader)
    assert any(line.startswith(f"{requirement}: ") for line in str(caught.value).splitlines())
