"""Recordings of the largest images that are decoded: what writes each, as in hostile_extremes.py."""

import io
import json
from functools import cache
from math import isqrt

import h5py
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from robocache.readers import Limits

from .bag_writing import IMAGE  # noqa: TID252 -- tests are not an installed package
from .conftest import START_NS, header, write_mcap  # noqa: TID252
from .image_recordings import CAMERAS, embedded, write_lerobot_images  # noqa: TID252
from .test_images import COMPRESSED  # noqa: TID252
from .test_lerobot import DATA  # noqa: TID252
from .test_rlds import episode_features, write  # noqa: TID252

SIDE = isqrt(Limits().image_pixels)
KINDS = {
    "png": ("RGB", "PNG", {}),
    "transparent": ("RGBA", "PNG", {}),
    "palette": ("P", "PNG", {}),
    "grey": ("L", "JPEG", {}),
    "jpeg": ("RGB", "JPEG", {}),
    # All coefficients are held, of every component at full resolution.
    "progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "inks": ("CMYK", "JPEG", {"progressive": True, "subsampling": 0}),
}


@cache
def encoded(kind):
    mode, form, options = KINDS[kind]
    buffer = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(buffer, form, **options)
    return buffer.getvalue()


@cache
def of_many_scans():
    """The last scan of a JPEG a thousand times more: each takes a pass over all of its pixels, and 36 bytes."""
    data = encoded("progressive")
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * 1000 + data[-2:]


def by_message(data):
    def written(folder):
        messages = [(START_NS, {"header": header(START_NS), "format": "", "data": data()})]
        return write_mcap(folder / "a.mcap", {"/c": ("sensor_msgs/msg/CompressedImage", COMPRESSED, messages)})

    return written


def _raw_message(folder):
    rows = {"height": SIDE, "width": SIDE, "step": 4 * SIDE, "encoding": "bgra8", "is_bigendian": 0}
    message = {"header": header(START_NS), "data": bytes(4 * SIDE * SIDE), **rows}
    noise = np.random.default_rng(0).integers(0, 256, 2**19, np.uint8).tobytes()  # or 200 times is exceeded
    message["data"] = noise + message["data"][len(noise) :]
    return write_mcap(folder / "a.mcap", {"/c": ("sensor_msgs/msg/Image", IMAGE, [(START_NS, message)])})


def _rlds(folder):
    return write(folder / "a.tfrecord", episode_features(3) | {"steps/rgb": [encoded("progressive")] * 3})


def _hdf5(folder):
    data = np.frombuffer(encoded("progressive"), np.uint8)
    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["sampling_rate"] = 30.0
        file["camera"] = np.tile(data, (4, 1))
    return folder / "a.h5"


def _hdf5_pictures(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.attrs["sampling_rate"] = 30.0
        file.create_dataset("img", (3, SIDE, SIDE, 3), "u1")
    return folder / "a.h5"


def _lerobot(folder):
    root = write_lerobot_images(folder / "set")
    table = pq.read_table(root / DATA)
    for name in CAMERAS:
        column = embedded([encoded("progressive")] * len(table))
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, root / DATA)
    info = json.loads((root / "meta/info.json").read_text())
    for name in CAMERAS:
        info["features"][name]["shape"] = [SIDE, SIDE, 3]
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


IMAGES = {
    **{f"mcap_{kind}": (by_message(lambda kind=kind: encoded(kind)), {}, None) for kind in KINDS},
    "mcap_scans": (by_message(of_many_scans), {}, "is a JPEG of more than 64 scans"),
    "mcap_raw": (_raw_message, {}, None),
    "rlds": (_rlds, {"rate_hz": 10.0}, None),
    "hdf5_jpeg": (_hdf5, {}, None),
    "hdf5_raw": (_hdf5_pictures, {}, None),
    "lerobot": (_lerobot, {}, None),
}
