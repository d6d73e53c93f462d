"""LeRobot's dataset, for programs beside this file that are run by a Python that has it."""

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:  # its compiled part is a CUDA build: two schemas let the Python part load
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]

from lerobot.datasets.lerobot_dataset import LeRobotDataset

__all__ = ["LeRobotDataset"]
