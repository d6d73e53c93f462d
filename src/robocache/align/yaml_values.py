"""The values of an alignment written as YAML: each reader takes a node and gives a value of its type, or fails."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NoReturn

import yaml

from robocache.align import yaml_schema as schema

Fail = Callable[[yaml.Node, str, str], NoReturn]
Read = Callable[[Fail, yaml.Node, str], Any]


def is_null(node: yaml.Node) -> bool:
    """Whether it is nothing: null, or a key with nothing behind it.

    Args:
        node: A node of YAML's tree.
    """
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def shown(node: yaml.Node) -> str:
    """The node in an error.

    Args:
        node: A node of YAML's tree.
    """
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value[:60])
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _scalar(fail: Fail, node: yaml.Node, where: str, wanted: str) -> Any:  # noqa: ANN401
    """The value that YAML's safe loader makes of a plain scalar."""
    if not isinstance(node, yaml.ScalarNode):
        fail(node, where, f"must be {wanted}, got {shown(node)}")
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError):  # such as a day 31 in February
        fail(node, where, f"must be {wanted}, got {shown(node)}")
    finally:
        loader.dispose()


def text(fail: Fail, node: yaml.Node, where: str) -> str:
    """A scalar that is text.

    Args:
        fail: Raises an error at a node.
        node: What to read.
        where: The key, for errors.
    """
    value = _scalar(fail, node, where, schema.TEXT)
    if not isinstance(value, str):
        fail(node, where, f"must be text, got {shown(node)}; put it in quotes if it is meant so")
    return value


def _flag(fail: Fail, node: yaml.Node, where: str) -> bool:
    value = _scalar(fail, node, where, schema.FLAG)
    if not isinstance(value, bool):
        fail(node, where, f"must be {schema.FLAG}, got {shown(node)}")
    return value


def _number(fail: Fail, node: yaml.Node, where: str) -> float | int:
    value = _scalar(fail, node, where, schema.NUMBER)
    if isinstance(value, str):
        try:  # YAML 1.1 reads 1e-6, without a point, as text
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(node, where, f"must be {schema.NUMBER}, got {shown(node)}")
    return value


def _whole(fail: Fail, node: yaml.Node, where: str) -> int:
    value = _scalar(fail, node, where, schema.WHOLE)
    if isinstance(value, bool) or not isinstance(value, int):
        fail(node, where, f"must be {schema.WHOLE}, got {shown(node)}")
    return value


def ratio(fail: Fail, node: yaml.Node, where: str) -> float | Fraction:
    """A number, or a ratio such as 30000/1001.

    Args:
        fail: Raises an error at a node.
        node: What to read.
        where: The key, for errors.
    """
    value = _scalar(fail, node, where, "a number of frames a second")
    if isinstance(value, str):
        top, slash, bottom = value.partition("/")
        if slash and top.strip().isdecimal() and bottom.strip().isdecimal() and len(value) < 1000 and int(bottom):
            return Fraction(int(top), int(bottom))
    return _number(fail, node, where)


def _duration(fail: Fail, node: yaml.Node, where: str) -> float | int | str:
    value = _scalar(fail, node, where, schema.DURATION)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        fail(node, where, f"must be {schema.DURATION}, got {shown(node)}")
    return value


def _span(fail: Fail, node: yaml.Node, where: str) -> int | str:
    value = _scalar(fail, node, where, schema.SPAN)
    if isinstance(value, bool) or not isinstance(value, int | str):
        fail(node, where, f"must be {schema.SPAN}, got {shown(node)}")
    return value


def _list(read: Read, count: int, wanted: str) -> Read:
    def read_list(fail: Fail, node: yaml.Node, where: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != count:
            fail(node, where, f"must be {wanted}, got {shown(node)}")
        return tuple(read(fail, each, where) for each in node.value)

    return read_list


_TRIPLE = _list(_number, 3, schema.TRIPLE)


def _edges(fail: Fail, node: yaml.Node, where: str) -> Any:  # noqa: ANN401
    return _TRIPLE(fail, node, where) if isinstance(node, yaml.SequenceNode) else _number(fail, node, where)


READERS: dict[str, Read] = {
    schema.TEXT: text,
    schema.WHOLE: _whole,
    schema.NUMBER: _number,
    schema.FLAG: _flag,
    schema.DURATION: _duration,
    schema.SPAN: _span,
    schema.EDGES: _edges,
    schema.TRIPLE: _TRIPLE,
    schema.COUNTS: _list(_whole, 3, schema.COUNTS),
    schema.CORNERS: _list(_TRIPLE, 2, schema.CORNERS),
}
