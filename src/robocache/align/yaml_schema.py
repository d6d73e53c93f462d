"""The keys of an alignment written as YAML, and what each may hold. Reading and writing both follow these tables."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from robocache.align.then import Resize, Voxelize
from robocache.policies import Angle, Linear, Nearest, Previous, Slerp, Window

# How a value is read; `yaml_reading` has a function for each.
TEXT, WHOLE, NUMBER, FLAG, DURATION, SPAN, EDGES, TRIPLE, COUNTS, CORNERS = (
    "text",
    "a whole number",
    "a number",
    "true or false",
    "a duration such as 50ms, or a number in the unit of the times",
    "a duration such as 33ms, or whole nanoseconds",
    "one number or three",
    "three numbers",
    "three whole numbers",
    "two corners of three numbers",
)


@dataclass(frozen=True)
class Form:
    """One kind of object.

    Args:
        kind: Its class.
        keys: What each key holds.
    """

    kind: type[Any]
    keys: dict[str, str]

    @property
    def required(self) -> tuple[str, ...]:
        """The keys that must be there: those whose field has no default."""
        return tuple(field.name for field in fields(self.kind) if field.default is MISSING)


_SHARED = {"max_gap": DURATION, "outside": TEXT}

POLICIES = {
    "linear": Form(Linear, _SHARED),
    "previous": Form(Previous, _SHARED),
    "nearest": Form(Nearest, _SHARED),
    "slerp": Form(Slerp, _SHARED | {"order": TEXT}),
    "angle": Form(Angle, _SHARED | {"period": NUMBER}),
    "window": Form(Window, {"span": SPAN, "samples": WHOLE, "max_gap": DURATION}),
}
THENS = {
    "resize": Form(Resize, {"height": WHOLE, "width": WHOLE}),
    "voxelize": Form(
        Voxelize,
        {
            "size": EDGES,
            "range": CORNERS,
            "grid_min": TRIPLE,
            "grid_size": COUNTS,
            "mode": TEXT,
            "outside": TEXT,
        },
    ),
}
# Besides "policy" and "then", which hold one of the forms above.
STREAM_KEYS = {"source": TEXT, "latency": SPAN, "missing": TEXT, "horizon": WHOLE, "optional": FLAG}
TOP_KEYS = ("clock", "span", "streams")
CLOCK_KEYS = ("rate", "follow")
