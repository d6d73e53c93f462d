"""The worked example of docs/loader.md runs."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loader.md"


def test_the_worked_example_runs_and_has_the_shapes_it_says():
    """Fails when the example uses a name that is gone, or a comment's shape is no longer right."""
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    found = {}
    check = "\n        shapes = [list(eval(line.split('#')[0]).shape) for line in lines]"
    lines = re.findall(r"^        (batch.*?# \[.*)$", example, re.MULTILINE)
    found["lines"] = lines
    exec(compile(example.replace("\n        break", check + "\n        break"), str(PAGE), "exec"), found)
    said = [[int(n) for n in re.search(r"# \[([\d, ]+)\]", line)[1].split(",")] for line in lines]
    assert found["shapes"] == said
    assert len(said) == 4
    assert found["state"]["order"]["consumed"] == 32
