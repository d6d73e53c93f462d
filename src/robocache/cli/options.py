"""Options that several commands have, each said once."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Span(str, Enum):  # noqa: UP042  typer shows the values of this kind of enum
    """Where the clock runs."""

    overlap = "overlap"
    union = "union"


RecordingPath = Annotated[
    Path,
    typer.Argument(
        help="An MCAP, ROS 1 bag or HDF5 file, a CARMEN log; a rosbag2, RLDS, Zarr or LeRobot folder; or many: "
        "a folder of them, 'runs/*.mcap'.",
        show_default=False,
    ),
]
FrameRate = Annotated[
    str | None, typer.Option(metavar="HZ", help="Frames a second: 50, 29.97, 30000/1001.", show_default=False)
]
SpecFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Clock, streams and policies, as inspect --suggest writes them.")
]
StreamNames = Annotated[
    str | None, typer.Option(help="Streams to take, separated by commas; all of them if not given.")
]
ClockSpan = Annotated[Span | None, typer.Option(help="Where all streams have data, as if not given, or where any has.")]
SourceRate = Annotated[
    float | None,
    typer.Option(metavar="HZ", help="Rate of an RLDS or Zarr data set, or of HDF5 datasets without times."),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
