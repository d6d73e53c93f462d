"""Files of results: whole, or what was there before; and a verdict that a full disk takes from nobody."""

import os
import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robocache.benchmarks.whole_file import write_whole
from robocache.cli.main import app
from robocache.errors import OutputError


@pytest.fixture
def full_disk(monkeypatch):
    """A disk on which a file may be begun."""

    def written(self, text, **_):
        with self.open("w") as file:
            file.write(text[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", written)


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path, full_disk):
    """Fails when the file itself is begun, or what was begun beside it stays."""
    path = tmp_path / "a.json"
    path.write_bytes(b"before")
    with pytest.raises(OutputError, match=re.escape(f"{path}: cannot be written (No space left on device); go away")):
        write_whole(path, "after that", remedy="go away")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_stays_a_pipe(tmp_path):
    """Fails when what is no file is replaced by one: as root, --out /dev/null would end the device."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(path, "through", remedy="")
        assert os.read(end, 99) == b"through"
    finally:
        os.close(end)
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_the_verdict_is_told_before_the_report_fails(tmp_path, full_disk):
    """Fails when the report is written first: a day's verdict would be lost with it."""
    report = tmp_path / "a.html"
    done = CliRunner().invoke(app, ["burn-in", "--seconds", "1", "--device", "cpu", "--report", str(report)])
    assert done.exit_code == 2
    assert "burn-in inconclusive" in done.stdout
    assert f"error: {report}: cannot be written (No space left on device); name another file" in done.stderr
    assert list(tmp_path.iterdir()) == []
