"""Every document runs: its Python in order, its quick commands, and the command line takes the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from .commands import command_lines, inline_calls, missing_part, problem_of, robocache_words, run_quick  # noqa: TID252
from .pages import NEEDS_CUDA, PAGES, ROOT, Block, blocks, run_python  # noqa: TID252

# Blocks of Python, and shapes shown in them, of the pages that have some: what is not found would pass.
FOUND = {
    "README.md": (6, 11),
    "docs/align.md": (2, 6),
    "docs/cache.md": (2, 2),
    "docs/images.md": (1, 2),
    "docs/lerobot.md": (2, 0),
    "docs/loader.md": (3, 4),
    "docs/stress.md": (1, 0),
}


def run_page(page, text=None):
    """Run a page's blocks in order; returns how many of Python there were and how many shapes were compared."""
    namespace, python, shapes = {"__name__": "__page__"}, 0, 0
    for block in blocks(page, text):
        if block.language == "python":
            python, shapes = python + 1, shapes + run_python(block, namespace)
        for words in command_lines(block):
            ours = robocache_words(words)
            problem = missing_part(words) if ours is None else problem_of(ours) or run_quick(ours)
            assert problem is None, f"{page.name}:{block.line}: {' '.join(words)}: {problem}"
    return python, shapes


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_runs(page, world):
    """Fails when a block uses a name, argument, option, stream or shape that is not there."""
    assert run_page(page) == FOUND.get(str(page.relative_to(ROOT)), (0, 0))
    text = page.read_text(encoding="utf-8")
    calls = [(words, problem_of(words, is_whole=False)) for words in inline_calls(text)]
    assert [(words, problem) for words, problem in calls if problem is not None] == []


BROKEN = {
    "a name": ("python", "import robocache as rc\nrc.no_such_name\n", AttributeError),
    "an argument": ("python", "import robocache as rc\nrc.Rate(50, speed=2)\n", TypeError),
    "a shape": ("python", "import torch\ntorch.ones(3, 2)  # [3, 4]\n", AssertionError),
    "a dtype": ("python", "import torch\ntorch.ones(3)  # [T] bool\n", AssertionError),
    "a shape that never comes": ("python", "import torch\nif 0:\n    torch.ones(3)  # [3]\n", AssertionError),
    "a result": ("python", ">>> 1 + 1\n3\n", AssertionError),
    "a file": ("python", "import robocache as rc\nrc.open_recording('no.mcap')\n", Exception),
    "a GPU without saying so": ("python", "import torch\ntorch.ones(1, device='cuda')\n", AssertionError),
    "an option": ("bash", "robocache burn-in --no-such 1\n", AssertionError),
    "a value of an option": ("", "robocache demo --seconds many\n", AssertionError),
    "a missing argument": ("", "robocache inspect\n", AssertionError),
    "a command": ("bash", "robocache burn --hours 1\n", AssertionError),
    "a stream": ("bash", "robocache align run.mcap --rate 5 --streams /nothing --out nothing\n", AssertionError),
    "a target": ("bash", "make no-such\n", AssertionError),
    "a module": ("bash", "python -m benchmarks.no_such\n", AssertionError),
    "an extra": ("bash", "pip install -e '.[nothing]'\n", AssertionError),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_block_fails(broken, world):
    """Fails when a block is passed over, or its mistake is swallowed."""
    language, code, error = BROKEN[broken]
    with pytest.raises(error):
        run_page(Path("page.md"), f"text\n\n```{language}\n{code}```\n")


def test_a_block_for_a_gpu_runs_on_the_cpu_where_there_is_none():
    """Fails when the mark alone lets a block through."""
    code = f"import torch\nmade = torch.ones(1, device='cuda')  # {NEEDS_CUDA}\nmade.no_such\n"
    block, namespace = Block(Path("page.md"), 1, "python", code), {}
    with pytest.raises(AttributeError, match="no_such"):
        run_python(block, namespace, has_cuda=False)
    assert namespace["made"].device.type == "cpu"


def test_blocks_share_a_namespace_and_shapes_are_compared():
    first = "```python\nimport numpy as np\nx = np.zeros((2, 3), bool)\n```\n"
    assert run_page(Path("page.md"), f"{first}\n- a list\n\n  ```python\n  x  # [T, 3] bool\n  ```\n") == (2, 1)
