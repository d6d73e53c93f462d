"""What the nightly workflow and the pages on stress tell people to run exists: commands, options, variables, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from robocache.cli.main import app

pytestmark = [pytest.mark.slow, pytest.mark.stress, pytest.mark.timeout(60)]
ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/stress_tests.yml"
PAGES = (ROOT / "docs/stress.md", ROOT / "tests/stress/README.md")
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").rglob("*.py")))


def workflow():
    parsed = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return parsed[True], parsed["jobs"]  # YAML 1.1 reads `on` as a boolean


def scripts(job):
    return [line.strip() for step in job["steps"] for line in step.get("run", "").splitlines()]


def commands_of(text):
    """Every line of a code block that calls robocache, as words."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line.split(" | ")[0], comments=True) for line in lines if re.match(r"\S*robocache ", line)]


def unknown_options(words):
    """The options of a command line that the command does not have; its own name, if there is no such command."""
    command, words = typer.main.get_command(app), list(words[1:])
    while hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in {*known, "--help"}]


def test_the_suite_runs_every_night_on_a_gpu_of_ones_own():
    """Catches a schedule that is not the seed's, a hosted runner without a GPU, and a GPU that may be missing."""
    triggers, jobs = workflow()
    assert triggers["schedule"][0]["cron"] == "0 0 * * *"
    assert {tuple(job["runs-on"]) for job in jobs.values()} == {("self-hosted", "linux", "gpu")}
    assert yaml.safe_load(WORKFLOW.read_text())["env"]["ROBOCACHE_REQUIRE_GPU"] == "1"
    assert any("pytest tests/stress/ -m slow -v -s" in line for line in scripts(jobs["stress"]))


def test_each_schedule_starts_one_job():
    """Catches a kill matrix that runs every night, or never: its condition names the weekly schedule."""
    triggers, jobs = workflow()
    weekly = triggers["schedule"][1]["cron"]
    assert weekly.split()[4] == "0"
    assert f"github.event.schedule == '{weekly}'" in jobs["kill-matrix"]["if"]
    assert f"github.event.schedule != '{weekly}'" in jobs["stress"]["if"]


def test_report_junit_and_log_are_kept_whatever_happens():
    """Catches a failed run, of all runs, that leaves no report; and files written beside the folder that is kept."""
    _, jobs = workflow()
    for job, suffixes in (("stress", {".jsonl", ".html", ".xml", ".log"}), ("kill-matrix", {".json"})):
        (upload,) = [step for step in jobs[job]["steps"] if step.get("uses", "").startswith("actions/upload-artifact")]
        assert upload["if"] == "always()"
        folder = upload["with"]["path"]
        written = {Path(word).suffix for line in scripts(jobs[job]) for word in line.split() if f"{folder}/" in word}
        assert suffixes <= written


def test_the_workflow_calls_commands_that_exist():
    _, jobs = workflow()
    lines = [line for job in jobs.values() for line in scripts(job) if "robocache " in line]
    assert len(lines) == 3
    assert [unknown_options(shlex.split(line)) for line in lines] == [[]] * 3


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_documented_commands_and_variables_exist(page):
    """Catches an option renamed in the code and not on the page, and a variable that nothing reads."""
    text = page.read_text(encoding="utf-8")
    assert {" ".join(words): unknown for words in commands_of(text) if (unknown := unknown_options(words))} == {}
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    names = set(re.findall(r"\b(?:ROBOCACHE|STRESS)_[A-Z_]+\b", text))
    assert {name for name in names if f'"{name}"' not in SOURCES + tests} == set()
    files = re.findall(r"pytest (tests/\S+?\.py)(?:::(\w+))?", text)
    assert all((ROOT / file).is_file() and test in (ROOT / file).read_text() for file, test in files)


def test_every_trouble_of_the_seed_has_a_command():
    """Catches a trouble that is dropped, or answered without a command to see it."""
    text = PAGES[0].read_text(encoding="utf-8").split("## Troubleshooting")[1].split("\n## ")[0]
    for trouble, command in (
        ("**Out of memory", "ROBOCACHE_BATCH_SIZE=2"),
        ("**Slow progress", "nvidia-smi dmon -s u"),
        ("**A leak that is none", "--gpu-leak-mb 200"),
    ):
        assert command in text.split(trouble)[1].split("\n**")[0]


def test_an_option_that_is_not_there_is_seen():
    assert unknown_options(["robocache", "burn-in", "--no-such"]) == ["--no-such"]
    assert unknown_options(["robocache", "stress", "burn"]) == ["burn"]
    assert commands_of("```bash\nrobocache demo --out x  # why\n```\nrobocache other\n") == [
        ["robocache", "demo", "--out", "x"]
    ]
