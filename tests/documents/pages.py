"""The code blocks of the documents, and how a block runs.

A block of Python runs as it stands, in the order of its page, in one namespace a page and in the folder of `world.py`.
A block that asks for a GPU says so in a comment, "needs CUDA", or asks whether there is one. Where there is none, it
runs with "cpu" in the place of "cuda", so that every name and argument in it is used all the same.
"""

from __future__ import annotations

import ast
import doctest
import re
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests/stress/README.md",
    ROOT / "benchmarks/README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "examples").glob("*.md")),
)
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# What a comment behind an expression says of its value: `# [32, 2, 7]`, `# (480, 640, 3)`, `# [T, D] bool`.
SAID = re.compile(r"#\s*([\[(])([\w ]+(?:, [\w ]+)*)[\])](?: (bool|int64|uint8|float32|float64)\b)?")
CUDA = re.compile(r"""(["'])cuda\1""")
NEEDS_CUDA = "needs CUDA"


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        page: Its file.
        line: Where its first line of code stands.
        language: What follows the fence.
        text: The code.
    """

    page: Path
    line: int
    language: str
    text: str


def blocks(page, text=None):
    """Every block of a page."""
    text = page.read_text(encoding="utf-8") if text is None else text
    found = []
    for fence in FENCE.finditer(text):
        indent = len(fence[1])
        code = "".join(line[indent:] if line.strip() else "\n" for line in fence[3].splitlines(keepends=True))
        found.append(Block(page, text[: fence.start()].count("\n") + 2, fence[2].strip(), code))
    return found


def run_python(block, namespace, *, has_cuda=None):
    """Run one block, its shown shapes compared; returns how many were."""
    has_cuda = torch.cuda.is_available() if has_cuda is None else has_cuda
    text = block.text
    if CUDA.search(text) or ".cuda()" in text:
        is_said = NEEDS_CUDA in text or "is_available()" in text
        assert is_said, f"{block.page.name}:{block.line} asks for a GPU and does not say '{NEEDS_CUDA}'"
        text = text if has_cuda else CUDA.sub(r"\1cpu\1", text)
    if text.lstrip().startswith(">>>"):
        _run_doctest(block, text, namespace)
        return 0
    shown = Shown(block)
    tree = shown.visit(ast.parse(text, filename=str(block.page)))
    ast.increment_lineno(ast.fix_missing_locations(tree), block.line - 1)
    namespace["_shown"] = shown.compare
    exec(compile(tree, str(block.page), "exec"), namespace)
    assert shown.places == shown.compared, f"{block.page.name}: never reached: {shown.places - shown.compared}"
    return len(shown.compared)


class Shown(ast.NodeTransformer):
    """Hands the value of each expression that stands alone, with a comment that gives its shape, to `compare`."""

    def __init__(self, block):
        self.block, self.lines = block, block.text.splitlines()
        self.places, self.compared = set(), set()

    def visit_Expr(self, node):
        said = SAID.search(self.lines[node.end_lineno - 1], node.end_col_offset)
        if said is None:
            return node
        self.places.add(node.lineno)
        call = ast.Call(ast.Name("_shown", ast.Load()), [node.value, ast.Constant(node.lineno)], [])
        return ast.copy_location(ast.Expr(call), node)

    def compare(self, value, line):
        """Only the first value that comes: the last batch of an epoch is smaller."""
        if line in self.compared:
            return
        self.compared.add(line)
        said = SAID.search(self.lines[line - 1])
        shape = tuple(value) if said[1] == "(" else tuple(value.shape)
        where = f"{self.block.page.name}:{self.block.line + line - 1}: {said[0]!r}, but the shape is {shape}"
        sizes = said[2].split(", ")
        assert len(sizes) == len(shape), where
        assert all(not size.isdigit() or int(size) == there for size, there in zip(sizes, shape, strict=True)), where
        assert said[3] is None or str(value.dtype).endswith(said[3]), f"{where} of {value.dtype}"


def _run_doctest(block, text, namespace):
    example = doctest.DocTestParser().get_doctest(text, namespace, block.page.name, str(block.page), block.line - 1)
    report = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append, clear_globs=False)
    assert not report, "".join(report)
    namespace.update(example.globs)  # it works on a copy
