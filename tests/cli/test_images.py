"""A recording with images, from its suggestion to its videos; PyAV decodes what was written."""

from __future__ import annotations

import av
import numpy as np
import yaml

from robocache import readers
from robocache.readers import open_recording
from robocache.readers.recording import OpenRecording
from robocache.records import Episode, RecordedStream


class Grey:
    """Image k is of one grey, 10 k, with an odd side; it reads while its recording is open."""

    shape = (31, 40, 3)

    def __init__(self, recording):
        self.recording = recording

    def __len__(self):
        return 20

    def read(self, numbers, *, size=None):
        self.recording._check_episode(0)
        greys = (10 * numbers).astype(np.uint8)
        return np.broadcast_to(greys[:, None, None, None], (len(numbers), *(size or (31, 40)), 3))


class Camera(OpenRecording):
    format = "made up"

    def _read(self, index, streams, span):
        times = np.arange(20, dtype=np.int64) * 10**8
        clocks = {"log": times}
        frames = Grey(self)
        image = RecordedStream("/cam", np.arange(20)[:, None], times, clocks, "log", kind="image", frames=frames)
        arm = RecordedStream("/arm", np.ones((20, 2)), times, clocks, "log")
        found = {"/cam": image, "/arm": arm} if index == 0 else {"/cam": image}
        return Episode(f"e{index}", found, "camera", {})


def test_images_become_videos_and_a_missing_arm_is_never_valid(run, document, tmp_path, monkeypatch):
    """Fails when images are read after their recording is closed, or an optional stream's columns are not kept."""
    for name in ("open_recording", "open_recordings"):
        monkeypatch.setattr(readers, name, lambda *_, **__: Camera("camera", ("e0", "e1")))
    spec, out = tmp_path / "spec.yaml", tmp_path / "out"
    run("inspect", "camera", "--suggest", spec)
    streams = yaml.safe_load(spec.read_text())["streams"]
    assert streams["observation.images.cam"]["then"] == {"type": "resize", "height": 32, "width": 40}
    assert streams["observation.arm"]["optional"] is True
    found = document("align", "camera", "--spec", spec, "--out", out)
    assert [episode["absent"] for episode in found["episodes"]] == [[], ["observation.arm"]]
    for index in (0, 1):
        with av.open(str(out / f"videos/observation.images.cam/chunk-000/file-00{index}.mp4")) as container:
            greys = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
        np.testing.assert_allclose(greys, 10 * np.arange(20), atol=3)
    with open_recording(out) as recording:
        valid = [recording.read_episode(k).streams["valid.observation.arm"].values for k in (0, 1)]
    assert valid[0].all()
    assert not valid[1].any()
