from __future__ import annotations

from pathlib import Path

import pytest

from robocache.align.staging import SUMMARY, check_output, staged_folder, written_by
from robocache.errors import OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_raise(error, folder, **how):
    with staged_folder(folder, **how) as staging:
        (staging / "a").write_text("1")
        raise error


def ours(folder, command="align"):
    folder.mkdir()
    (folder / SUMMARY).write_text(f'{{"command": "{command}"}}')
    return folder


def test_a_folder_appears_whole(tmp_path):
    with staged_folder(tmp_path / "new" / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "new" / "deep" / "out").exists()
    assert (tmp_path / "new" / "deep" / "out" / "a").read_text() == "1"
    assert names(tmp_path / "new" / "deep") == ["out"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_nothing_not_even_the_parents(tmp_path, interruption):
    with pytest.raises(interruption):
        write_and_raise(interruption, tmp_path / "new" / "out")
    assert names(tmp_path) == []


def test_what_was_there_survives_a_block_that_fails(tmp_path):
    before = ours(tmp_path / "out")
    with pytest.raises(ValueError, match="no"):
        write_and_raise(ValueError("no"), before, overwrite=True)
    assert names(tmp_path) == ["out"]
    assert names(before) == [SUMMARY]


def test_what_was_there_is_replaced_when_that_is_wanted(tmp_path):
    before = ours(tmp_path / "out")
    with staged_folder(before, overwrite=True) as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path) == ["out"]
    assert names(before) == ["a"]


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    with staged_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    assert names(tmp_path / "out") == ["a"]


def test_a_folder_that_is_somebody_elses_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"home: exists, and RoboCache did not write it .* name a new folder$"):
        check_output(tmp_path / "home", overwrite=True)


def test_refusals_name_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(OutputError, match=r"out: exists; name a new folder, or replace it with --overwrite$"):
        check_output(ours(tmp_path / "out"), overwrite=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file: is not a folder; name a new folder$"):
        check_output(tmp_path / "file", overwrite=True)
    with (
        pytest.raises(
            OutputError, match=r"file/out: cannot be written \(Not a directory\); name a folder that you may"
        ),
        staged_folder(tmp_path / "file" / "out"),
    ):
        pass
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"dangling: is not a folder"):
        check_output(tmp_path / "dangling", overwrite=False)


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(OutputError, match=r"out: cannot be written \(No space left on device\); free some space"),
        staged_folder(tmp_path / "out") as folder,
        (folder / "a").open("w"),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
    assert names(tmp_path) == []


def test_the_summary_says_which_command_wrote_a_folder(tmp_path):
    assert written_by(ours(tmp_path / "out", "demo")) == "demo"
    assert written_by(tmp_path / "none") is None
    (tmp_path / "out" / SUMMARY).write_text("{")
    assert written_by(tmp_path / "out") is None
