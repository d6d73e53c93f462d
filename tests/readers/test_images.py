"""Still images of every format that holds them, written by the format's own library, judged by Pillow."""

import io
import struct
import time
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from robocache.errors import ClosedError, RecordingError, RecordingLimitError
from robocache.readers import Limits, open_recording, stream_statistics
from robocache.readers.images import ImageError, decoded, image_shape, jpeg_scans

from .bag_writing import IMAGE, mcap_messages, write_ros1, write_rosbag2  # noqa: TID252
from .conftest import HEADER_PARTS, START_NS, header, recording, write_mcap  # noqa: TID252

COMPRESSED = f"std_msgs/Header header\nstring format\nuint8[] data\n{HEADER_PARTS}"
PICTURES = np.random.default_rng(1).integers(0, 256, (7, 12, 16, 3), np.uint8)


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png_of(width, height, data=b"", bits=8):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_stills_are_what_pillow_makes_of_them(mode, form):
    if form == "JPEG" and mode in ("RGBA", "P"):
        pytest.skip("JPEG has no such images")
    buffer = io.BytesIO()
    Image.fromarray(PICTURES[0]).convert(mode).save(buffer, form)
    data = buffer.getvalue()
    assert image_shape(data) == (12, 16, 3)
    np.testing.assert_array_equal(decoded(data, Limits()), by_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_a_large_image_is_what_pillow_makes_of_it(mode):
    """Catches a strip too few, one written in the place of another, and one without the palette."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 256, (1100, 700, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(decoded(buffer.getvalue(), Limits()), by_pillow(buffer.getvalue()))


@pytest.mark.parametrize(
    ("options", "scans"), [({}, 1), ({"restart_marker_blocks": 1}, 1), ({"progressive": True}, 10)]
)
def test_scans_of_a_jpeg_are_counted(options, scans):
    """Judged by libjpeg, whose script for progressive JPEGs has ten; an embedded thumbnail has scans of its own."""
    exif = b"Exif\0\0" + encoded(PICTURES[0], progressive=True)
    assert jpeg_scans(encoded(PICTURES[0], exif=exif, **options)) == scans


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"GIF89a", "neither JPEG nor PNG"),
        (png_of(60000, 60000), "60000 x 60000 pixels, and"),
        (encoded(PICTURES[0])[:90], "ends inside the header"),
        (encoded(PICTURES[0])[:-60], "cannot be decoded"),
        (png_of(4000, 4000, bytes(100)), "cannot be decoded"),
        (png_of(4, 4, bytes(99), bits=16), "16 bits a channel"),
        (encoded(PICTURES[0], "PNG")[:200], "cannot be decoded"),
    ],
)
def test_hostile_images_are_one_error_soon(data, problem):
    """Fails if a header's size is not looked at before anything is decoded."""
    start = time.process_time()
    with pytest.raises(ImageError, match=problem):
        decoded(data, Limits())
    assert time.process_time() - start < 2


def test_a_flipped_jpeg_never_raises_anything_else():
    data, rng = encoded(PICTURES[0]), np.random.default_rng(2)
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] ^= 1 << rng.integers(8)
        try:
            assert decoded(bytes(broken), Limits()).shape[2] == 3
        except ImageError:
            continue


def raw_message(number, encoding):
    colours = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 0], "bgra8": [2, 1, 0, 0], "mono8": [0]}
    pixels = PICTURES[number][:, :, colours[encoding]].reshape(12, -1)
    padded = np.pad(pixels, ((0, 0), (0, 5)))
    return {
        "header": header(START_NS + number * 10**8), "height": 12, "width": 16, "encoding": encoding,
        "is_bigendian": 0, "step": padded.shape[1], "data": padded.tobytes(),
    }  # fmt: skip


def write_cameras(path, encodings=("rgb8", "bgr8", "rgba8", "bgra8", "mono8"), **options):
    """Raw and compressed images, logged in another order than they were stamped."""
    order = [3, 0, 1, 2, 6, 5, 4]
    logs = [START_NS + 10**9 + row for row in range(7)]
    topics = {
        f"/{encoding}": ("sensor_msgs/msg/Image", IMAGE,
                         [(log, raw_message(row, encoding)) for log, row in zip(logs, order, strict=True)])
        for encoding in encodings
    }  # fmt: skip
    for form in ("jpeg", "png"):
        messages = [
            {"header": header(START_NS + row * 10**8), "format": form, "data": encoded(PICTURES[row], form.upper())}
            for row in order
        ]
        topics[f"/{form}"] = ("sensor_msgs/msg/CompressedImage", COMPRESSED, list(zip(logs, messages, strict=True)))
    return write_mcap(path, topics, **options)


def assert_cameras(path):
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
        assert len(streams) == 7
        for name, stream in streams.items():
            np.testing.assert_array_equal(stream.times_ns, START_NS + np.arange(7) * 10**8)
            assert (stream.kind, stream.clock, stream.frames.shape) == ("image", "header", (12, 16, 3))
            expected = PICTURES
            if name == "/mono8.image":
                expected = np.repeat(PICTURES[..., :1], 3, axis=3)
            if name == "/jpeg.image":
                expected = np.array([by_pillow(encoded(picture)) for picture in PICTURES])
            rows = np.array([5, 0, 5, 2])
            np.testing.assert_array_equal(stream.frames.read(stream.values[rows, 0]), expected[rows])
        assert stream_statistics(stream).image_shape == (12, 16, 3)
    with pytest.raises(ClosedError):
        stream.frames.read(np.array([0]))


@pytest.mark.parametrize("chunk_size", [1000, 2**20])
def test_mcap_bag_and_rosbag2_give_the_same_pictures(tmp_path, chunk_size):
    """Fails if colours are exchanged, padding is taken for pixels, or a stamp goes to another image."""
    mcap = write_cameras(tmp_path / "c.mcap", chunk_size=chunk_size)
    assert_cameras(mcap)
    assert_cameras(write_ros1(tmp_path / "c.bag", mcap_messages(mcap), chunk_bytes=chunk_size))
    assert_cameras(write_rosbag2(tmp_path / "c", mcap_messages(mcap)))


def test_depth_is_left_out_with_the_reason(tmp_path):
    deep = {**raw_message(0, "mono8"), "encoding": "16UC1"}
    path = write_mcap(tmp_path / "d.mcap", {"/depth": ("sensor_msgs/msg/Image", IMAGE, [(START_NS, deep)])})
    with open_recording(path) as opened:
        episode = opened.read_episode(0)
    assert list(episode.streams) == []
    assert "is encoded as '16UC1', and rgb8" in episode.attributes["skipped"]["/depth"]


def test_a_message_that_lies_about_its_size_is_named(tmp_path):
    messages = [(START_NS, raw_message(0, "rgb8")), (START_NS + 1, {**raw_message(1, "rgb8"), "step": 2**31})]
    messages.append((START_NS + 2, {**raw_message(2, "rgb8"), "height": 60000, "width": 60000}))
    path = write_mcap(tmp_path / "l.mcap", {"/c": ("sensor_msgs/msg/Image", IMAGE, messages)})
    with open_recording(path) as opened:
        frames = opened.read_episode(0).streams["/c.image"].frames
        with pytest.raises(RecordingError, match=r"l\.mcap, topic /c, message 1: has 636 bytes"):
            frames.read(np.array([1]))
        with pytest.raises(RecordingLimitError, match=r"message 2: declares 60000 x 60000 pixels"):
            frames.read(np.array([2]))


def test_hdf5_pictures_and_padded_jpegs(tmp_path):
    """Fails if padding is not dropped, or rows of bytes are taken for numbers."""
    path = tmp_path / "aloha.hdf5"
    jpegs = [encoded(picture) for picture in PICTURES]
    padded = np.zeros((7, max(map(len, jpegs)) + 9), np.uint8)
    for row, data in enumerate(jpegs):
        padded[row, : len(data)] = np.frombuffer(data, np.uint8)
    with h5py.File(path, "w") as file:
        file["observations/qpos"] = file["action"] = np.zeros((7, 14))
        file["observations/images/raw"] = PICTURES
        file["observations/images/zipped"] = PICTURES
        file["observations/images/jpeg"] = padded
        file["observations/images/text"] = np.array(jpegs)
        file["observations/images/broken"] = np.where(np.arange(7)[:, None] == 4, 0, padded).astype(np.uint8)
    with open_recording(path) as opened:
        streams = opened.read_episode(0).streams
        expected = np.array([by_pillow(data) for data in jpegs])
        for name, pictures in (("raw", PICTURES), ("zipped", PICTURES), ("jpeg", expected), ("text", expected)):
            stream = streams[f"observations/images/{name}"]
            np.testing.assert_array_equal(stream.frames.read(np.array([6, 1, 1])), pictures[[6, 1, 1]])
        np.testing.assert_array_equal(streams["observations/images/raw"].times_ns, np.arange(7) * 20_000_000)
        with pytest.raises(RecordingError, match=r"broken, row 4: starts with"):
            streams["observations/images/broken"].frames.read(np.arange(7))


def test_rlds_images_are_those_of_the_real_file():
    """Every view of a real episode is the JPEG that stands in the file."""
    folder = recording("bridge_rlds") / "tests/debug_dataset/bridge_dataset/1.0.0"
    data = next(folder.glob("*.tfrecord*")).read_bytes()
    with open_recording(folder, rate_hz=5) as opened:
        stream = opened.read_episode(0).streams["observation/image_0"]
        read = stream.frames.read(stream.values[:, 0])
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff\xe0", at)][:60]
    found = [by_pillow(data[start : data.index(b"\xff\xd9", start) + 2]) for start in starts]
    assert read.shape == (10, 64, 64, 3)
    for image in read:
        assert any(np.array_equal(image, other) for other in found)
