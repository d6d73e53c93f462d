"""Zarr replay buffers: values judged by the zarr library, and stores made to do damage."""

import json
import zipfile

import numpy as np
import pytest
import zarr

from robocache.errors import (
    ClosedError,
    DamagedRecordingError,
    RecordingLimitError,
    UnknownFormatError,
)
from robocache.readers import open_recording

from .conftest import damaged, read_all  # noqa: TID252 -- tests are not an installed package
from .every_reader import write_zarr, zipped  # noqa: TID252

BLOSC, ZSTD, GZIP = zarr.codecs.BloscCodec, zarr.codecs.ZstdCodec, zarr.codecs.GzipCodec
COMPRESSORS = {
    "v2_blosc": (2, {}),
    "v2_plain": (2, {"compressors": None}),
    "v3_zstd": (3, {}),
    "v3_blosc": (3, {"compressors": BLOSC(cname="zstd")}),
    "v3_gzip": (3, {"compressors": GZIP()}),
    "v3_plain": (3, {"compressors": None}),
}


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("kind", COMPRESSORS)
def test_values_are_those_that_zarr_reads(tmp_path, kind, pack):
    """Catches a chunk in the wrong place, a fill value left out, an episode's first row taken from the one before."""
    version, options = COMPRESSORS[kind]
    folder = write_zarr(tmp_path / "a.zarr", version, **options)
    root = zarr.open_group(folder, mode="r")
    with open_recording(pack(folder), rate_hz=10) as opened:
        assert opened.episode_names == ("episode_000000", "episode_000001")
        for index, rows in enumerate((slice(0, 30), slice(30, 70))):
            episode = opened.read_episode(index)
            assert list(episode.streams) == ["action", "gripper", "img"]
            assert list(episode.attributes["skipped"]) == ["depth"]
            np.testing.assert_array_equal(episode.streams["action"].values, root["data/action"][rows])
            np.testing.assert_array_equal(episode.streams["gripper"].values[:, 0], root["data/gripper"][rows])
            images = episode.streams["img"]
            assert (images.kind, images.frames.shape) == ("image", (6, 8, 3))
            wanted = images.values[[5, 0, 5, 17], 0]
            np.testing.assert_array_equal(images.frames.read(wanted), root["data/img"][rows][[5, 0, 5, 17]])
            assert images.frames.read(wanted, size=(3, 4)).shape == (4, 3, 4, 3)
            np.testing.assert_array_equal(images.times_ns, np.arange(len(wanted := images.values)) * 100_000_000)
    with pytest.raises(ClosedError):
        images.frames.read(np.array([0]))


def test_images_stored_as_floats_are_images(tmp_path):
    """Diffusion policy's PushT. Fails where they are left out, or where fractions, or what is no pixel, become some."""
    folder = write_zarr(tmp_path / "a.zarr", 2)
    root = zarr.open_group(folder, mode="a")
    stored = {"floats": root["data/img"][:].astype(np.float32)}
    stored["fractions"] = stored["floats"] / 255
    stored["fractions"][0] = 0  # a black image first
    stored["broken"] = stored["floats"].copy()
    stored["broken"][[31, 32, 33], 0, 0, 0] = [0.5, np.nan, 256]
    for name, values in stored.items():
        root.create_array(f"data/{name}", shape=values.shape, chunks=(4, 6, 8, 3), dtype="f4")[:] = values
    with open_recording(folder, rate_hz=10) as opened:
        episode = opened.read_episode(1)
        assert list(episode.attributes["skipped"]) == ["depth", "fractions"]
        rows = np.array([5, 0, 11])
        read = [episode.streams[name].frames.read(rows) for name in ("floats", "img")]
        np.testing.assert_array_equal(*read)
        assert read[0].dtype == np.uint8
        for row in (1, 2, 3):
            with pytest.raises(DamagedRecordingError, match="not whole numbers from 0 to 255"):
                episode.streams["broken"].frames.read(np.array([row]))


def test_without_a_rate(tmp_path):
    with pytest.raises(UnknownFormatError, match="which has no times; give a rate"):
        open_recording(write_zarr(tmp_path / "a.zarr", 2))


def changed(folder, name, **fields):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"shape": [2**60, 7]}, RecordingLimitError, None),
        ({"shape": [70, 2**60]}, RecordingLimitError, "asked for"),
        ({"chunks": [2**40, 4]}, RecordingLimitError, "a chunk"),
        ({"chunks": [0, 4]}, DamagedRecordingError, "no description of an array"),
        ({"shape": [5, 7]}, DamagedRecordingError, "has 5 rows, but the last episode ends at 70"),
        ({"chunks": [16]}, DamagedRecordingError, "no description of an array"),
        ({"dtype": "<f8"}, DamagedRecordingError, "the chunk declares 256 bytes"),
        ({"compressor": {"id": "zlib"}}, DamagedRecordingError, "does not decompress with zlib"),
        ({"fill_value": {"a": 1}}, DamagedRecordingError, "no description of an array"),
    ],
    ids=["rows", "columns", "chunk", "no_chunk", "few_rows", "axes", "dtype", "codec", "fill"],
)
def test_metadata_that_cannot_be(tmp_path, fields, kind, message):
    folder = write_zarr(tmp_path / "a.zarr", 2)
    changed(folder, "data/action/.zarray", **fields)
    found = read_all(folder, rate_hz=10)
    if message is None:
        assert isinstance(found, list)  # no episode reaches those rows
    else:
        assert isinstance(found, kind)
        assert message in str(found)


@pytest.mark.parametrize(
    "fields",
    [{"dtype": "|O", "filters": [{"id": "pickle"}]}, {"dtype": "|O"}, {"filters": [{"id": "pickle"}]}],
    ids=str,
)
def test_nothing_is_unpickled(tmp_path, fields):
    folder = write_zarr(tmp_path / "a.zarr", 2)
    changed(folder, "data/action/.zarray", **fields)
    with open_recording(folder, rate_hz=10) as opened:
        assert "action" in opened.read_episode(0).attributes["skipped"]


def test_episodes_of_2_to_the_60(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", 2)
    changed(folder, "meta/episode_ends/.zarray", shape=[2**60])
    assert isinstance(read_all(folder, rate_hz=10), RecordingLimitError)


def test_a_link_out_of_the_store_is_not_followed(tmp_path):
    folder = write_zarr(tmp_path / "a.zarr", 2)
    chunk = folder / "data/action/0.0"
    chunk.rename(tmp_path / "outside")
    chunk.symlink_to(tmp_path / "outside")
    assert "leads out of the store" in str(read_all(folder, rate_hz=10))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_file_of_another_method_is_refused_by_name(tmp_path, method):
    """Fails when the method is tried: a damaged LZMA entry raises an error that no damaged file may show."""
    path = zipped(write_zarr(tmp_path / "a.zarr", 2))
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    with pytest.raises(DamagedRecordingError, match=r"compressed by another method than deflate.*stored or deflated"):
        open_recording(path, rate_hz=10)


def test_a_bomb_in_a_zip_file(tmp_path):
    """400 MB of zeros, deflated to 400 kB."""
    path = zipped(write_zarr(tmp_path / "a.zarr", 2))
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, bytes(400 * 2**20) if name == "data/action/.zarray" else content)
    assert isinstance(read_all(path, rate_hz=10), RecordingLimitError)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "sizes"])
def test_damaged_zip_files(tmp_path, kind):
    path = zipped(write_zarr(tmp_path / "a.zarr", 3))
    data, errors = path.read_bytes(), 0
    for seed in range(25):
        path.write_bytes(damaged(data, kind, seed))
        errors += not isinstance(read_all(path, rate_hz=10), list)
    assert errors >= (24 if kind == "truncated" else 1)


def test_a_zip_file_of_a_later_version_is_refused_by_name(tmp_path):
    """Fails when what zipfile does not implement comes through as NotImplementedError, or is called damage alone."""
    path = zipped(write_zarr(tmp_path / "a.zarr", 3))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99  # the version that the first entry of the directory needs
    path.write_bytes(data)
    error = read_all(path, rate_hz=10)
    assert isinstance(error, DamagedRecordingError)
    assert "uses what is not read of the zip format (zip file version 9.9); if it is not damaged" in str(error)


@pytest.mark.parametrize("version", [2, 3])
def test_a_zipped_folder_keeps_its_name(tmp_path, version):
    """As `zip -r` and the data of diffusion policy have it. Fails where the buffer must lie at the top of the file."""
    folder = write_zarr(tmp_path / "top/a.zarr", version)
    with open_recording(folder, rate_hz=10) as direct, open_recording(zipped(tmp_path / "top"), rate_hz=10) as packed:
        assert packed.episode_names == direct.episode_names
        for index in range(2):
            expected, found = direct.read_episode(index).streams, packed.read_episode(index).streams
            assert list(found) == list(expected)
            for name, stream in found.items():
                assert stream.values.tobytes() == expected[name].values.tobytes()
            images = [streams["img"].frames.read(np.array([3])) for streams in (found, expected)]
            np.testing.assert_array_equal(*images)


def test_a_zip_file_of_two_buffers_names_them(tmp_path):
    write_zarr(tmp_path / "top/a.zarr", 2)
    write_zarr(tmp_path / "top/b.zarr", 3)
    with pytest.raises(UnknownFormatError, match=r"holds 2 replay buffers \(a\.zarr/, b\.zarr/\); unpack it"):
        open_recording(zipped(tmp_path / "top"), rate_hz=10)
