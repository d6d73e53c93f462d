"""A robot that never was: recordings from analytic signals, so that the true value at any time is known.

An arm reports its joints and the orientation of its hand at 500 Hz, an IMU runs at 200 Hz, a camera gives features at
30 Hz and a lidar scans at 10 Hz; where it is asked for, a second camera gives pictures of the arm at 15 Hz. Stamps
jitter, samples drop out, and every message is logged later than its header says, each sensor by its own offset.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, UnknownStreamError
from robocache.readers.recording import OpenRecording, image_stream, requested_streams
from robocache.readers.sources import EpisodeSources
from robocache.readers.span import Span
from robocache.readers.stills import StillFrames
from robocache.readers.synthetic_camera import Camera, Uint8, checked_sides
from robocache.readers.synthetic_signals import Float64, Motion, Room, Waves
from robocache.records import Episode, Int64, Kind, RecordedStream

START_NS = 1_700_000_000_000_000_000
MAX_DURATION_S = 3600.0
MS = 1_000_000


@dataclass(frozen=True)
class _Sensor:
    rate_hz: float
    offset_ns: int  # log minus header
    kind: Kind
    columns: tuple[str, ...]
    dtype: npt.DTypeLike = np.float64
    clock_of: str | None = None  # two streams of one message have one set of stamps
    gap: tuple[float, float] | None = None  # start as a part of the duration, length in seconds


_JOINT_STREAM = "/joint_states.position"
_JOINTS = tuple(f"joint_{number}" for number in range(1, 8))
_SENSORS: dict[str, _Sensor] = {
    _JOINT_STREAM: _Sensor(500.0, 1 * MS, "vector", _JOINTS, gap=(0.4, 0.25)),
    "/arm/hand.orientation": _Sensor(500.0, 1 * MS, "quaternion_xyzw", ("x", "y", "z", "w")),
    "/imu.angular_velocity": _Sensor(200.0, 36 * MS, "vector", ("x", "y", "z")),
    "/imu.linear_acceleration": _Sensor(200.0, 36 * MS, "vector", ("x", "y", "z"), clock_of="/imu.angular_velocity"),
    "/camera.features": _Sensor(
        30.0, 45 * MS, "vector", tuple(f"feature_{number}" for number in range(64)), np.float32, gap=(0.7, 0.5)
    ),
    "/lidar.points": _Sensor(10.0, 20 * MS, "points", ("x", "y", "z"), np.float32),
    "/scene.image": _Sensor(15.0, 60 * MS, "image", ("frame",)),
}


class SyntheticRobot(OpenRecording):
    """A `Recording` with analytic truth, the same bytes for the same arguments.

    The clock "header" says when a sample was taken, which is the time that `truth` is a function of; "log" says when
    it arrived, `true_offset_ns` later and never earlier than that. Quaternions are recorded with a scalar of 0 or
    more, as many drivers do, so that their sign jumps when the hand turns past half a turn.

    Args:
        seed: Decides signals, jitter and noise.
        duration_s: Length of an episode in seconds; more than 0, at most 3600.
        episodes: How many; each has signals of its own.
        jitter: Standard deviation of a stamp around its place, as a part of the sensor's period: 0 to 0.3.
        has_gaps: Drop the joints for 0.25 s at 40 %, and the camera for 0.5 s at 70 % of the duration (in short
            episodes for at most a tenth of it).
        lidar_points: Rays of a scan; every tenth, by chance, gives no point.
        camera: Height and width of the pictures of "/scene.image", at least 24 x 32. None: there is no such stream.
    """

    format = "synthetic"

    def __init__(  # noqa: PLR0913  the extra ones are keyword-only
        self,
        seed: int = 0,
        *,
        duration_s: float = 20.0,
        episodes: int = 1,
        jitter: float = 0.1,
        has_gaps: bool = True,
        lidar_points: int = 2048,
        camera: tuple[int, int] | None = None,
    ) -> None:
        if seed < 0:
            raise ArgumentError(f"seed must be 0 or more, got {seed!r}")
        if not 0 < duration_s <= MAX_DURATION_S:
            raise ArgumentError(f"duration_s must be greater than 0 and at most {MAX_DURATION_S:g}, got {duration_s!r}")
        if episodes < 1 or lidar_points < 1:
            name, value = ("episodes", episodes) if episodes < 1 else ("lidar_points", lidar_points)
            raise ArgumentError(f"{name} must be 1 or more, got {value!r}")
        if not 0 <= jitter <= 0.3:
            raise ArgumentError(f"jitter must be 0 to 0.3 of a period, got {jitter!r}")
        super().__init__(f"synthetic:seed={seed}", (f"episode_{index:06d}" for index in range(episodes)))
        self.seed = seed
        self.duration_s = duration_s
        self.jitter = jitter
        self.has_gaps = has_gaps
        self._lidar_points = lidar_points
        self._room = Room.with_rays(lidar_points, seed)
        self.camera = checked_sides(camera)
        self._sensors = {name: each for name, each in _SENSORS.items() if self.camera or each.kind != "image"}

    def _read(self, index: int, streams: Collection[str] | None, span: Span) -> Episode:
        """Make one episode."""
        names = requested_streams(self.path, streams, self._sensors)
        made = {name: span.cut(self._stream(name, index)) for name in names}
        attributes = {"robot": "synthetic arm", "seed": self.seed, "duration_s": self.duration_s}
        return Episode(self.episode_names[index], made, self.path, attributes)

    def episode_sources(self, index: int) -> EpisodeSources:
        """No file: the arguments that decide an episode; see `NamesItsSources`."""
        settings = [self.seed, self.duration_s, self.jitter, self.has_gaps, self._lidar_points, *(self.camera or ())]
        return EpisodeSources((), {"format": self.format, "settings": settings, "episode": index})

    def truth(self, stream: str, times_ns: Int64, *, episode: int = 0) -> Float64:
        """The true values of a stream, [T, dim] float64, at any times on the header clock, [T] int64 ns.

        Quaternions have a scalar of 0 or more. Clouds and pictures are no values: see `scan` and `picture`.
        """
        self._check_episode(episode)
        sensor = self._sensor(stream)
        if sensor.kind in ("points", "image"):
            way = "scan(time_ns)" if sensor.kind == "points" else "picture(time_ns)"
            raise ArgumentError(f"{stream} holds {sensor.kind}, which have no value at a time; use {way}")
        seconds = (np.asarray(times_ns, dtype=np.int64) - START_NS) / 1e9
        if sensor.kind == "quaternion_xyzw":
            return Motion.from_seed(self._generator(stream, episode, "signal")).orientation(seconds)
        return Waves.from_seed(self._generator(stream, episode, "signal"), len(sensor.columns)).at(seconds)

    def scan(self, time_ns: int, *, episode: int = 0) -> Float64:
        """What the lidar would see at a time on the header clock if every ray came back: [lidar_points, 3] metres."""
        self._check_episode(episode)
        seen = self._room.seen_from(np.asarray([(time_ns - START_NS) / 1e9]), float(episode))
        return seen.reshape(-1, 3)

    def picture(self, time_ns: int, *, episode: int = 0) -> Uint8:
        """What the camera would see at a time on the header clock: [height, width, 3] uint8, red, green, blue."""
        self._check_episode(episode)
        self._sensor("/scene.image")
        return self._camera(episode).picture(time_ns - START_NS)

    def true_offset_ns(self, stream: str) -> int:
        """How much later than its header stamp a message of this stream is logged, at the least."""
        return self._sensor(stream).offset_ns

    def gap_ns(self, stream: str) -> tuple[int, int] | None:
        """First and last moment without samples of this stream, on the header clock; None where there is no gap."""
        gap = self._sensor(stream).gap
        if gap is None or not self.has_gaps:
            return None
        start_s = gap[0] * self.duration_s
        end_s = start_s + min(gap[1], 0.1 * self.duration_s)
        return START_NS + round(start_s * 1e9), START_NS + round(end_s * 1e9)

    def _generator(self, stream: str, episode: int, purpose: str) -> np.random.Generator:
        place = list(_SENSORS).index(stream)
        return np.random.default_rng([self.seed, episode, place, ("signal", "clock", "returns").index(purpose)])

    def _clocks(self, name: str, episode: int) -> dict[str, Int64]:
        sensor = self._sensor(name)
        source = sensor.clock_of or name
        generator = self._generator(source, episode, "clock")
        period_ns = 1e9 / sensor.rate_hz
        count = math.floor(self.duration_s * sensor.rate_hz) + 1
        # Three standard deviations of at most 0.3 periods could swap two samples; half a period cannot.
        wander = np.clip(generator.normal(0.0, self.jitter, count), -0.45, 0.45)
        wander[0] = 0.0
        header_ns = START_NS + np.rint((np.arange(count) + wander) * period_ns).astype(np.int64)
        delay_ns = np.rint(generator.exponential(0.02 * period_ns, count)).astype(np.int64)
        log_ns = np.maximum.accumulate(header_ns + sensor.offset_ns + delay_ns)
        gap = self.gap_ns(source)
        if gap is not None:
            is_kept = (header_ns < gap[0]) | (header_ns > gap[1])
            header_ns, log_ns = header_ns[is_kept], log_ns[is_kept]
        return {"header": header_ns, "log": log_ns}

    def _stream(self, name: str, episode: int) -> RecordedStream:
        sensor = self._sensor(name)
        clocks = self._clocks(name, episode)
        times_ns = clocks["header"]
        if sensor.kind == "image":
            return image_stream(name, self._pictures(name, times_ns, episode), clocks, "header")
        if sensor.kind != "points":
            values = self.truth(name, times_ns, episode=episode).astype(sensor.dtype)
            return RecordedStream(name, values, times_ns, clocks, "header", sensor.columns, sensor.kind)
        scans = self._room.seen_from((times_ns - START_NS) / 1e9, float(episode)).astype(sensor.dtype)
        came_back = self._generator(name, episode, "returns").random(scans.shape[:2]) < 0.9
        offsets = np.concatenate([[0], np.cumsum(came_back.sum(axis=1))]).astype(np.int64)
        return RecordedStream(name, scans[came_back], times_ns, clocks, "header", sensor.columns, sensor.kind, offsets)

    def _pictures(self, name: str, times_ns: Int64, episode: int) -> StillFrames:
        camera = self._camera(episode)

        def fetch(numbers: Int64) -> Iterator[Uint8]:
            self._check_episode(episode)
            return (camera.picture(since_ns) for since_ns in (times_ns[numbers] - START_NS).tolist())

        return StillFrames(self.path, f"stream {name} picture", len(times_ns), (camera.height, camera.width, 3), fetch)

    def _camera(self, episode: int) -> Camera:
        assert self.camera is not None  # the stream would not be there
        joints = Waves.from_seed(self._generator(_JOINT_STREAM, episode, "signal"), len(_JOINTS))
        return Camera(*self.camera, joints_at=lambda since_ns: joints.at(since_ns / 1e9))

    def _sensor(self, stream: str) -> _Sensor:
        if stream not in self._sensors:
            raise UnknownStreamError(f"the synthetic robot has no stream {stream!r}; it has {', '.join(self._sensors)}")
        return self._sensors[stream]
