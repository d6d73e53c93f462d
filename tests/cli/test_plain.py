"""Output that goes to no terminal: what rich prints there, without rich."""

import io
import sys

import numpy as np
import pytest

from robocache.cli.console import Printer
from robocache.cli.plain import plain_stream, table_lines
from robocache.cli.terminal import console, print_table

RANDOM = np.random.default_rng(0)
WORDS = ("", "a", "/imu/data.orientation", "29.99 Hz", "-", "0.0%", "header +36.3 to +20.7 ms", "x" * 60)


def shown(print_it, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_it()
    return sys.stdout.getvalue()


@pytest.mark.parametrize("case", range(30))
def test_a_plain_table_is_what_rich_prints(monkeypatch, case):
    """Judged by rich. Fails when a column's width or side, or the space between two, is another one."""
    columns, rows, left = RANDOM.integers(1, 7), RANDOM.integers(0, 9), int(RANDOM.integers(0, 4))
    header = [f"title {number}" for number in range(columns)]
    cells = [[str(word) for word in RANDOM.choice(WORDS, columns)] for _ in range(rows)]
    lines = table_lines(header, cells, left=left)
    assert lines is not None
    by_rich = shown(lambda: print_table(console(stderr=False), header, cells, left=left), monkeypatch)
    assert by_rich == "\n".join(lines) + "\n"
    ours = shown(lambda: Printer(json_output=False).table(header, cells, left=left), monkeypatch)
    assert ours == by_rich


@pytest.mark.parametrize("cell", ["速度", "two\nlines", "x" * 401, " a"], ids=["wide", "lines", "long", "space"])
def test_what_is_not_as_wide_as_its_characters_is_left_to_rich(monkeypatch, cell):
    """Fails when a wide character counts as one column, or a table that folds is printed as it is."""
    arguments = (["a", "b"], [[cell, "1"], ["y", "22"]])
    by_rich = shown(lambda: print_table(console(stderr=False), *arguments, left=1), monkeypatch)
    assert shown(lambda: Printer(json_output=False).table(*arguments), monkeypatch) == by_rich


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_who_asks_for_colour_gets_what_a_terminal_does(monkeypatch, variable):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert plain_stream(stderr=False) is sys.stdout
    monkeypatch.setenv(variable, "1")
    assert plain_stream(stderr=False) is None
    assert "\x1b[1m" in shown(lambda: Printer(json_output=False).table(["a"], [["b"]]), monkeypatch)


def test_a_line_without_a_terminal_is_printed_as_it_is(monkeypatch):
    """Fails when brackets are taken for rich's markup, a line is folded, or ESC reaches whoever reads."""
    text = "[bold]a[/bold] " + "b " * 400 + "\x1b[2J"
    assert shown(lambda: Printer(json_output=False).say(text), monkeypatch) == text.replace("\x1b", r"\x1b") + "\n"
