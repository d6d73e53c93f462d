"""Examples in docstrings run too."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import robocache as rc
from robocache.cache.dataset import EpisodeArrays, Feature
from robocache.testing import MemoryDataset

from .pages import Block, blocks, run_python  # noqa: TID252 -- tests are not an installed package


@cache
def examples():
    """(where, block) of every example in the docstrings of the package."""
    found = []
    for info in pkgutil.walk_packages(rc.__path__, "robocache."):
        if re.search(r"\.triton_|__main__$|peers_", info.name):
            continue  # kernels need Triton, peers other libraries; neither has an example
        module = importlib.import_module(info.name)
        for name, item in vars(module).items():
            if getattr(item, "__module__", None) == info.name and inspect.getdoc(item):
                found += [(f"{info.name}.{name}", block) for block in blocks_of(inspect.getdoc(item), info.name)]
    return found


def blocks_of(text, module):
    prompts = re.findall(r"(?:^ *>>>.*\n?(?:^ *\S.*\n?)*)+", text, re.MULTILINE)
    return [
        *blocks(Path(module), text),
        *(Block(Path(module), 1, "python", inspect.cleandoc(p) + "\n") for p in prompts),
    ]


def given():
    """What the text around an example lets the reader have already."""
    values = np.zeros((800, 7), np.float32)
    arrays = {name: np.zeros(800, np.int64) for name in ("times_ns", "age_ns")} | {"valid": np.ones(800, bool)}
    features = {"observation.state": Feature("observation.state", "numbers", values.dtype, (7,))}
    state = {"observation.state": values}
    episode = EpisodeArrays(
        arrays["times_ns"], state, {"observation.state": arrays["valid"]}, {"observation.state": arrays["age_ns"]}
    )
    dataset = MemoryDataset(features, [episode])
    return arrays | {
        "np": np, "torch": torch, "rc": rc, "robocache": rc, "dataset": dataset, "values": values,
        "rank": 0, "samples": range(1000),
        "world_size": 2, "read": lambda path: iter([values]), "path": "run.mcap",
        "DataLoader": torch.utils.data.DataLoader,
    }  # fmt: skip


def test_examples_of_the_package_run(world):
    """Fails when an example in a docstring uses what is not there."""
    assert len(examples()) >= 9
    for where, block in examples():
        namespace = given() | vars(importlib.import_module(str(block.page)))
        try:
            run_python(block, namespace)
        except Exception as error:
            raise AssertionError(f"the example of {where} does not run") from error


@pytest.mark.parametrize(
    "text",
    ["Do.\n\n```python\nno_such_name\n```\n", "Do.\n\nExample:\n    >>> 1 + 1\n    3\n", ">>> rc.no_such()\n"],
)
def test_a_broken_example_fails(text):
    """Fails when an example is passed over."""
    [block] = blocks_of(inspect.cleandoc(text), "robocache")
    with pytest.raises((NameError, AssertionError)):
        run_python(block, {"rc": rc})
