"""Put the streams of a recording on one clock.

An `Align` says which clock, which streams and what to do between two samples; `plan_alignment` works out the exact
target stamps and the rows that count; `align_episode` computes. Times are int64 nanoseconds throughout.

    spec = Align(clock=Rate(50), streams={"observation.state": From("/joint_states.position")})
    with open_recording("run.mcap") as recording:
        aligned = align_episode(recording.read_episode(0), spec)
    aligned.data["observation.state"]    # [T, D]
    aligned.valid["observation.state"]   # [T] bool
    aligned.age_ns["observation.state"]  # [T] int64: how old the sample used was
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robocache.align.aligned import AlignedEpisode, AlignedImages, AlignedScans
from robocache.align.plan import Plan, PlannedStream, plan_alignment
from robocache.align.spec import Align, Follow, From, Rate
from robocache.align.then import Resize, Voxelize

if TYPE_CHECKING:
    from robocache.align.execute import align_episode

__all__ = [
    "Align",
    "AlignedEpisode",
    "AlignedImages",
    "AlignedScans",
    "Follow",
    "From",
    "Plan",
    "PlannedStream",
    "Rate",
    "Resize",
    "Voxelize",
    "align_episode",
    "plan_alignment",
]


def __getattr__(name: str) -> object:
    # It computes with PyTorch, for which a description alone need not wait.
    if name != "align_episode":
        raise AttributeError(f"module 'robocache.align' has no attribute {name!r}")
    from robocache.align.execute import align_episode

    globals()[name] = align_episode
    return align_episode
