"""Compute a planned alignment: one fused operation for all streams of a dtype, scans by index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robocache.align.aligned import NO_SAMPLE_NS, AlignedEpisode, AlignedImages, AlignedScans
from robocache.align.plan import Plan, PlannedStream, plan_alignment
from robocache.align.spec import Align
from robocache.align.then import Resize, Voxelize
from robocache.align.windows import window_places
from robocache.errors import DeviceError, DTypeError
from robocache.ops import fuse_streams, resample_trajectories
from robocache.policies import Nearest, Policy, Window
from robocache.records import Episode, Int64, RecordedStream, Stream

# torch computes with few unsigned dtypes; each goes to the signed one that holds all its values.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}


def align_episode(
    episode: Episode,
    spec: Align,
    *,
    backend: str | None = None,
    device: torch.device | str | None = None,
    like: Mapping[str, RecordedStream] | None = None,
) -> AlignedEpisode:
    """Put every stream of an episode on one clock.

    Args:
        episode: As a reader gives it.
        spec: Which clock, which streams, which policies.
        backend: As for the operations: None picks the best for the device.
        device: Where to compute and where the result lives. None: the CPU.
        like: By the names in recordings: streams of other episodes (`other.streams`). An optional stream that this
            episode lacks then stands in the result with their kind, dtype and width, never valid; without it, it is
            left out.

    Raises:
        UnknownStreamError: The description names a stream that the episode does not have.
        ArgumentError: Streams without samples or without overlap, a policy that does not fit the data.
        DeviceError: There is no such device here.
        BackendUnavailableError: The backend cannot run here.
    """
    plan = plan_alignment(episode, spec, like=like)
    target = _device(device)
    data, valid, fused, slices = _align_vectors(plan, backend, target)
    age_ns: dict[str, Int64] = {}
    scans: dict[str, AlignedScans] = {}
    images: dict[str, AlignedImages] = {}
    for planned in plan.streams:
        name = planned.name
        if isinstance(planned.policy, Window):
            data[name], valid[name], age_ns[name] = _align_window(planned, planned.policy, plan.times_ns, target)
            continue
        age_ns[name] = sample_age_ns(planned, plan.times_ns)
        if planned.stream.kind in ("points", "image"):
            row, valid[name] = _align_rows(planned, plan.times_ns, backend, target)
            if planned.stream.kind == "points":
                then = planned.then if isinstance(planned.then, Voxelize) else None
                scans[name] = AlignedScans(planned.stream, row, then)
            else:
                images[name] = AlignedImages(
                    planned.stream, row, planned.then if isinstance(planned.then, Resize) else None
                )
    for planned in plan.streams:
        if planned.is_absent:
            valid[planned.name] = torch.zeros_like(valid[planned.name])
            age_ns[planned.name] = np.full_like(age_ns[planned.name], NO_SAMPLE_NS)
    names = [planned.name for planned in plan.streams]
    return AlignedEpisode(
        name=episode.name,
        source=episode.source,
        times_ns=plan.times_ns,
        data={name: data[name] for name in names if name in data},
        valid={name: valid[name] for name in names},
        age_ns={name: age_ns[name] for name in names},
        fused=fused,
        slices=slices,
        scans=scans,
        columns={planned.name: planned.stream.columns for planned in plan.streams},
        policies={planned.name: planned.policy for planned in plan.streams},
        attributes=dict(episode.attributes),
        images=images,
        horizons={planned.name: planned.horizon for planned in plan.streams},
        absent=plan.absent,
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
        if planned.stream.kind not in ("points", "image") and isinstance(planned.policy, Policy):
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
    return data, valid, _side_by_side(floating, len(plan.times_ns), device), slices


def _side_by_side(parts: list[Tensor], frames: int, device: torch.device) -> Tensor:
    if not parts:
        return torch.empty(frames, 0, device=device)
    if len(parts) == 1:
        return parts[0]
    widest = parts[0].dtype
    for part in parts[1:]:
        widest = torch.promote_types(widest, part.dtype)
    return torch.cat([part.to(widest) for part in parts], dim=-1)


def _align_rows(
    planned: PlannedStream, times_ns: Int64, backend: str | None, device: torch.device
) -> tuple[Int64, Tensor]:
    # The operation itself chooses the row, by carrying each row's number: ties, twins and gaps then follow its rules.
    assert isinstance(planned.policy, Policy)  # `check_fit` lets nothing else pass
    numbers = torch.from_numpy(planned.rows).to(device)[None, :, None]
    row, valid = resample_trajectories(
        numbers,
        torch.from_numpy(planned.times_ns).to(device)[None],
        torch.from_numpy(times_ns).to(device)[None],
        policy=planned.policy,
        return_valid=True,
        backend=backend,
    )
    return row[0, :, 0].cpu().numpy(), valid[0]


def _align_window(
    planned: PlannedStream, window: Window, times_ns: Int64, device: torch.device
) -> tuple[Tensor, Tensor, Int64]:
    places = window_places(planned.times_ns, times_ns, window)
    values = _to_tensor(planned.stream.values, planned.name, planned.rows).to(device)
    data = values[torch.from_numpy(places.index).to(device)]
    unused = torch.from_numpy(~places.is_used).to(device)[..., None]
    data.masked_fill_(unused, float("nan") if data.is_floating_point() else 0)
    return data, torch.from_numpy(places.is_valid).to(device), places.age_ns


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
