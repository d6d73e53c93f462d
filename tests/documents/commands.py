"""The commands in the documents: each is parsed by the command line itself, quick ones are run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib

import typer
from typer.testing import CliRunner

from robocache.cli.main import app

from .pages import ROOT  # noqa: TID252 -- tests are not an installed package

USAGE_ERROR = typer.BadParameter.__base__  # click's, or that of the click inside typer: versions differ
SHELL = ("bash", "sh", "console", "")
# What ends within a second or two on recordings of a few seconds.
QUICK = {"inspect", "align", "build", "cache", "doctor"}


def command_lines(block):
    """Each line of a shell block as words, without comments, prompts and what follows a pipe."""
    if block.language not in SHELL:
        return []
    lines = [re.sub(r"^\$ ", "", line) for line in block.text.splitlines()]
    return [shlex.split(line.split(" | ")[0], comments=True) for line in lines if is_command(line)]


def is_command(line):
    return re.match(r"(\S+=\S+ )*(robocache|make|python -m|pip install|nsys profile)\b", line) is not None


def robocache_words(words):
    """The part of a command line that is a call of robocache, behind variables and profilers; None: there is none."""
    place = next((at for at, word in enumerate(words) if word.split("/")[-1] == "robocache"), None)
    return None if place is None else words[place + 1 :]


def inline_calls(text):
    """Calls of robocache between single backticks, as words."""
    return [shlex.split(call) for call in re.findall(r"(?<!`)`robocache ([a-z][^`\n]*)`", text)]


def problem_of(words, *, is_whole=True):
    """Why the command line refuses these words, without running them; None: it takes them.

    Of a call in the middle of a sentence, which is not `is_whole`, the arguments may be missing.
    """
    command, name = typer.main.get_command(app), "robocache"
    try:
        while hasattr(command, "commands"):
            if not words:
                return "names no command"
            name, words = words[0], words[1:]
            if name == "--help":
                return None
            if name not in command.commands:
                return f"no command {name!r}"
            command = command.commands[name]
        command.make_context(name, list(words))
    except USAGE_ERROR as error:
        kind = type(error).__name__
        return None if kind == "MissingParameter" and not is_whole else f"{kind}: {error}"
    return None


def run_quick(words):
    """Run what is quick. Returns what went wrong, None for nothing or for what is not run."""
    if not words or words[0] not in QUICK:
        return None
    result = CliRunner().invoke(app, words)
    return None if result.exit_code == 0 else f"exit code {result.exit_code}: {result.output}"


def missing_part(words):
    """What a command that is not ours to parse needs of the repository and does not find."""
    words = [word for word in words if not re.match(r"\w+=", word)]
    match words:
        case ["make", *targets]:
            known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            return next((f"make has no target {target}" for target in targets if target not in known), None)
        case ["python", "-m", str(module), *_] if module.startswith(("benchmarks.", "robocache.")):
            path = ROOT / f"{module.replace('.', '/')}.py"
            is_there = path.is_file() or importlib.util.find_spec(module) is not None
            return None if is_there else f"no module {module}"
        case ["pip", "install", *wanted]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = [extra for word in wanted for part in re.findall(r"\[(.+)\]", word) for extra in part.split(",")]
            return next((f"no extra {extra}" for extra in named if extra not in extras), None)
    return None
