"""Named arrays on disk, under the hash of what they were made from: built once, checked, memory-mapped, evicted.

store = ShardStore("cache", limit_bytes=20 * 10**9)
key = shard_key(["run.mcap"], {"rate_hz": 50, "episode": 0}, version=1)
with store.get_or_build(key, lambda: {"observation.imu": values, "times_ns": times_ns}) as shard:
    shard.arrays["observation.imu"]  # read-only, as it lies on disk
"""

from robocache.cache.folder import ShardInfo
from robocache.cache.key import ShardKey, shard_key
from robocache.cache.layout import Contents, Pieces
from robocache.cache.shard import Shard
from robocache.cache.store import CheckedShard, Collected, ShardStore

__all__ = [
    "CheckedShard",
    "Collected",
    "Contents",
    "Pieces",
    "Shard",
    "ShardInfo",
    "ShardKey",
    "ShardStore",
    "shard_key",
]
