"""The catalogue: what a fault is, and the means by which all of them reach into RoboCache from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from robocache import ops
from robocache.errors import ArgumentError

Injection = Callable[[str], Iterator[None]]
OPERATIONS = ("resample_trajectories", "fuse_multimodal", "fuse_streams", "voxelize_pointcloud")
EVERYWHERE = ("cpu", "cuda")
ON_A_CPU, ON_A_GPU = ("cpu",), ("cuda",)


@dataclass(frozen=True)
class Fault:
    """One way in which RoboCache, or what it stands on, could be broken.

    Args:
        name: What is broken.
        description: The same in a sentence, for people.
        scenario: The stress scenario that must notice.
        reason: Regular expression that what the scenario says must match: noticed for its own reason.
        devices: Where it can be injected, of "cpu" and "cuda".
        inject: Generator of a context manager; takes the device.
    """

    name: str
    description: str
    scenario: str
    reason: str
    devices: tuple[str, ...]
    inject: Injection

    def injected(self, device: str = "cpu") -> contextlib.AbstractContextManager[None]:
        """Broken within the `with` block, whole again after it.

        Args:
            device: "cpu", "cuda" or "cuda:1".

        Raises:
            ArgumentError: The fault does not exist on that device.
        """
        if device.split(":", maxsplit=1)[0] not in self.devices:
            raise ArgumentError(f"{self.name} can be injected on {' and '.join(self.devices)}, not on {device}")
        return contextlib.contextmanager(self.inject)(device)


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, description: str, *, scenario: str, reason: str, devices: tuple[str, ...] = EVERYWHERE
) -> Callable[[Injection], Injection]:
    """Put the decorated generator into the catalogue.

    Args:
        name: As in `Fault`.
        description: As in `Fault`.
        scenario: As in `Fault`.
        reason: As in `Fault`.
        devices: As in `Fault`.
    """

    def add(inject: Injection) -> Injection:
        FAULTS[name] = Fault(name, description, scenario, reason, devices, inject)
        return inject

    return add


@contextlib.contextmanager
def wrapped(owner: object, name: str, around: Callable[..., Any]) -> Iterator[None]:
    """`owner.name` replaced by a call of `around(original, *args, **kwargs)`.

    Args:
        owner: A module or a class.
        name: Of its function or method.
        around: Gets the original first.
    """
    original = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  whatever the original takes
        return around(original, *args, **kwargs)

    with mock.patch.object(owner, name, call):
        yield


@contextlib.contextmanager
def after_every_call(action: Callable[[], object]) -> Iterator[None]:
    """`action` runs after each call of any operation.

    Args:
        action: Whatever it does, the results stay right.
    """

    def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(*args, **kwargs)
        action()
        return result

    with contextlib.ExitStack() as stack:
        for name in OPERATIONS:
            stack.enter_context(wrapped(ops, name, around))
        yield
