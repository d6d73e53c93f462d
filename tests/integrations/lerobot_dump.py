"""Run by a Python that has LeRobot: items of `LeRobotDataset`, as it (or ours, there) makes them, into an npz.

python lerobot_dump.py REQUEST.json OUT.npz
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot_importing import LeRobotDataset  # beside this file

request = json.loads(Path(sys.argv[1]).read_text())
if request["ours"]:
    from robocache.integrations.lerobot import LeRobotDataset
dataset = LeRobotDataset("local/set", **request["arguments"])
indices = request["indices"] or range(len(dataset))
arrays = {"length": np.array([len(dataset), dataset.num_episodes])}
for index in indices:
    item = dataset[index]
    arrays[f"{index}/keys"] = np.array(list(item))
    for key, value in item.items():
        if isinstance(value, torch.Tensor) and value.ndim >= 3 and value.dtype == torch.float32:
            whole = (value * 255).round().to(torch.uint8)
            assert torch.equal(whole / 255.0, value)
            arrays[f"{index}/frames/{key}"] = whole.numpy()
        else:
            arrays[f"{index}/value/{key}"] = np.array(value)
for key, statistics in dataset.meta.stats.items():
    for name, value in statistics.items():
        arrays[f"stats/{key}/{name}"] = value
np.savez(sys.argv[2], **arrays)
