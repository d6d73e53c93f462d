"""Where the episodes lie while they are read: on disk, in RAM, or on the device; by what fits the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from robocache.errors import ArgumentError, BudgetError
from robocache.loader.budget import ByteBudget, Claim
from robocache.loader.buffers import BufferPool
from robocache.loader.collate import Collate
from robocache.loader.episodes import Episodes, OpenEpisodes, most_open
from robocache.loader.joined import Joined
from robocache.loader.layout import Layout, SampleIndex
from robocache.loader.making import CudaMaker, Host, HostMaker, Maker, PackedMaker, RecordMaker
from robocache.loader.packed import STAGING_BYTES, PackedOnDevice
from robocache.loader.packing import PackedEpisodes, Packing, plan_packing
from robocache.loader.record_layout import RecordLayout
from robocache.loader.records import Records

Tier = Literal["disk", "ram", "gpu"]


@dataclass(frozen=True)
class Wanted:
    """What batches are to be made of.

    Args:
        joined: The datasets.
        index: Their samples.
        layout: How a batch lies.
        device: Where batches go.
        batch_size: Samples of one.
        prefetch: Batches made ahead.
        pin: Page-locked batches on the CPU.
        step_samples: Samples of a step, of all ranks together.
    """

    joined: Joined
    index: SampleIndex
    layout: Layout
    device: torch.device
    batch_size: int
    prefetch: int
    pin: bool
    step_samples: int


@dataclass(frozen=True)
class Plan:
    """Which tier, and what it holds for good.

    Args:
        tier: The tier.
        packing: How the episodes are packed; None on the tier "disk", and for records.
        fixed_bytes: Claimed for as long as the loader lives.
        records: On the tier "gpu": one record a frame, where the features allow that.
    """

    tier: Tier
    packing: Packing | None
    fixed_bytes: int
    records: RecordLayout | None = None

    @property
    def packed_bytes(self) -> int:
        """Of the packed episodes."""
        packed = self.records or self.packing
        return 0 if packed is None else packed.nbytes


@dataclass(frozen=True)
class Built:
    """What a tier came to.

    Args:
        maker: Makes batches.
        source: Where the episodes lie on the host; None on the tier "gpu".
        claims: What it holds for good.
    """

    maker: Maker | RecordMaker
    source: Episodes | None
    claims: list[Claim]

    @property
    def open_episodes(self) -> int:
        """How many are held open."""
        return self.source.open_count if isinstance(self.source, OpenEpisodes) else 0

    def close(self) -> None:
        """Let go of everything."""
        try:
            self.maker.close()
        finally:
            try:
                if self.source is not None:
                    self.source.close()
            finally:
                for claim in self.claims:
                    claim.release()


def choose_tier(wanted: Wanted, limit_bytes: int) -> Plan:
    """The fastest tier that leaves room for batches: two at a time, or one on disk.

    Raises:
        ArgumentError: A device that batches cannot be made on.
        BudgetError: Not even a batch fits.
    """
    device = wanted.device
    if device.type not in {"cpu", "cuda"} or (device.type == "cuda" and not torch.cuda.is_available()):
        why = "it is not available here" if device.type == "cuda" else "batches are made on cpu or cuda"
        raise ArgumentError(f"device {str(device)!r} cannot be used: {why}")
    if wanted.pin and not torch.cuda.is_available():
        raise ArgumentError("pin=True needs a GPU: page-locked memory is for copies to one")
    batch_bytes = wanted.layout.nbytes(wanted.batch_size)
    is_cuda = device.type == "cuda"
    staging = CudaMaker.stages * batch_bytes if is_cuda else 0
    if staging + batch_bytes > limit_bytes:
        also = f", and {CudaMaker.stages} more in page-locked memory" if is_cuda else ""
        raise BudgetError(
            f"a batch of {wanted.batch_size} samples needs {batch_bytes} bytes{also}, but memory is {limit_bytes}; "
            f"raise memory to {staging + batch_bytes} or more, or lower batch_size or window"
        )
    records = _records(wanted, limit_bytes) if is_cuda else None
    if records is not None:
        return Plan("gpu", None, _record_bytes(wanted, records), records)
    packing = plan_packing(wanted.joined, limit_bytes - staging - 2 * batch_bytes)
    if packing is None:
        return Plan("disk", None, staging)
    if is_cuda and _fits_device(wanted, packing, limit_bytes):
        return Plan("gpu", packing, packing.nbytes + batch_bytes)
    return Plan("ram", packing, staging + packing.nbytes)


def build_maker(wanted: Wanted, plan: Plan, budget: ByteBudget) -> Built:
    """Claim what the tier holds for good, then pack and allocate."""
    claim = budget.claim(plan.fixed_bytes)
    claim.wait()
    source: Episodes | None = None
    try:
        if plan.records is not None:
            return Built(RecordMaker(Records(plan.records, wanted.device), wanted.step_samples), None, [claim])
        if plan.tier == "gpu" and plan.packing is not None:
            packed = PackedOnDevice(wanted.joined, wanted.layout, plan.packing, wanted.device)
            return Built(PackedMaker(packed, wanted.device), None, [claim])
        source = (
            OpenEpisodes(wanted.joined, min(most_open(), len(wanted.joined.lengths)))
            if plan.packing is None
            else PackedEpisodes(wanted.joined, plan.packing)
        )
        collate = Collate(wanted.joined, wanted.layout, torch.get_num_threads())
        host = Host(wanted.index, wanted.layout, collate, source, budget.limit_bytes - plan.fixed_bytes)
        maker: Maker
        if wanted.device.type == "cuda":
            maker = CudaMaker(host, wanted.device, wanted.layout.nbytes(wanted.batch_size))
        else:
            maker = HostMaker(host, None if wanted.pin else BufferPool(budget, wanted.prefetch + 2))
        return Built(maker, source, [claim])
    except BaseException:
        claim.release()
        if source is not None:
            source.close()
        raise


def _records(wanted: Wanted, limit_bytes: int) -> RecordLayout | None:
    if not RecordLayout.serves(wanted.joined, wanted.layout):
        return None
    records = RecordLayout(wanted.joined, wanted.layout)
    free_bytes = int(torch.cuda.mem_get_info(wanted.device)[0])
    return records if _record_bytes(wanted, records) + STAGING_BYTES <= min(limit_bytes, free_bytes) else None


def _record_bytes(wanted: Wanted, records: RecordLayout) -> int:
    return records.nbytes + records.batch_bytes(wanted.batch_size) + records.places_bytes(wanted.step_samples)


def _fits_device(wanted: Wanted, packing: Packing, limit_bytes: int) -> bool:
    if any(feature.kind == "points" for feature in wanted.layout.features.values()):
        return False
    needed = packing.nbytes + STAGING_BYTES + wanted.layout.nbytes(wanted.batch_size)
    return needed <= min(limit_bytes, int(torch.cuda.mem_get_info(wanted.device)[0]))
