"""NVTX ranges, named stretches of time on the timeline of `nsys profile`, where `ROBOCACHE_NVTX=1` asks for them.

Whoever is not asked for ranges gets back the very function, or iterator, that was handed in: off costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import ParamSpec, TypeVar

import torch

from robocache.errors import BackendUnavailableError

NVTX = "ROBOCACHE_NVTX"
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Item = TypeVar("Item")


def ranges_are_on(environment: Mapping[str, str] | None = None) -> bool:
    """Whether the environment asks for ranges.

    Args:
        environment: None: the process's own.

    Raises:
        BackendUnavailableError: It does, and this PyTorch cannot make any.
    """
    value = (os.environ if environment is None else environment).get(NVTX, "")
    if value in ("", "0"):
        return False
    check_ranges(f"{NVTX}={value}", f"unset {NVTX}")
    return True


def check_ranges(asked_by: str, remedy: str) -> None:
    """Make a range, to see whether that is possible.

    Args:
        asked_by: Who asks for ranges: a variable or an option.
        remedy: How to ask for none.

    Raises:
        BackendUnavailableError: This PyTorch cannot make any.
    """
    try:
        _push("robocache: ranges are on")
        _pop()
    except RuntimeError as error:
        raise BackendUnavailableError(
            f"{asked_by} asks for NVTX ranges, which need a CUDA build of PyTorch, and this one is "
            f"{torch.__version__}; {remedy}"
        ) from error


def in_ranges(name: str, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, each of its calls in a range.

    Args:
        name: Of the range.
        function: What is called.

    Raises:
        BackendUnavailableError: Ranges are asked for, and this PyTorch cannot make any.
    """
    if not ranges_are_on():
        return function

    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        _push(name)
        try:
            return function(*arguments, **named)
        finally:
            _pop()

    return call


def items_in_ranges(name: str, items: Iterator[Item]) -> Iterator[Item]:
    """The items, the making of each in a range.

    Args:
        name: Of the range.
        items: A generator among them is closed with the iterator that is returned.

    Raises:
        BackendUnavailableError: Ranges are asked for, and this PyTorch cannot make any.
    """
    return _ranged(name, items) if ranges_are_on() else items


def _ranged(name: str, items: Iterator[Item]) -> Iterator[Item]:
    try:
        make = in_ranges(name, items.__next__)
        while True:
            try:
                item = make()
            except StopIteration:
                return
            yield item
            del item  # it is the consumer's alone
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _push(name: str) -> None:
    torch.cuda.nvtx.range_push(name)  # type: ignore[no-untyped-call]


def _pop() -> None:
    torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
