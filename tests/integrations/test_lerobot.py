"""The drop-in dataset beside direct reads by pyarrow and PyAV."""

import json
import multiprocessing
import pickle
import shutil

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from robocache.errors import ArgumentError, DamagedRecordingError, RecordingNotFoundError, UnknownStreamError
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import CAMERA, FPS, LENGTHS, recording  # noqa: TID252 -- tests are not an installed package

G1_CAMERA = "observation.images.cam_high"


def opened(root, **arguments):
    return LeRobotDataset("local/set", root=root, **arguments)


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").transpose(2, 0, 1) for frame in container.decode(video=0)]


def test_columns_are_what_pyarrow_reads(small):
    """Fails when a row is taken from elsewhere, or a shape (1,) keeps its axis."""
    table = pq.read_table(small / "data/chunk-000/file-000.parquet").to_pydict()
    dataset = opened(small)
    batch = dataset.batch([3, 0, 23, -1])
    for name in ("observation.state", "action", "observation.counts", "observation.wide", "next.done", "timestamp"):
        expected = torch.tensor([table[name][row] for row in (3, 0, 23, 23)])
        assert torch.equal(batch[name], expected), name
    assert batch["task"] == ["push", "push", "push", "push"]
    assert dataset[8]["task"] == "pick"
    assert (len(dataset), dataset.num_episodes, dataset.fps) == (sum(LENGTHS), 3, FPS)
    with pytest.raises(IndexError, match="indices must be -24 to 23, got 24 to 24"):
        dataset[24]


def test_windows_stay_inside_their_episode(small):
    """Fails when a window is held at the dataset's edge instead of the episode's, or a pad is off by one."""
    table = pq.read_table(small / "data/chunk-000/file-000.parquet").to_pydict()
    offsets = [-2, 0, 1, 3]
    batch = opened(small, delta_timestamps={"action": [k / FPS for k in offsets]}).batch(range(sum(LENGTHS)))
    starts = np.cumsum(LENGTHS) - LENGTHS
    for row, episode in enumerate(table["episode_index"]):
        first, last = starts[episode], starts[episode] + LENGTHS[episode] - 1
        rows = [min(max(row + k, first), last) for k in offsets]
        assert batch["action"][row].tolist() == np.float32([table["action"][one] for one in rows]).tolist()
        assert batch["action_is_pad"][row].tolist() == [one != row + k for one, k in zip(rows, offsets, strict=True)]


def test_frames_are_what_pyav_decodes(small):
    """Fails when a frame is that of a neighbour or of another episode, in whatever order they are asked for."""
    frames = frames_of(small / f"videos/{CAMERA}/chunk-000/file-000.mp4")
    order = [20, 3, 3, 6, 7, 19, 0, 23]
    batch = opened(small).batch(order)[CAMERA]
    assert batch.dtype == torch.float32
    for place, row in enumerate(order):
        assert torch.equal(batch[place], torch.from_numpy(frames[row]) / 255.0), row


@pytest.mark.parametrize("name", ["g1_lerobot_v30", "g1_lerobot_v21"])
def test_real_recordings_in_both_versions(name):
    """Fails when v2.1's paths, tasks or one video an episode are read as v3.0's."""
    root = recording(name)
    dataset = opened(root, episodes=[1], delta_timestamps={"action": [0.0, 0.5]}, tolerance_s=1e-3)
    assert (dataset.num_episodes, dataset.num_frames) == (1, 277)
    item = dataset[270]
    table = pq.read_table(next(iter(sorted((root / "data").rglob("*.parquet"))[-1:]))).to_pandas()
    rows = table[table.episode_index == 1]
    np.testing.assert_array_equal(item["observation.state"], rows["observation.state"].iloc[270])
    np.testing.assert_array_equal(item["action"][1], rows["action"].iloc[276])
    assert item["action_is_pad"].tolist() == [False, True]
    assert item["task"] == "Pick up the yellow bottle on the table."
    video = sorted((root / "videos").rglob("*.mp4"))[-1]
    number = 270 if name.endswith("21") else 221 + 270
    with av.open(str(video)) as container:
        frame = next(f for k, f in enumerate(container.decode(video=0)) if k == number)
        expected = torch.from_numpy(frame.to_ndarray(format="rgb24").transpose(2, 0, 1)) / 255.0
    assert torch.equal(item[G1_CAMERA], expected)
    assert dataset.meta.stats["action"]["mean"].shape == (26,)


def test_statistics_of_v21_are_those_of_all_frames():
    """Fails when episodes are averaged without their counts, or variances without the means' own."""
    root = recording("g1_lerobot_v21")
    stats = opened(root).meta.stats
    tables = [pq.read_table(path).to_pandas() for path in sorted((root / "data").rglob("*.parquet"))]
    values = np.concatenate([np.stack(table["action"]) for table in tables]).astype(np.float64)
    for name, expected in (("mean", values.mean(0)), ("std", values.std(0)), ("min", values.min(0))):
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-4, atol=1e-5)
    assert stats["action"]["count"].tolist() == [498]


def test_the_data_loader_takes_a_batch_at_once(small):
    """Fails when the batch that is passed through differs from items that were collated one by one."""
    dataset = opened(small, delta_timestamps={"action": [0.0, 0.1], CAMERA: [-1 / FPS, 0.0]})
    whole = list(DataLoader(dataset, batch_size=7))
    one_by_one = list(DataLoader([dataset[row] for row in range(len(dataset))], batch_size=7))
    assert len(whole) == len(one_by_one) == 4
    for found, expected in zip(whole, one_by_one, strict=True):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same = found[key] == value
            assert bool(same.all() if isinstance(same, torch.Tensor) else same), key
    some = next(iter(DataLoader(Subset(dataset, [5, 9]), batch_size=2, collate_fn=list)))
    assert [int(item["index"]) for item in some] == [5, 9]
    mixed = torch.utils.data.default_collate(list(some))
    assert mixed["index"].tolist() == [5, 9]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_after_use_in_the_parent(small, method):
    """Fails when a worker inherits a decoder half used, or the dataset cannot be pickled."""
    dataset = opened(small)
    assert multiprocessing.get_start_method(allow_none=True) in (None, "fork", "forkserver", "spawn")
    before = dataset.batch(range(24))
    loader = DataLoader(dataset, batch_size=8, num_workers=2, multiprocessing_context=method, timeout=120)
    found = torch.cat([batch[CAMERA] for batch in loader])
    assert torch.equal(found, before[CAMERA])


def test_nothing_stays_open(small):
    """Fails when a decoder, or its file, is kept after a batch."""
    dataset = opened(small)
    dataset.batch(range(24))
    before = psutil.Process().num_fds()
    for row in range(24):
        dataset[row]
    assert psutil.Process().num_fds() == before


def test_a_copy_by_pickle_is_the_same(small):
    dataset = opened(small, delta_timestamps={"action": [0.0, 0.51]})
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.batch(range(24))["action"], dataset.batch(range(24))["action"])


def test_image_transforms_see_each_item(small):
    dataset = opened(small, image_transforms=lambda image: image.mean(dim=(1, 2)))
    assert dataset.batch([1, 2])[CAMERA].shape == (2, 3)


def test_what_has_no_meaning_is_refused(small, tmp_path):
    """Fails when an argument is swallowed that would have done something in LeRobot."""
    for arguments, message in (
        ({"force_cache_sync": True}, "never downloads"),
        ({"batch_encoding_size": 2}, "is for recording"),
        ({"video_backend": "video_reader"}, "video_backend must be one of"),
        ({"cache": tmp_path}, "cache needs size"),
        ({"size": (0, 4)}, "size must be"),
        ({"delta_timestamps": {"actoin": [0.0]}}, "delta_timestamps names 'actoin'"),
        ({"delta_timestamps": {"action": []}}, "one or more"),
    ):
        with pytest.raises(ArgumentError, match=message):
            opened(small, **arguments)
    opened(small, batch_encoding_size=1, vcodec="libsvtav1", revision="main", download_videos=False)
    with pytest.raises(TypeError, match="unexpected argument 'polices'"):
        opened(small, polices={})
    with pytest.raises(UnknownStreamError, match="there is no episode 3"):
        opened(small, episodes=[3])
    with pytest.raises(RecordingNotFoundError, match="hf download --repo-type dataset local/set"):
        opened(tmp_path / "nowhere")


def test_damage_is_named(small, tmp_path):
    """Fails when a lost video, a cut one, or rows that meta/ does not list pass in silence."""
    root = shutil.copytree(small, tmp_path / "set")
    video = root / f"videos/{CAMERA}/chunk-000/file-000.mp4"
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    dataset = opened(root)
    with pytest.raises(DamagedRecordingError, match=r"file-000\.mp4 at byte 894: .*truncated"):
        dataset.batch(range(24))
    video.unlink()
    with pytest.raises(RecordingNotFoundError, match=r"file-000\.mp4: is missing"):
        dataset[0]
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["shape"] = [3]
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DamagedRecordingError, match="48 numbers in 24 rows, not 3 a row"):
        opened(root)
