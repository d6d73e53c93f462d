"""Compute a planned alignment: one fused operation for all streams of a dtype, scans by index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.align.plan import Plan, PlannedStream, plan_alignment
from robocache.align.spec import Align
from robocache.errors import DeviceError, DTypeError
from robocache.ops import fuse_streams, resample_trajectories
from robocache.policies import Nearest, Policy
from robocache.records import Episode, Int64, RecordedStream, Stream

# torch computes with few unsigned dtypes; each goes to the signed one that holds all its values.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


@dataclass(frozen=True)
class AlignedScans:
    """A point-cloud stream on the clock of the result: which scan each frame uses.

    Args:
        stream: The recorded scans; scan k is `stream.values[stream.offsets[k]:stream.offsets[k + 1]]`.
        scan: [T] int64, the scan that each frame uses.
    """

    stream: RecordedStream
    scan: Int64

    def points(self, frame: int) -> npt.NDArray[np.generic]:
        """The points that one frame uses: [points, 3 or more], a view."""
        assert self.stream.offsets is not None  # a stream of kind "points" always has them
        scan = int(self.scan[frame])
        return self.stream.values[int(self.stream.offsets[scan]) : int(self.stream.offsets[scan + 1])]


@dataclass(frozen=True)
class AlignedEpisode:
    """One episode, every stream on the same clock.

    Args:
        name: The episode's name.
        source: The file it came from.
        times_ns: [T] int64 nanoseconds.
        data: By stream, [T, D] in the stream's own dtype.
        valid: By stream (clouds too), [T] bool, on the device of the data.
        age_ns: By stream (clouds too), [T] int64: frame minus the latest sample at or before it, or, with `Nearest`,
            minus the sample used, which may lie in the future (negative).
        fused: [T, sum of D]: the floating streams side by side, in the widest of their dtypes.
        slices: Where each floating stream's columns lie in `fused`.
        scans: The point clouds, by stream.
        columns: One name a column, by stream; empty where the recording gives none.
        policies: What was done between two samples, by stream; durations in nanoseconds.
        attributes: What else the recording said about the episode.
    """

    name: str
    source: str
    times_ns: Int64
    data: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    age_ns: Mapping[str, Int64]
    fused: Tensor
    slices: Mapping[str, slice]
    scans: Mapping[str, AlignedScans]
    columns: Mapping[str, tuple[str, ...]]
    policies: Mapping[str, Policy]
    attributes: Mapping[str, object]


def align_episode(
    episode: Episode, spec: Align, *, backend: str | None = None, device: torch.device | str | None = None
) -> AlignedEpisode:
    """Put every stream of an episode on one clock.

    Args:
        episode: As a reader gives it.
        spec: Which clock, which streams, which policies.
        backend: As for the operations: None picks the best for the device.
        device: Where to compute and where the result lives. None: the CPU.

    Raises:
        UnknownStreamError: The description names a stream that the episode does not have.
        ArgumentError: Streams without samples or without overlap, a policy that does not fit the data.
        DeviceError: There is no such device here.
        BackendUnavailableError: The backend cannot run here.
    """
    plan = plan_alignment(episode, spec)
    target = _device(device)
    data, valid, fused, slices = _align_vectors(plan, backend, target)
    scans: dict[str, AlignedScans] = {}
    for planned in plan.streams:
        if planned.stream.kind == "points":
            scans[planned.name], valid[planned.name] = _align_scans(planned, plan.times_ns, backend, target)
    return AlignedEpisode(
        name=episode.name,
        source=episode.source,
        times_ns=plan.times_ns,
        data=data,
        valid={planned.name: valid[planned.name] for planned in plan.streams},
        age_ns={planned.name: sample_age_ns(planned, plan.times_ns) for planned in plan.streams},
        fused=fused,
        slices=slices,
        scans=scans,
        columns={planned.name: planned.stream.columns for planned in plan.streams},
        policies={planned.name: planned.policy for planned in plan.streams},
        attributes=dict(episode.attributes),
    )


def sample_age_ns(planned: PlannedStream, times_ns: Int64) -> Int64:
    """How old the sample used is at each frame: [T] int64; negative where it lies in the future."""
    last = len(planned.times_ns) - 1
    before = np.searchsorted(planned.times_ns, times_ns, side="right") - 1
    age_ns = times_ns - planned.times_ns[np.clip(before, 0, last)]
    if isinstance(planned.policy, Nearest):
        ahead_ns = planned.times_ns[np.clip(before + 1, 0, last)] - times_ns
        age_ns = np.where((ahead_ns >= 0) & (ahead_ns < age_ns), -ahead_ns, age_ns)
    return age_ns.astype(np.int64, copy=False)


def _device(device: torch.device | str | None) -> torch.device:
    try:
        target = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise DeviceError(f"device must name one, such as 'cpu' or 'cuda:0', got {device!r}") from error
    if target.type == "cuda" and not (target.index or 0) < torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(f"device is {str(target)!r}, but PyTorch sees {count} CUDA devices; use device='cpu'")
    return target


def _align_vectors(
    plan: Plan, backend: str | None, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, dict[str, slice]]:
    groups: dict[torch.dtype, dict[str, Stream]] = {}
    for planned in plan.streams:
        if planned.stream.kind != "points":
            values = _to_tensor(planned.stream.values, planned.name, planned.rows).to(device)
            stream_times = torch.from_numpy(planned.times_ns).to(device)
            stream = Stream(values[None], stream_times[None], planned.policy)
            groups.setdefault(values.dtype, {})[planned.name] = stream
    target_times = torch.from_numpy(plan.times_ns).to(device)[None]
    data: dict[str, Tensor] = {}
    valid: dict[str, Tensor] = {}
    floating: list[Tensor] = []
    slices: dict[str, slice] = {}
    width = 0
    for dtype, streams in groups.items():
        fused = fuse_streams(streams, target_times, backend=backend)
        for column, (name, place) in enumerate(fused.slices.items()):
            data[name] = fused.data[0, :, place]
            valid[name] = fused.valid[0, :, column]
            if dtype.is_floating_point:
                slices[name] = slice(width + place.start, width + place.stop)
        if dtype.is_floating_point:
            floating.append(fused.data[0])
            width += fused.data.shape[-1]
    order = [planned.name for planned in plan.streams if planned.name in data]
    return {name: data[name] for name in order}, valid, _side_by_side(floating, len(plan.times_ns), device), slices


def _side_by_side(parts: list[Tensor], frames: int, device: torch.device) -> Tensor:
    if not parts:
        return torch.empty(frames, 0, device=device)
    if len(parts) == 1:
        return parts[0]
    widest = parts[0].dtype
    for part in parts[1:]:
        widest = torch.promote_types(widest, part.dtype)
    return torch.cat([part.to(widest) for part in parts], dim=-1)


def _align_scans(
    planned: PlannedStream, times_ns: Int64, backend: str | None, device: torch.device
) -> tuple[AlignedScans, Tensor]:
    # The operation itself chooses the scan, by carrying each scan's number: ties, twins and gaps then follow its rules.
    numbers = torch.from_numpy(planned.rows).to(device)[None, :, None]
    scan, valid = resample_trajectories(
        numbers,
        torch.from_numpy(planned.times_ns).to(device)[None],
        torch.from_numpy(times_ns).to(device)[None],
        policy=planned.policy,
        return_valid=True,
        backend=backend,
    )
    return AlignedScans(planned.stream, scan[0, :, 0].cpu().numpy()), valid[0]


def _to_tensor(values: npt.NDArray[np.generic], name: str, rows: Int64) -> Tensor:
    if values.dtype.kind not in "fiub" or values.dtype.itemsize > 8:
        message = f"stream {name!r} holds {values.dtype}, which cannot be aligned: only numbers and bools can"
        raise DTypeError(message)
    kept = values if len(rows) == len(values) else values[rows]
    if kept.dtype.name == "uint64" and kept.size and int(kept.max()) > np.iinfo(np.int64).max:
        raise DTypeError(f"stream {name!r} holds {int(kept.max())}, beyond the largest int64")
    dtype = np.dtype(_WIDER.get(kept.dtype.name, kept.dtype.newbyteorder("=")))
    # torch wants native byte order, and warns about memory that it may not write to.
    return torch.from_numpy(np.require(kept, dtype, ["C", "W", "O"]))
