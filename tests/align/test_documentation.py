"""The YAML of docs/align.md is what the library reads."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import robocache as rc
from robocache.align import yaml_schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "align.md"


def test_the_yaml_of_the_page_is_read_and_names_every_key():
    """Fails when a key is added to the schema and not to the page."""
    page = PAGE.read_text(encoding="utf-8")
    [text] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    spec = rc.Align.from_yaml(text)
    assert list(spec.streams) == list(yaml.safe_load(text)["streams"])
    assert rc.Align.from_yaml(spec.to_yaml()) == spec
    forms = [*yaml_schema.POLICIES.items(), *yaml_schema.THENS.items()]
    keys = {*yaml_schema.STREAM_KEYS, *(name for name, _ in forms), *(key for _, form in forms for key in form.keys)}
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
