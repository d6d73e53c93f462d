"""A data set with fewer episodes than it declares is damaged: TFRecord itself cannot tell.

Each of these edits was tried, and made a test fail: no comparison; the count of another split taken.
"""

import json

import pytest

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers import open_recording, open_recordings

from .conftest import read_all, recording  # noqa: TID252 -- tests are not an installed package
from .test_rlds import BRIDGE, episode_features, write  # noqa: TID252

NAME, ONLY = "robot-train.tfrecord-00001-of-00002", "robot-train.tfrecord-00000-of-00001"


def write_info(folder, train, val=("9", "9")):
    splits = [{"name": "val", "shardLengths": list(val)}, {"name": "train", "shardLengths": list(train)}]
    (folder / "dataset_info.json").write_text(json.dumps({"splits": splits}))


def test_a_real_file_cut_between_two_records_is_noticed(tmp_path):
    folder = recording(BRIDGE)
    [file] = folder.glob("*.tfrecord*")
    data = file.read_bytes()
    first = 16 + int.from_bytes(data[:8], "little")
    (tmp_path / file.name).write_bytes(data[:first])
    with open_recording(tmp_path, rate_hz=5) as opened:
        assert len(opened.episode_names) == 1
    (tmp_path / "dataset_info.json").write_bytes((folder / "dataset_info.json").read_bytes())
    error = read_all(tmp_path, rate_hz=5)
    assert isinstance(error, DamagedRecordingError)
    assert "has 1 records, but dataset_info.json beside it says 25" in str(error)


@pytest.mark.parametrize("lengths", [("7", "2"), ("7",), ("7", 2), (None, None), ()], ids=repr)
def test_what_is_declared_of_this_file_or_not_at_all(tmp_path, lengths):
    write_info(tmp_path, lengths)
    path = write(tmp_path / NAME, episode_features(), episode_features())
    with open_recording(path, rate_hz=5) as opened:
        assert len(opened.episode_names) == 2


def test_another_number_is_damage(tmp_path):
    write_info(tmp_path, ("7", "3"))
    with pytest.raises(DamagedRecordingError, match=r"has 2 records, but dataset_info\.json beside it says 3"):
        open_recording(write(tmp_path / NAME, episode_features(), episode_features()), rate_hz=5)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 200_000, "9" * 5000, "\xff"], ids=["none", "cut", "deep", "long", "raw"]
)
def test_metadata_that_are_no_json(tmp_path, text):
    (tmp_path / "dataset_info.json").write_bytes(text.encode("latin-1"))
    write(tmp_path / ONLY, episode_features())
    error = read_all(tmp_path, rate_hz=5)
    assert isinstance(error, DamagedRecordingError)
    assert "dataset_info.json: cannot be understood" in str(error)


def test_metadata_of_any_size(tmp_path):
    with (tmp_path / "dataset_info.json").open("wb") as file:
        file.truncate(2**40)
    write(tmp_path / ONLY, episode_features())
    assert isinstance(read_all(tmp_path, rate_hz=5), RecordingLimitError)


@pytest.mark.parametrize("document", [[], 1, {"splits": 1}, {"splits": [1]}, {"splits": [{"name": "train"}]}], ids=repr)
def test_metadata_of_another_shape_say_nothing(tmp_path, document):
    (tmp_path / "dataset_info.json").write_text(json.dumps(document))
    with open_recording(write(tmp_path / NAME, episode_features()), rate_hz=5) as opened:
        assert len(opened.episode_names) == 1


def test_a_file_that_is_not_there_is_missed(tmp_path):
    """A download that ended early. Fails where the files of a folder are read without a look at their names."""
    for split, number in (("train", 0), ("train", 2), ("val", 1)):
        write(tmp_path / f"robot-{split}.tfrecord-{number:05d}-of-00003", episode_features())
    with pytest.raises(
        DamagedRecordingError, match=r"2 of the 3 files robot-train\.tfrecord-\*, number 1 is not there"
    ):
        open_recording(tmp_path, rate_hz=5)
    with open_recordings(tmp_path / "robot-train*", rate_hz=5) as opened:
        assert len(opened.episode_names) == 2
