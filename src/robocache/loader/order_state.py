"""What tells where an order stands."""

from __future__ import annotations

from typing import TypedDict


class OrderState(TypedDict):
    """Where an order stands, and of which order that is; plain numbers and texts, so that JSON can hold it."""

    version: int
    fingerprint: str
    samples: str
    seed: int
    epoch: int
    consumed: int
