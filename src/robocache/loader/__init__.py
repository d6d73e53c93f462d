"""From records to batches, inside a memory budget counted in bytes."""

from robocache.loader.budget import BudgetStatistics, ByteBudget, Claim
from robocache.loader.order import OrderState, SampleOrder
from robocache.loader.prefetch import Prefetcher, PrefetchStatistics

__all__ = ["BudgetStatistics", "ByteBudget", "Claim", "OrderState", "PrefetchStatistics", "Prefetcher", "SampleOrder"]
