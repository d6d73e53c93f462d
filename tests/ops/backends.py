"""Every implementation of the operations behind the same calls."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.policies import Linear


@dataclass(frozen=True)
class Backend:
    """One implementation behind one call; inputs go to its device, results come back to the host."""

    name: str
    device: str

    def __str__(self):
        return self.name

    @property
    def public_name(self):
        """What `backend=` takes to get it; None for what no public call reaches on this machine."""
        kernel = "cuda" if self.device == "cuda" else None
        return {"pytorch": "pytorch", "native": "native", "kernel": kernel}.get(self.name)

    def module(self, op):
        """The module that implements `op` here."""
        file = {"reference": "reference", "pytorch": "torch_backend", "kernel": "triton_kernel"}[self.name]
        return importlib.import_module(f"robocache.ops.{op}.{file}")

    def _directly(self, op, function, *arguments):
        """Past the public call, which on a CPU never chooses the kernels."""
        if self.name != "kernel":
            return getattr(self.module(op), function)(*arguments)
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        # numpy, inside the interpreter, warns of NaN in lanes that a GPU computes and drops in silence.
        with np.errstate(all="ignore"):
            return getattr(self.module(op), function)(*arguments)

    def _here(self, value):
        if isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
            return [self._here(item) for item in value]
        return value.to(self.device) if isinstance(value, torch.Tensor) else value

    def resample(self, data, times, targets, policy=None, lengths=None):
        """`(data, valid)` of one stream, through the public call where there is one."""
        policy = policy or Linear()
        data, times, targets, lengths = map(self._here, (data, times, targets, lengths))
        if self.public_name:
            result = rc.resample_trajectories(
                data, times, targets, policy=policy, lengths=lengths, return_valid=True, backend=self.public_name
            )
        else:
            name = "resample_trajectories"
            result = self._directly(name, name, data, times, targets, policy, lengths)
        return tuple(part.cpu() for part in result)

    def fuse(self, data_list, times_list, targets, policies=None, lengths_list=None):
        """`(data, valid)` of several streams side by side, through the public call where there is one."""
        policies = policies or [Linear()] * len(data_list)
        lengths_list = lengths_list or [None] * len(data_list)
        data_list, times_list, targets, lengths_list = map(self._here, (data_list, times_list, targets, lengths_list))
        if self.public_name:
            streams = {
                str(k): rc.Stream(data, times, policy, lengths)
                for k, (data, times, policy, lengths) in enumerate(
                    zip(data_list, times_list, policies, lengths_list, strict=True)
                )
            }
            fused = rc.fuse_streams(streams, targets, backend=self.public_name)
            return fused.data.cpu(), fused.valid.cpu()
        result = self._directly("fuse_multimodal", "fuse", data_list, times_list, targets, policies, lengths_list)
        return tuple(part.cpu() for part in result)

    def voxelize(self, points, features=None, mode="occupancy", **grid):
        """The dense grid, through the public call where there is one."""
        grid = {"grid_min": (0.0, 0.0, 0.0), "voxel_size": 1.0, "grid_size": (4, 4, 4)} | grid
        points, features = self._here(points), self._here(features)
        offsets = self._here(grid.pop("offsets", None))
        outside = grid.pop("outside", "drop")
        if self.public_name:
            return rc.voxelize_pointcloud(
                points, features, **grid, mode=mode, offsets=offsets, outside=outside, backend=self.public_name
            ).cpu()
        size = grid["voxel_size"]
        size = tuple(size) if isinstance(size, (list, tuple)) else (size,) * 3
        name, box = "voxelize_pointcloud", (grid["grid_min"], size, grid["grid_size"])
        return self._directly(name, name, points, features, *box, mode, offsets, outside).cpu()
