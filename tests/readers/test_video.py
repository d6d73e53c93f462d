"""Videos: every frame is what PyAV decodes when it goes through the file from its start."""

import gc
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from robocache.errors import (
    ArgumentError,
    BackendUnavailableError,
    ClosedError,
    DamagedRecordingError,
    RecordingError,
    RecordingNotFoundError,
)
from robocache.readers import Limits, decoders, limit_open_decoders, open_recording
from robocache.readers.video import VideoDecoder, VideoFiles, VideoFrames

from .conftest import recording  # noqa: TID252 -- tests are not an installed package

CAMERA = "observation.images.cam_high"
FILE = f"videos/{CAMERA}/chunk-000/file-000.mp4"


def all_frames(path, count=None):
    with av.open(str(path)) as container:
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [next(frames) for _ in range(count)] if count else list(frames)


def write_video(path, frames=40, *, key_every=10, between=2, side=48, codec="mpeg4", rate=20):
    """A video whose frame k has the grey 5 * k, with frames that are stored in another order than shown."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=rate, options={"g": str(key_every), "bf": str(between)})
        stream.bit_rate = 4_000_000
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            image = np.full((side, side, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def files():
    opened = VideoFiles(Limits())
    yield opened
    opened.close()


def frames_of(files, path, count=40):
    return VideoFrames(files, path, np.arange(count) / 20, 0.025)


def test_episodes_of_one_file_are_the_frames_that_follow_each_other():
    """Fails if an episode begins at another frame of its file, or a row is shown the frame beside its own."""
    truth = all_frames(recording("g1_lerobot_v30") / FILE, 520)
    with open_recording(recording("g1_lerobot_v30")) as opened:
        first, second = (opened.read_episode(index, [CAMERA]).streams[CAMERA] for index in range(2))
        assert (first.kind, first.values.dtype, first.frames.shape) == ("image", np.int64, (480, 640, 3))
        assert len(first.frames) == len(first.times_ns) == 221
        rows = np.array([220, 0, 7, 7, 100])
        np.testing.assert_array_equal(first.frames.read(rows), [truth[row] for row in rows])
        rows = np.array([276, 0, 1])
        np.testing.assert_array_equal(second.frames.read(rows), [truth[221 + row] for row in rows])


def test_v21_has_a_file_an_episode():
    root = recording("g1_lerobot_v21")
    truth = all_frames(root / f"videos/chunk-000/{CAMERA}/episode_000001.mp4", 12)
    with open_recording(root) as opened:
        frames = opened.read_episode(1).streams[CAMERA].frames
        np.testing.assert_array_equal(frames.read(np.arange(12)), truth)


@pytest.mark.parametrize("between", [0, 2])
def test_any_order_gives_the_same_frames(tmp_path, files, between):
    """Fails if frames that are stored before they are shown are mixed up, or a seek lands behind its frame."""
    path = write_video(tmp_path / "v.mp4", between=between)
    truth, frames = all_frames(path), frames_of(files, path)
    assert len(truth) == 40
    assert np.all(np.diff([image.mean() for image in truth]) >= 0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.integers(0, 40, rng.integers(0, 9))
        np.testing.assert_array_equal(frames.read(rows), np.array([truth[row] for row in rows]).reshape(-1, 48, 48, 3))


def test_ascending_frames_are_decoded_once_and_far_ones_sought(tmp_path, files, monkeypatch):
    """Fails if every frame is sought, if a group is decoded twice, or if all frames up to a far one are decoded."""
    path = write_video(tmp_path / "v.mp4", between=0)
    given, seeks = [], []
    decoder = VideoDecoder(path, Limits())
    index = decoder.index()

    class Watched:
        def seek(self, *arguments, **options):
            seeks.append(arguments)
            decoder_container.seek(*arguments, **options)

        def decode(self, stream):
            for frame in decoder_container.decode(stream):
                given.append(frame.pts)
                yield frame

        def close(self):
            decoder_container.close()

    decoder_container, decoder._container = decoder._container, Watched()
    assert len(list(decoder.decoded(np.arange(40), index))) == 40
    assert (len(seeks), len(given)) == (1, 40)
    given.clear()
    seeks.clear()
    assert len(list(decoder.decoded(np.array([3, 5, 35]), index))) == 3
    assert (len(seeks), len(given)) == (2, 6 - index.key[3] + 36 - index.key[35])
    decoder.close()


def test_many_frames_are_decoded_ahead_and_the_thread_ends(tmp_path, files, monkeypatch):
    """Fails when frames change places, a thread outlives its call or a failure, or the decoder is lost afterwards."""
    path = write_video(tmp_path / "v.mp4", between=0)
    decoder = VideoDecoder(path, Limits())
    index = decoder.index()
    truth = all_frames(path)
    before, seen = threading.active_count(), []
    for number, pixels in zip(range(12), decoder.decoded(np.arange(20), index), strict=False):
        seen.append(threading.active_count() - before)
        np.testing.assert_array_equal(pixels, truth[number])
    assert (max(seen), threading.active_count()) == (1, before)
    assert len(list(decoder.decoded(np.arange(40), index))) == 40
    monkeypatch.setattr(decoder, "_pixels", lambda number, frame: 1 // (5 - number))
    with pytest.raises(ZeroDivisionError):
        list(decoder.decoded(np.arange(40), index))
    assert threading.active_count() == before
    decoder.close()


def test_resizing_is_an_antialiased_bilinear_filter(tmp_path, files):
    """Fails if the filter does not grow with the scale: Pillow judges, whose rounding differs by one at most."""
    from PIL import Image

    from robocache.readers.images import resized

    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    judged = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR))
    assert np.abs(resized(image, (20, 30)).astype(int) - judged).max() <= 1
    path = write_video(tmp_path / "v.mp4")
    read = frames_of(files, path).read(np.array([9]), size=(20, 30))
    # Channel by channel, as a cache holds them: turned pixel by pixel they would cost as much as decoding them.
    assert read.transpose(0, 3, 1, 2).flags.c_contiguous
    np.testing.assert_array_equal(read[0], resized(all_frames(path)[9], (20, 30)))
    for size in ((0, 4), (4,), (2**20, 4)):
        with pytest.raises(ArgumentError, match="size must be"):
            frames_of(files, path).read(np.array([9]), size=size)


def test_open_files_are_capped_and_closed(tmp_path):
    """Fails if a decoder is never closed, or if closing a recording leaves one open."""
    source, files = write_video(tmp_path / "v.mp4", 2), VideoFiles(Limits())
    gc.collect()  # what earlier tests left open is not to be closed meanwhile
    before, most = open_files(), 0
    limit_open_decoders(8)
    try:
        for number in range(200):
            path = tmp_path / f"{number}.mp4"
            os.link(source, path)
            frames_of(files, path, 2).read(np.array([1]))
            most = max(most, open_files())
        assert most - before == decoders.OPEN_DECODERS.open_count == 8
    finally:
        limit_open_decoders(decoders.DEFAULT_OPEN_DECODERS)
        files.close()
    assert open_files() == before
    with pytest.raises(ClosedError):
        frames_of(files, path, 2).read(np.array([0]))
    with pytest.raises(ArgumentError, match="1 or more"):
        limit_open_decoders(0)


def _read_in_child(frames, queue):
    queue.put((decoders.OPEN_DECODERS.open_count, frames.read(np.arange(30, 40))))


def test_a_forked_child_opens_its_own(tmp_path, files):
    """Fails if a child goes on with its parent's decoder, whose place in the file both would move."""
    path = write_video(tmp_path / "v.mp4")
    truth, frames = all_frames(path), frames_of(files, path)
    frames.read(np.array([5]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(frames, queue))
    child.start()
    inherited, read = queue.get(timeout=60)
    child.join(60)
    assert (child.exitcode, inherited) == (0, 0)
    np.testing.assert_array_equal(read, truth[30:40])
    np.testing.assert_array_equal(frames.read(np.arange(6, 12)), truth[6:12])


def test_threads_read_side_by_side(tmp_path, files):
    path = write_video(tmp_path / "v.mp4")
    truth, frames, wrong = all_frames(path), frames_of(files, path), []

    def read(seed):
        rows = np.random.default_rng(seed).integers(0, 40, 30)
        wrong.extend(row for row in rows if not np.array_equal(frames.read(np.array([row]))[0], truth[row]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_one_error_that_names_it(tmp_path, files, part):
    path = write_video(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(RecordingError, match=r"v\.mp4"):
        frames_of(files, path).read(np.arange(40))


def test_what_a_file_declares_is_not_believed(tmp_path, files):
    """Fails if FFmpeg is asked to make room for what the tables or the header say."""
    path = write_video(tmp_path / "v.mp4")
    whole = path.read_bytes()
    at = whole.index(b"stsz") + 12
    path.write_bytes(whole[: at - 4] + struct.pack(">II", 1, 2**31) + whole[at + 4 :])
    with pytest.raises(RecordingError, match=r"the table stsz declares 2147483648 samples"):
        frames_of(files, path).shape  # noqa: B018 -- it opens the file
    path.write_bytes(whole)
    with pytest.raises(RecordingError, match=r"v\.mp4"):
        frames_of(VideoFiles(Limits(image_pixels=48 * 48 - 1)), path).shape  # noqa: B018
    with pytest.raises(RecordingError, match=r"no frame at 2\.0500 s"):
        frames_of(files, path, 45).read(np.array([41]))
    path.write_bytes(b"#EXTM3U\n" + b"/etc/passwd\n" * 9)
    with pytest.raises(DamagedRecordingError, match=r"v\.mp4"):
        frames_of(VideoFiles(Limits()), path).shape  # noqa: B018


def test_an_absent_video_is_left_out_unless_it_is_asked_for(tmp_path):
    root = shutil.copytree(recording("g1_lerobot_v21"), tmp_path / "d", copy_function=shutil.copyfile)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    (root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4").unlink()
    with open_recording(root) as opened:
        assert "is not there" in opened.read_episode(0).attributes["skipped"][CAMERA]
        assert CAMERA in opened.read_episode(1).streams
        with pytest.raises(RecordingNotFoundError, match=r"episode_000000\.mp4: is missing"):
            opened.read_episode(0, [CAMERA])


def test_without_pyav_the_extra_is_named(tmp_path, files, monkeypatch):
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BackendUnavailableError, match=r"robocache\[video\]"):
        frames_of(files, path).read(np.array([0]))


def test_importing_robocache_imports_no_decoder():
    code = "import sys, robocache, robocache.readers.lerobot; print({'av', 'PIL'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "set()"
    assert Path(av.__file__).exists()
