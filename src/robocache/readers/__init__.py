"""Readers: bytes become records, on the host, without a GPU.

`open_recording(path)` recognises a format by its content and gives a `Recording`; `read_episode` gives an `Episode` of
`RecordedStream`s with int64 nanoseconds and every clock the file has. One format is one module, imported (with the
library it needs) when a file of that format is opened.

A file is hostile until it is read: declared sizes are checked against the file and against `Limits` before they are
believed, and whatever is wrong with it is one `RecordingError` that names the file and the place.
"""

from robocache.readers.decoders import limit_open_decoders
from robocache.readers.limits import Limits
from robocache.readers.recognise import open_recording
from robocache.readers.recording import Recording
from robocache.readers.several import open_recordings
from robocache.readers.statistics import StreamStatistics, stream_statistics
from robocache.readers.synthetic import SyntheticRobot

__all__ = [
    "Limits",
    "Recording",
    "StreamStatistics",
    "SyntheticRobot",
    "limit_open_decoders",
    "open_recording",
    "open_recordings",
    "stream_statistics",
]
