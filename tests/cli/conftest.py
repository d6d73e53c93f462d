from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from mcap_ros2.writer import Writer
from typer.testing import CliRunner

from robocache.cli.main import app

POINT_CLOUD = """std_msgs/Header header
uint32 height
uint32 width
sensor_msgs/PointField[] fields
bool is_bigendian
uint32 point_step
uint32 row_step
uint8[] data
bool is_dense
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
================================================================================
MSG: sensor_msgs/PointField
string name
uint32 offset
uint8 datatype
uint32 count
"""
FLOAT32 = 7


@pytest.fixture(scope="session")
def scans():
    """Twenty scans, ten a second, in [-2, 2) metres."""
    generator = np.random.default_rng(0)
    return [generator.uniform(-2, 2, (100 + scan, 3)).astype("<f4") for scan in range(20)]


@pytest.fixture(scope="session")
def cloud_recording(scans, tmp_path_factory):
    """The scans as an MCAP file with checksums, written by the library of the format's own makers."""
    path = tmp_path_factory.mktemp("cloud") / "cloud.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        schema = writer.register_msgdef("sensor_msgs/msg/PointCloud2", POINT_CLOUD)
        for number, points in enumerate(scans):
            stamp = 1_700_000_000 * 10**9 + number * 10**8
            fields = [
                {"name": name, "offset": 4 * axis, "datatype": FLOAT32, "count": 1} for axis, name in enumerate("xyz")
            ]
            message = {
                "header": {"stamp": {"sec": stamp // 10**9, "nanosec": stamp % 10**9}, "frame_id": "lidar"},
                "height": 1,
                "width": len(points),
                "fields": fields,
                "is_bigendian": False,
                "point_step": 12,
                "row_step": 12 * len(points),
                "data": points.tobytes(),
                "is_dense": True,
            }
            writer.write_message("/points", schema, message, log_time=stamp + 5_000_000, publish_time=stamp)
        writer.finish()
    return path


@pytest.fixture(scope="session")
def run():
    """Run a command that must succeed, in this process."""

    def succeed(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result

    return succeed


@pytest.fixture(scope="session")
def document(run):
    """Run a command with --json; give the one JSON document, and nothing else, on stdout; strict: no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return lambda *arguments: json.loads(run(*arguments, "--json").stdout, parse_constant=refuse)


class Page(HTMLParser):
    """Checks that a page is well formed and loads nothing; collects its text and pictures."""

    VOID = frozenset({"meta"})

    def __init__(self):
        super().__init__()
        self.open, self.text, self.titles, self.tags = [], "", [], []
        self.cells, self.tables = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                assert value.startswith("data:image/png;base64,"), f"{tag} loads {value}"
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.cells = []
        elif tag == "tr":
            self.cells.append([])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"
        if tag == "table":
            header, *rows = self.cells
            self.tables.append([dict(zip(header, row, strict=True)) for row in rows])

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "title":
            self.titles.append(data)
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1].append(data)


@pytest.fixture
def checked_page():
    """Parse a report: well formed, alone, every chart with a title, no number that is none."""

    def check(path):
        page = Page()
        text = path.read_text(encoding="utf-8")
        page.feed(text)
        assert page.open == []
        assert "script" not in page.tags
        assert "url(" not in text
        assert re.search(r"[=\"\s]nan\b", text) is None, "a number that is none has been drawn"
        assert page.tags.count("svg") == len(page.titles) - 1 - text.count('class="gap"'), "a chart without a title"
        return page

    return check
