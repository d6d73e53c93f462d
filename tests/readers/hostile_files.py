"""Recordings of every format to be damaged, and what is done to them."""

import gzip
import json
import shutil
import struct

import numpy as np
from hypothesis import strategies as st

from .every_reader import FORMATS  # noqa: TID252 -- tests are not an installed package
from .image_recordings import VIDEO, as_v21, write_lerobot_video  # noqa: TID252
from .test_carmen import log_text  # noqa: TID252
from .test_lerobot import LENGTHS  # noqa: TID252

EPISODE_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def write_lerobot_v21(root):
    """The same two episodes, a Parquet file and a video each, and JSON lines about them."""
    as_v21(write_lerobot_video(root))
    video = root / "videos" / VIDEO / "chunk-000/file-000.mp4"
    new_video = root / EPISODE_VIDEO.format(episode_chunk=0, video_key=VIDEO, episode_index=0)
    new_video.parent.mkdir(parents=True)
    for index in range(len(LENGTHS)):
        shutil.copy(video, root / EPISODE_VIDEO.format(episode_chunk=0, video_key=VIDEO, episode_index=index))
    video.unlink()
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"video_path": EPISODE_VIDEO}))
    return root


def _written(path, data):
    path.write_bytes(data)
    return path


SWEPT = {
    **{name: kind for name, kind in FORMATS.items() if kind[0] is not None},
    "carmen_plain": (lambda folder: _written(folder / "a.clf", log_text().encode()), {}),
    "carmen_gzip": (lambda folder: _written(folder / "a.clf.gz", gzip.compress(log_text().encode(), mtime=0)), {}),
    "lerobot_v21": (lambda folder: write_lerobot_v21(folder / "set"), {}),
}


def victims(path):
    """The files of a recording: of a folder one of each kind and place."""
    if path.is_file():
        return [path]
    found = {}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.stat().st_size:
            found.setdefault((file.parent, file.suffix or file.name.startswith(".")), file)
    return list(found.values())


# ── damage ──────────────────────────────────────────────────────────────────────────────────────

_PLACES = st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.95, 1))
_LIES = [2**60, 2**63 - 1, 2**64 - 1, 2**31, 2**32 - 1, 2**40, 0, 1]
DAMAGE = st.one_of(
    st.tuples(st.just("flip"), _PLACES, st.integers(0, 7)),
    st.tuples(st.just("span"), _PLACES, st.binary(min_size=1, max_size=300)),
    st.tuples(st.just("zeros"), _PLACES, st.integers(1, 5000)),
    st.tuples(st.just("lie"), _PLACES, st.sampled_from(_LIES), st.sampled_from(["<Q", ">Q", "<I", ">I"])),
    st.tuples(st.just("varint"), _PLACES, st.sampled_from(_LIES)),
    st.tuples(st.just("cut"), _PLACES, st.integers(1, 2000)),
    st.tuples(st.just("twice"), _PLACES, st.integers(1, 2000)),
    st.tuples(st.just("text"), _PLACES, st.sampled_from([b"9" * 30, b"-1", b"1e999", b"../../..", b"null", b"[" * 99])),
)


def damaged_by(data, damage):
    """The bytes after one piece of damage."""
    kind, place, *rest = damage
    at = min(int(place * len(data)), max(len(data) - 1, 0))
    if kind == "flip":
        flipped = data[at : at + 1] and bytes([data[at] ^ 1 << rest[0]])
        return data[:at] + flipped + data[at + 1 :]
    if kind == "cut":
        return data[:at] + data[at + rest[0] :]
    if kind == "twice":
        return data[: at + rest[0]] + data[at:]
    if kind == "lie":
        new = struct.pack(rest[1], rest[0] & 2 ** (8 * struct.calcsize(rest[1])) - 1)
    elif kind == "varint":
        new = _varint(rest[0])
    else:
        new = bytes(rest[0]) if kind == "zeros" else rest[0]
    return data[:at] + new + data[at + len(new) :]


def _varint(number):
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


def assert_begins_like(found, clean, name):
    """Whatever was read is the beginning of what the whole file holds, number by number."""
    for stream, expected in zip(found, clean, strict=False):
        assert stream.name == expected.name, name
        rows = slice(len(stream.values))
        np.testing.assert_array_equal(stream.values, expected.values[rows], err_msg=name)
        np.testing.assert_array_equal(stream.times_ns, expected.times_ns[: len(stream.times_ns)], err_msg=name)
