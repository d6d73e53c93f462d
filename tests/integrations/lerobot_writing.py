"""Run by a Python that has LeRobot: a dataset of two episodes with images in its Parquet file.

python lerobot_writing.py FOLDER
"""

import sys

import numpy as np
from lerobot_importing import LeRobotDataset  # beside this file

features = {
    "observation.state": {"dtype": "float32", "shape": (2,), "names": ["a", "b"]},
    "top": {"dtype": "image", "shape": (12, 16, 3), "names": ["height", "width", "channels"]},
    "wrist": {"dtype": "image", "shape": (8, 8, 3), "names": ["height", "width", "channels"]},
}
dataset = LeRobotDataset.create("local/set", 30, features, root=sys.argv[1], use_videos=False)
numbers = np.random.default_rng(0)
for length in (5, 7):
    for _ in range(length):
        images = {name: numbers.integers(0, 256, features[name]["shape"], np.uint8) for name in ("top", "wrist")}
        state = numbers.normal(size=2).astype(np.float32)
        dataset.add_frame({"observation.state": state, "task": f"pick {length}", **images})
    dataset.save_episode()
dataset.finalize()
