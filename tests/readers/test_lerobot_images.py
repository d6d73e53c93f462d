"""Images in the Parquet files of LeRobot datasets: each is what pyarrow and Pillow make of it, and no more is read."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robocache.errors import ClosedError, DamagedRecordingError, RecordingLimitError
from robocache.readers import Limits, open_recording
from robocache.readers.parquet_values import _hybrid

from .image_recordings import (  # noqa: TID252 -- tests are not an installed package
    CAMERAS,
    as_v21,
    embedded,
    write_lerobot_images,
)
from .test_images import PICTURES, by_pillow, encoded, png_of  # noqa: TID252
from .test_lerobot import DATA, LENGTHS, replace_column  # noqa: TID252

TOP, WRIST = CAMERAS
LEROBOT = os.environ.get("ROBOCACHE_LEROBOT_PYTHON")
WRITING = Path(__file__).parents[1] / "integrations/lerobot_writing.py"
DUMP = WRITING.with_name("lerobot_dump.py")


def expected_of(root):
    """By episode and camera: the images as other programs read them."""
    rows = [row for file in sorted(root.glob("data/*/*")) for row in pq.read_table(file).to_pylist()]
    return {
        (episode, camera): np.array([
            by_pillow(row[camera]["bytes"]) for row in rows if row["episode_index"] == episode
        ])
        for episode in range(2) for camera in CAMERAS
    }  # fmt: skip


def assert_as_expected(root):
    with open_recording(root) as opened:
        for (index, camera), expected in expected_of(root).items():
            episode = opened.read_episode(index)
            assert list(episode.streams) == ["observation.state", *CAMERAS]
            assert episode.attributes["skipped"] == {}
            stream = episode.streams[camera]
            assert (stream.kind, stream.frames.shape, len(stream.frames)) == ("image", (12, 16, 3), LENGTHS[index])
            np.testing.assert_array_equal(stream.times_ns, episode.streams["observation.state"].times_ns)
            np.testing.assert_array_equal(stream.frames.read(stream.values[:, 0]), expected)
            rows = np.array([2, 0, 2, 1])
            np.testing.assert_array_equal(stream.frames.read(rows), expected[rows])
            assert list(opened.read_episode(index, [camera], start_ns=30_000_000).streams) == [camera]
    with pytest.raises(ClosedError):
        stream.frames.read(rows)


OPTIONS = [
    *({"compression": codec} for codec in ("snappy", "zstd", "gzip", "brotli", "lz4", "none")),
    *({"data_page_version": "2.0", "compression": codec} for codec in ("snappy", "none")),
    {"use_dictionary": False, "data_page_size": 1, "write_batch_size": 2},
    {"use_dictionary": False, "data_page_version": "2.0", "row_group_size": 2},
    {"dictionary_pagesize_limit": 1, "write_batch_size": 3, "write_page_checksum": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_images_are_what_pyarrow_and_pillow_read(tmp_path, options, version):
    """Catches rows counted from the row group instead of the file, and a dictionary kept for the next row group."""
    root = write_lerobot_images(tmp_path / "set", **(options if version == "v3.0" else {}))
    assert_as_expected(as_v21(root, **options) if version == "v2.1" else root)


@pytest.mark.skipif(LEROBOT is None, reason="set ROBOCACHE_LEROBOT_PYTHON to a Python with LeRobot 0.4.4")
def test_a_dataset_that_lerobot_wrote_is_what_it_reads(tmp_path):
    root, request, out = tmp_path / "set", tmp_path / "request.json", tmp_path / "items.npz"
    request.write_text(json.dumps({"arguments": {"root": str(root)}, "indices": None}))
    for command in ([WRITING, root], [DUMP, request, out]):
        subprocess.run([LEROBOT, *map(str, command)], check=True, capture_output=True, timeout=300)
    with open_recording(root) as opened:
        for name in ("top", "wrist"):
            streams = [opened.read_episode(index).streams[name] for index in range(2)]
            found = np.concatenate([stream.frames.read(stream.values[:, 0]) for stream in streams])
            with np.load(out) as items:
                expected = [items[f"{row}/frames/{name}"] for row in range(12)]
            np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize("bits", [0, 1, 3, 7, 12, 20])
def test_packed_numbers_and_runs(bits):
    """Judged by pyarrow's own writing of dictionaries of 2**bits values, in pages of their indices."""
    randomly = np.random.default_rng(bits)
    numbers = np.repeat(randomly.integers(0, 2**bits, 40), randomly.integers(1, 30, 40))
    sink = pa.BufferOutputStream()
    from robocache.readers.parquet_pages import DATA, chunk_pages

    array = pa.DictionaryArray.from_arrays(numbers.astype(np.int32), [b"%07d" % at for at in range(2**bits)])
    pq.write_table(pa.table({"a": array.cast(pa.binary())}), sink, compression="none")
    data = sink.getvalue().to_pybytes()
    file = pq.ParquetFile(pa.BufferReader(data))
    pages = list(
        chunk_pages(pa.PythonFile(pa.BufferReader(data)), Path("a"), file.metadata.row_group(0).column(0), Limits())
    )
    page = next(page for page in pages if page.kind == DATA)
    assert page.values == len(numbers)
    held = memoryview(data)[page.offset : page.offset + page.stored]
    levels = 4 + int.from_bytes(held[:4], "little")
    order = list(dict.fromkeys(numbers.tolist()))
    found = _hybrid(held[levels + 1 :], held[levels], page.values)
    assert [order[at] for at in found] == numbers.tolist()


def bytes_read():
    line = Path("/proc/self/io").read_text().splitlines()[0]
    return int(line.split()[1])


def test_no_more_is_read_than_the_page_of_an_image(tmp_path):
    """Catches a row group, or the file, read for one image of it."""
    root = write_lerobot_images(tmp_path / "set")
    table = pq.read_table(root / DATA)
    noise = np.random.default_rng(0)
    images = [encoded(noise.integers(0, 256, (300, 400, 3), np.uint8), "PNG") for _ in range(8)]
    table = table.set_column(table.column_names.index(TOP), TOP, embedded(images)).drop_columns([WRIST])
    info = json.loads((root / "meta/info.json").read_text())
    del info["features"][WRIST]
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(table, root / DATA, use_dictionary=False, data_page_size=1, write_batch_size=1)
    with open_recording(root) as opened:
        begun = bytes_read()
        numbers = opened.read_episode(1, ["observation.state"])
        assert bytes_read() - begun < len(images[0]), numbers
        stream = opened.read_episode(1).streams[TOP]
        begun = bytes_read()
        last = stream.frames.read(np.array([4]))
        assert bytes_read() - begun < 1.5 * len(images[-1])
        begun = bytes_read()
        stream.frames.read(np.array([4]))
        assert bytes_read() == begun or bytes_read() - begun < 1000  # the counter's own file
    np.testing.assert_array_equal(last[0], by_pillow(images[-1]))


# ── what cannot be read ─────────────────────────────────────────────────────────────────────────


def with_images(root, images, **options):
    write_lerobot_images(root)
    table = pq.read_table(root / DATA)
    pq.write_table(table.set_column(table.column_names.index(TOP), TOP, embedded(images)), root / DATA, **options)
    return root


def test_a_row_without_an_image(tmp_path):
    images = [encoded(PICTURES[0], "PNG"), None, *[encoded(PICTURES[1], "PNG")] * 4, b"", b"text"]
    with open_recording(with_images(tmp_path / "set", images)) as opened:
        frames = [opened.read_episode(index, [TOP]).streams[TOP].frames for index in range(2)]
        np.testing.assert_array_equal(frames[1].read(np.arange(3)), np.repeat(PICTURES[1][None], 3, axis=0))
        for episode, row, says in ((0, 1, "is not in the file"), (1, 3, "is empty"), (1, 4, "neither JPEG nor PNG")):
            with pytest.raises(DamagedRecordingError, match=f"column {TOP}, rows from . on, image {row}: .*{says}"):
                frames[episode].read(np.array([row]))


def test_depth_is_left_out_with_the_reason(tmp_path):
    root = with_images(tmp_path / "set", [png_of(4, 4, bytes(99), bits=16)] * 8)
    with open_recording(root) as opened:
        episode = opened.read_episode(0)
    assert list(episode.streams) == ["observation.state", WRIST]
    assert "its first image has 16 bits a channel" in episode.attributes["skipped"][TOP]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (pa.array(["x"] * 8), "has no column 'observation.images.top' of images"),
        (pa.array([{"bytes": [b"x"]}] * 8), "has no column"),
        (pa.array([{"bytes": 3.0}] * 8), "holds double values, not the bytes of one image a row"),
    ],
    ids=["texts", "lists", "numbers"],
)
def test_columns_of_the_wrong_kind(tmp_path, values, says):
    root = write_lerobot_images(tmp_path / "set")
    replace_column(root, TOP, values)
    with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match=says):
        opened.read_episode(0)


def test_a_page_beyond_the_limits_is_refused(tmp_path):
    """Catches `chunk_pages` left out: pyarrow would make room for whatever a header declares."""
    root = with_images(tmp_path / "set", [encoded(PICTURES[0], "PNG") + bytes(3 * 2**20)] * 8, compression="zstd")
    with open_recording(root, limits=Limits(block_bytes=2**20)) as opened:
        with pytest.raises(RecordingLimitError, match=r"declares \d+ decompressed bytes, and 1048576 are allowed"):
            opened.read_episode(0)
        assert len(opened.read_episode(0, ["observation.state"]).streams) == 1


def test_a_changed_byte_is_noticed_where_the_writer_made_checksums(tmp_path):
    root = with_images(
        tmp_path / "set", [encoded(PICTURES[0], "PNG")] * 8, write_page_checksum=True, compression="none"
    )
    data = bytearray((root / DATA).read_bytes())
    data[data.index(b"IEND") - 10] ^= 1
    (root / DATA).write_bytes(data)
    with open_recording(root) as opened, pytest.raises(DamagedRecordingError, match="has a page without its checksum"):
        opened.read_episode(0)
