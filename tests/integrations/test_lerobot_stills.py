"""The drop-in dataset with images in its Parquet files, beside Pillow, torchvision's conversion and LeRobot itself."""

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data._utils.collate import default_collate

import robocache as rc
from robocache.errors import ArgumentError, DamagedRecordingError, RecordingLimitError
from robocache.integrations.lerobot import LeRobotDataset

from .conftest import FPS, LENGTHS, write_columns  # noqa: TID252 -- tests are not an installed package
from .test_lerobot_peer import check, theirs  # noqa: F401, TID252

TOP, WRIST = "observation.images.top", "observation.images.wrist"
SIDES = {TOP: (32, 48), WRIST: (24, 24)}
DATA = "data/chunk-000/file-000.parquet"
ENDS = np.cumsum(LENGTHS)
STARTS = ENDS - LENGTHS
WRITING = Path(__file__).with_name("lerobot_writing.py")


def encoded(pixels, form):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def write_stills(root, version="v3.0"):
    """Three episodes with two cameras, a row group each, or a file each."""
    numbers, rows = np.random.default_rng(4), sum(LENGTHS)
    state = numbers.normal(size=(rows, 2)).astype(np.float32)
    features = {"observation.state": {"dtype": "float32", "shape": [2], "names": None}}
    columns = {"observation.state": pa.array(list(state), pa.list_(pa.float32()))}
    for name, form in ((TOP, "PNG"), (WRIST, "JPEG")):
        pixels = numbers.integers(0, 256, (rows, *SIDES[name], 3), np.uint8)
        images = [{"bytes": encoded(image, form), "path": f"{row}.png"} for row, image in enumerate(pixels)]
        columns[name] = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        features[name] = {"dtype": "image", "shape": [*SIDES[name], 3], "names": ["height", "width", "channels"]}
    write_columns(root, features, columns)
    table = pq.read_table(root / DATA)
    parts = [table.slice(start, length) for start, length in zip(STARTS, LENGTHS, strict=True)]
    if version == "v3.0":
        with pq.ParquetWriter(root / DATA, table.schema) as writer:
            for part in parts:
                writer.write_table(part)
        return root
    (root / DATA).unlink()
    (root / "meta/tasks.parquet").unlink()
    for index, part in enumerate(parts):
        pq.write_table(part, root / f"data/chunk-000/episode_{index:06d}.parquet")
    for file in (root / "meta").rglob("*.parquet"):
        file.unlink()
    tasks = [{"task_index": number, "task": task} for number, task in enumerate(("pick", "push"))]
    said = [{"episode_index": index, "length": length, "tasks": ["push"]} for index, length in enumerate(LENGTHS)]
    for name, lines in (("tasks", tasks), ("episodes", said)):
        (root / f"meta/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"codebase_version": version, "data_path": path}))
    return root


@pytest.fixture(scope="module", params=["v3.0", "v2.1"])
def stills(request, tmp_path_factory):
    return write_stills(tmp_path_factory.mktemp("stills") / "set", request.param)


def opened(root, **arguments):
    return LeRobotDataset("local/set", root=root, **arguments)


def images_of(root, name):
    """[row, 3, height, width] float32, as torchvision's ToTensor makes them of what Pillow decodes."""
    table = pd.concat([pd.read_parquet(file) for file in sorted((root / "data").rglob("*.parquet"))])
    pixels = [np.array(Image.open(io.BytesIO(image["bytes"]))) for image in table[name]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)


def test_items_are_what_pillow_decodes(stills):
    """Catches images counted from the row group or from the episode, and one camera taken for the other."""
    dataset = opened(stills)
    order = [20, 3, 3, 6, 7, 19, 0, -1]
    batch = dataset.batch(order)
    for name in SIDES:
        assert batch[name].dtype == torch.float32
        assert torch.equal(batch[name], images_of(stills, name)[order])
        assert torch.equal(dataset[20][name], batch[name][0])
    assert list(dataset[0])[:3] == ["observation.state", TOP, WRIST]
    small = opened(stills, episodes=[2], return_uint8=True).batch([0, 6])[WRIST]
    assert torch.equal(small, (images_of(stills, WRIST)[[17, 23]] * 255).round().to(torch.uint8))


def test_windows_of_images_stay_inside_their_episode(stills):
    """Catches a window held at the file's edge, a pad off by one, and one delta that loses its axis."""
    offsets = [-2, 0, 1]
    dataset = opened(stills, delta_timestamps={TOP: [k / FPS for k in offsets], WRIST: [1 / FPS]})
    expected = {name: images_of(stills, name) for name in SIDES}
    batch = dataset.batch(range(sum(LENGTHS)))
    assert batch[TOP].shape == (24, 3, 3, 32, 48)
    assert batch[WRIST].shape == (24, 1, 3, 24, 24)
    for row in range(sum(LENGTHS)):
        episode = int(np.searchsorted(ENDS, row, side="right"))
        for name, deltas in ((TOP, offsets), (WRIST, [1])):
            wanted = [row + delta for delta in deltas]
            held = [min(max(one, STARTS[episode]), ENDS[episode] - 1) for one in wanted]
            assert torch.equal(batch[name][row], expected[name][held])
            assert batch[f"{name}_is_pad"][row].tolist() == [a != b for a, b in zip(held, wanted, strict=True)]


@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_the_data_loader_takes_it(stills, method):
    """Catches a file that a worker shares with its parent, and a dataset that cannot be pickled."""
    dataset = opened(stills, delta_timestamps={TOP: [0.0, 1 / FPS]})
    items = [dataset[row] for row in range(len(dataset))]
    options = {} if method is None else {"num_workers": 2, "multiprocessing_context": method, "timeout": 120}
    found = list(DataLoader(dataset, batch_size=8, **options))
    for batch, first in zip(found, (0, 8, 16), strict=True):
        expected = default_collate(items[first : first + 8])
        assert list(batch) == list(expected)
        for name in (TOP, WRIST, f"{TOP}_is_pad", "observation.state"):
            assert torch.equal(batch[name], expected[name]), name


def test_a_cache_of_both_cameras(stills, tmp_path):
    """Catches a shard's key without the camera: both are columns of one file. The loader gets the same frames."""
    plain = opened(stills, size=(16, 16), return_uint8=True).batch(range(24))
    cached = opened(stills, size=(16, 16), return_uint8=True, cache=tmp_path)
    batch = cached.batch(range(24))
    assert not torch.equal(batch[TOP], batch[WRIST])
    with rc.Loader(cached.aligned(), batch_size=24, memory="64MiB", shuffle=False) as loader:
        loaded = next(iter(loader))
    for name in SIDES:
        assert torch.equal(batch[name], plain[name])
        assert torch.equal(loaded[name].reshape(plain[name].shape), plain[name])


def test_nothing_stays_open(stills):
    """Catches columns that are kept open for every file and batch."""
    dataset = opened(stills)
    dataset.batch(range(24))
    before = psutil.Process().num_fds()
    for row in range(24):
        dataset[row]
    assert psutil.Process().num_fds() == before
    del dataset
    assert psutil.Process().num_fds() < before


def test_what_is_no_picture_is_named(tmp_path):
    """Catches an image of another size that is passed on, and grey ones that become three channels in silence."""
    root = write_stills(tmp_path / "set")
    table = pq.read_table(root / DATA)
    column = table[TOP].to_pylist()
    column[9] = {"bytes": encoded(np.zeros((4, 4, 3), np.uint8), "PNG"), "path": ""}
    pq.write_table(table.set_column(1, TOP, pa.array(column)), root / DATA)
    dataset = opened(root)
    dataset.batch([8, 10])
    with pytest.raises(DamagedRecordingError, match=r"rows from 7 on, image 2: has 4 x 4 pixels, not 48 x 32"):
        dataset[9]
    info = json.loads((root / "meta/info.json").read_text())
    for shape, error, says in (
        ([32, 48, 1], ArgumentError, "only those of three channels"),
        (["a", 48, 3], DamagedRecordingError, "not a dtype and a shape"),
        ([60000, 60000, 3], RecordingLimitError, "has 60000 x 60000 pixels, and 16777216 are allowed"),
    ):
        info["features"][TOP]["shape"] = shape
        (root / "meta/info.json").write_text(json.dumps(info))
        with pytest.raises(error, match=says):
            opened(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"delta_timestamps": {"top": [-1 / 30, 0, 2 / 30], "wrist": [0.0], "observation.state": [0.0]}},
        {"episodes": [1], "delta_timestamps": {"wrist": [-0.1, 0.0]}},
    ],
    ids=["plain", "windows", "episodes"],
)
def test_items_of_what_lerobot_wrote_are_theirs(theirs, tmp_path, arguments):  # noqa: F811
    """Catches a key, shape, dtype, edge or bit that differs from LeRobot's own item."""
    root = tmp_path / "set"
    command = [os.environ["ROBOCACHE_LEROBOT_PYTHON"], str(WRITING), str(root)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, check=True, capture_output=True, timeout=280, env=environment)
    ours = opened(root, tolerance_s=1e-3, **arguments)
    check(theirs(root, None, **arguments), ours, range(len(ours)))
