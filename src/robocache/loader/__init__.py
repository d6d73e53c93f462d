"""From records to batches, inside a memory budget counted in bytes."""

from robocache.loader.batch import Batch, PackedPoints
from robocache.loader.budget import BudgetStatistics, ByteBudget, Claim
from robocache.loader.loader import Loader, LoaderState, LoaderStatistics
from robocache.loader.order import OrderState, SampleOrder
from robocache.loader.prefetch import Prefetcher, PrefetchStatistics

__all__ = [
    "Batch",
    "BudgetStatistics",
    "ByteBudget",
    "Claim",
    "Loader",
    "LoaderState",
    "LoaderStatistics",
    "OrderState",
    "PackedPoints",
    "PrefetchStatistics",
    "Prefetcher",
    "SampleOrder",
]
