"""House rules that no linter knows. `CONTRIBUTING.md` says them in words; each test names the edit it catches.

Every rule is a function of a folder, so that `test_the_rules_catch` can show it a house that breaks them all.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import robocache

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 300
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
OP_FILES = ("__init__.py", "reference.py", "torch_backend.py", "triton_kernel.py", "cases.py")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cff", ".json", ".html", ".cfg", ".sh", ""}
# A home, a workspace or a mount: the first folders under which a checkout lies on somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|workspace|root|home|Users|mnt)/[\w.]")


def repository_files(root: Path) -> Iterator[Path]:
    """Every file of the repository: what .gitignore names (build results, environments) is left out."""
    ignored = [line.rstrip("/") for line in (root / ".gitignore").read_text().split()] + [".git"]

    def is_ignored(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in ignored)

    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        yield from (Path(folder, name) for name in sorted(names) if not is_ignored(name))


def long_files(root: Path) -> list[str]:
    sources = [path for path in repository_files(root) if path.suffix == ".py"]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    return [f"{path.relative_to(root)}: {n} lines" for path, n in lengths.items() if n > MAX_LINES]


def vague_names(root: Path) -> list[str]:
    relative = [path.relative_to(root) for path in repository_files(root)]
    return [str(path) for path in relative if any(Path(part).stem in VAGUE_NAMES for part in path.parts)]


def op_folders(root: Path) -> list[Path]:
    folders = (root / "src/robocache/ops").iterdir()
    return [folder for folder in sorted(folders) if folder.is_dir() and folder.name != "__pycache__"]


def incomplete_ops(root: Path) -> list[str]:
    folders = op_folders(root)
    missing = [] if folders else ["src/robocache/ops holds no op"]
    for folder in folders:
        wanted = [folder / name for name in OP_FILES]
        missing += [str(path.relative_to(root)) for path in wanted if not path.is_file()]
        if not list((root / "tests/ops").glob(f"test_{folder.name}*.py")):
            missing.append(f"tests/ops/test_{folder.name}.py")
    return missing


def prints_and_exits(root: Path) -> list[str]:
    """Calls that print or exit in any room but cli; a function called `print_…` may print, that is its job."""
    found = []
    package = root / "src/robocache"
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] == "cli":
            continue
        where = path.relative_to(root)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        found += [f"{where}:{line}: {what}" for line, what in _prints_and_exits(tree)]
    return found


def _prints_and_exits(tree: ast.AST, *, may_print: bool = False) -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        is_printer = isinstance(node, ast.FunctionDef) and node.name.startswith("print_")
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"sys.exit", "os._exit", "exit", "quit"} or (called == "print" and not may_print):
                yield node.lineno, called
        if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
            yield node.lineno, "raise SystemExit"
        yield from _prints_and_exits(node, may_print=may_print or is_printer)


def machine_paths(root: Path) -> list[str]:
    found = []
    for path in repository_files(root):
        if path.suffix not in TEXT_SUFFIXES:
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{path.relative_to(root)}:{n}: {s}" for n, s in enumerate(lines, 1) if MACHINE_PATH.search(s)]
    return found


def undocumented(name: str, item: object) -> list[str]:
    """What is missing from the docstrings of a public function or class: all of it, or an argument."""
    if not (inspect.isclass(item) or inspect.isroutine(item)):
        return []
    own = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
    # Dataclasses and named tuples without a docstring are given their signature for one.
    if not own or own.startswith(f"{item.__name__}("):
        return [f"{name} has no docstring"]
    if inspect.isclass(item) and issubclass(item, BaseException):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = [p.name for p in inspect.signature(item).parameters.values() if p.kind not in variadic]
    return [f"{name} does not document {parameter}" for parameter in parameters if parameter not in documented(item)]


def documented(item: object) -> set[str]:
    """The names in the `Args:` sections of a function's docstring, or of a class's and its bases'."""
    holders = item.__mro__ if inspect.isclass(item) else [item]
    text = "\n".join(inspect.cleandoc(holder.__doc__ or "") for holder in holders)
    sections = re.findall(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    lines = re.findall(r"^    (\w+(?:, \w+)*)(?: \(.*\))?:", "\n".join(sections), re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


def missing_commands(commands: list[str], root: Path) -> list[str]:
    pages = [page for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))) if page.is_file()]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return [name for name in commands if not re.search(rf"robocache {re.escape(name)}(?![\w-])", text)]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    run = "from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", run, "--no-cache", "--no-logo"]
    # The checkout that holds this file, also where another one is installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("rule", [long_files, vague_names, incomplete_ops, prints_and_exits, machine_paths])
def test_files_keep_the_house_rule(rule):
    """Fails when the repository gets one of the faults that `test_the_rules_catch` puts into a house."""
    assert rule(ROOT) == []


def test_the_rules_catch(tmp_path):
    """Fails when a rule stops seeing its fault, or sees one in the innocent neighbour beside it."""
    files = {
        ".gitignore": ".venv/\n*.so\n",
        ".venv/utils.py": "x\n" * 301,
        "common.so": "",
        "long.py": "x\n" * 301,
        "full.py": "x\n" * 300,
        "docs/helpers/page.md": "https://example.org/home/page\nsee {0}root/.venv\n{0}work/x\n".format("/"),
        "src/robocache/ops/resample/__init__.py": "import sys\n\ndef f():\n    sys.exit(1)\n",
        "src/robocache/ops/print_it.py": "def print_it():\n    print(1)\n\ndef f():\n    print(2)\n",
        "src/robocache/stress/burn.py": "def f():\n    raise SystemExit\n",
        "src/robocache/cli/main.py": "import sys\nprint(1)\nsys.exit()\n",
        "tests/ops/test_other.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    op = "src/robocache/ops/resample/"
    others = ["reference.py", "torch_backend.py", "triton_kernel.py", "cases.py"]
    assert long_files(tmp_path) == ["long.py: 301 lines"]
    assert vague_names(tmp_path) == ["docs/helpers/page.md"]
    assert incomplete_ops(tmp_path) == [*(op + name for name in others), "tests/ops/test_resample.py"]
    assert [found.split()[0] for found in machine_paths(tmp_path)] == [
        "docs/helpers/page.md:2:",
        "docs/helpers/page.md:3:",
    ]
    assert prints_and_exits(tmp_path) == [
        "src/robocache/ops/print_it.py:5: print",
        "src/robocache/ops/resample/__init__.py:4: sys.exit",
        "src/robocache/stress/burn.py:2: raise SystemExit",
    ]


def test_imports_point_down():
    """Fails when a room imports from one above it, or when a room is added that no layer names."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_upward_import_is_caught(tmp_path):
    """Fails when the contract is removed from pyproject.toml, or a layer in it moves: here errors imports ops."""
    shutil.copytree(ROOT / "src/robocache", tmp_path / "src/robocache", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src/robocache/errors.py").open("a") as errors:
        errors.write("\nimport robocache.ops\n")
    upward = lint_imports(tmp_path)
    assert upward.returncode == 1
    assert "robocache.errors is not allowed to import robocache.ops" in " ".join(upward.stdout.split())


def test_public_names_are_documented():
    """Fails when a name in `__all__` has no docstring, or an argument of it is not in an `Args:` section."""
    assert robocache.__all__, "robocache exports nothing"
    missing = [problem for name in robocache.__all__ for problem in undocumented(name, getattr(robocache, name))]
    assert missing == []


def test_a_missing_argument_is_caught():
    """Fails when `undocumented` overlooks a missing docstring or argument, or asks a subclass to repeat its base."""

    def silent(values):
        pass

    def documented_in_part(values, times, *, policy=None):
        """Do something.

        Args:
            values, times: [batch] numbers.
        """

    @dataclasses.dataclass
    class Base:
        """A base.

        Args:
            gap: The longest pause.
        """

        gap: int = 0

    @dataclasses.dataclass
    class Child(Base):
        """A child."""

    @dataclasses.dataclass
    class Silent(Base):
        pass

    assert undocumented("silent", silent) == ["silent has no docstring"]
    assert undocumented("part", documented_in_part) == ["part does not document policy"]
    assert undocumented("Child", Child) == []
    assert undocumented("Silent", Silent) == ["Silent has no docstring"]


def test_every_command_is_in_the_documentation():
    """Fails when a command is added to the command line and to neither README.md nor docs/."""
    commands = importlib.import_module("robocache.cli.main")
    app = next(value for value in vars(commands).values() if isinstance(value, typer.Typer))
    names = sorted(typer.main.get_group(app).commands)
    assert names, "the command line has no commands"
    assert missing_commands(names, ROOT) == []


def test_an_undocumented_command_is_caught(tmp_path):
    """Fails when a command counts as documented because another one begins with its name."""
    (tmp_path / "README.md").write_text("`robocache align PATH --rate 50`, `robocache demo-all`")
    assert missing_commands(["align", "demo", "doctor"], tmp_path) == ["demo", "doctor"]
