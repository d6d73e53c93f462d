"""Arrays of a Zarr store (versions 2 and 3): what their metadata declare, and rows of them, chunk by chunk.

The zarr library is not used: it trusts sizes, unpickles object arrays, and keeps a thread of its own for ever.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from robocache.errors import DamagedRecordingError, RecordingLimitError
from robocache.readers.zarr_codecs import CODECS, CodecError, decoded, without_checksum
from robocache.readers.zarr_store import COPY, Store

MAX_METADATA_BYTES = 4 * 2**20
MAX_AXES = 8
MAX_MISSING = 10_000  # chunks in one reading
_SIZE = 2**62


class NotReadError(ValueError):
    """An array of a kind that is not read; the message is the reason."""


@dataclass(frozen=True)
class ZarrArray:
    """One array, its metadata read and checked.

    Args:
        store: Where it lies.
        name: Its path there.
        shape: Of the whole.
        chunks: Of a chunk; those at the ends are as large.
        dtype: Of its numbers.
        order: "C" or "F", inside a chunk.
        codec: One of `CODECS`.
        has_checksum: Whether a CRC-32C stands at the end of every chunk.
        fill: What chunks are full of that were never written.
        key: What a chunk's numbers are joined with, and what stands before them.
    """

    store: Store
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    codec: str
    has_checksum: bool
    fill: Any
    key: tuple[str, str]

    def rows(self, start: int, stop: int, limit_bytes: int) -> npt.NDArray[Any]:
        """The rows from one to before another, in native byte order.

        Raises:
            RecordingLimitError: They are larger than the limit, or than what is stored can become.
            DamagedRecordingError: A chunk does not decompress.
        """
        wanted = (stop - start) * math.prod(self.shape[1:]) * self.dtype.itemsize
        chunk_bytes = math.prod(self.chunks) * self.dtype.itemsize
        for what, size, limit in (
            ("asked for", wanted, limit_bytes),
            ("a chunk", chunk_bytes, self.store.limits.block_bytes),
        ):
            if size > limit:
                raise self._limit(f"declares {size} bytes {what}, and {limit} are allowed")
        made, stored, held, missing = [], 0, 0, 0
        step, counts = self.chunks[0], [-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True)]
        for number in range(start // step, -(-stop // step) if stop > start else start // step):
            low, high = max(start, number * step), min(stop, (number + 1) * step)
            slab = np.empty((high - low, *self.shape[1:]), self.dtype)
            for place in itertools.product(*map(range, counts[1:])):
                chunk, size = self._chunk((number, *place))
                at = tuple(
                    slice(k * length, (k + 1) * length) for k, length in zip(place, self.chunks[1:], strict=True)
                )
                into = slab[(slice(None), *at)]
                into[...] = chunk[(slice(low - number * step, high - number * step), *map(slice, into.shape[1:]))]
                # Chunks that were never written take no space in the store, and still have values.
                stored, held, missing = stored + size, held + into.nbytes, missing + (size == 0)
                if missing > MAX_MISSING or held > self.store.limits.decompressed_bytes(stored, of_block=False):
                    raise self._limit(f"has {held} bytes or more in {stored} that are stored")
            made.append(slab)
        whole = np.concatenate(made) if made else np.empty((0, *self.shape[1:]), self.dtype)
        return whole.astype(self.dtype.newbyteorder("="), copy=False)

    def _chunk(self, place: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
        separator, before = self.key
        key = f"{self.name}/{before}{separator.join(map(str, place))}"
        data = self.store.get(key)
        if data is None:
            return np.broadcast_to(np.asarray(self.fill, self.dtype), self.chunks), 0
        size = math.prod(self.chunks) * self.dtype.itemsize
        if size > self.store.limits.decompressed_bytes(len(data)):
            raise self._limit(f"has a chunk of {len(data)} bytes that must become {size}", key)
        try:
            content = decoded(self.codec, without_checksum(data) if self.has_checksum else data, size)
        except CodecError as error:
            raise DamagedRecordingError(
                self.store.path, f"the chunk {error}", place=f"entry {key}", remedy=COPY
            ) from error
        return np.frombuffer(content, self.dtype).reshape(self.chunks, order=self.order), len(data)  # type: ignore[call-overload]

    def _limit(self, problem: str, key: str | None = None) -> RecordingLimitError:
        remedy = "open it with larger Limits(...) if you trust it"
        return RecordingLimitError(self.store.path, problem, place=f"array {key or self.name}", remedy=remedy)


def open_array(store: Store, name: str) -> ZarrArray | None:
    """An array of a store; None where there is none of that name.

    Raises:
        NotReadError: It is of a kind that is not read.
        DamagedRecordingError: What it says of itself cannot be.
    """
    for key, parse in ((f"{name}/.zarray", _version_2), (f"{name}/zarr.json", _version_3)):
        text = store.get(key, MAX_METADATA_BYTES)
        if text is None:
            continue
        try:
            declared = json.loads(text)
            if key.endswith("zarr.json") and declared.get("node_type") == "group":
                return None
            array = parse(store, name, declared)
            _check(array)
        except NotReadError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
            problem = f"is no description of an array ({ascii(str(error))[1:-1][:100]})"
            raise DamagedRecordingError(store.path, problem, place=f"entry {key}", remedy=COPY) from error
        return array
    return None


def _check(array: ZarrArray) -> None:
    if not 1 <= len(array.shape) <= MAX_AXES or len(array.chunks) != len(array.shape):
        raise TypeError(f"shape {str(array.shape)[:60]} and chunks {str(array.chunks)[:60]}")
    np.asarray(array.fill, array.dtype)


def _version_2(store: Store, name: str, declared: dict[str, Any]) -> ZarrArray:
    if declared["filters"]:
        raise NotReadError(f"it has the filter {str(declared['filters'][0].get('id'))[:40]!r}")
    codec = _codec((declared["compressor"] or {"id": "none"})["id"])
    separator = {".": ".", "/": "/"}[declared.get("dimension_separator", ".")]
    order = {"C": "C", "F": "F"}[declared["order"]]
    shape, chunks = _sizes(declared["shape"], 0), _sizes(declared["chunks"], 1)
    fill = declared["fill_value"] or 0
    return ZarrArray(store, name, shape, chunks, _dtype(declared["dtype"]), order, codec, False, fill, (separator, ""))  # noqa: FBT003


def _version_3(store: Store, name: str, declared: dict[str, Any]) -> ZarrArray:
    codecs = {codec["name"]: codec.get("configuration") or {} for codec in declared["codecs"]}
    endians: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
    endian = endians[codecs.pop("bytes", {"endian": "little"}).get("endian", "little")]
    has_checksum = codecs.pop("crc32c", None) is not None
    if len(codecs) > 1 or declared["chunk_grid"]["name"] != "regular":
        raise NotReadError(
            f"it is encoded by {', '.join(map(str, codecs))[:80]} in a {declared['chunk_grid']['name']!r} grid"
        )
    codec = _codec(next(iter(codecs), "none"))
    encoding = declared["chunk_key_encoding"]
    is_default = {"default": True, "v2": False}[encoding["name"]]
    separator = (encoding.get("configuration") or {}).get("separator", "/" if is_default else ".")
    key = ({".": ".", "/": "/"}[separator], f"c{separator}" if is_default else "")
    shape = _sizes(declared["shape"], 0)
    chunks = _sizes(declared["chunk_grid"]["configuration"]["chunk_shape"], 1)
    dtype = _dtype(declared["data_type"]).newbyteorder(endian)
    return ZarrArray(store, name, shape, chunks, dtype, "C", codec, has_checksum, declared["fill_value"] or 0, key)


def _codec(name: object) -> str:
    if name not in CODECS:
        raise NotReadError(f"it is compressed with {str(name)[:40]!r}")
    return str(name)


def _dtype(declared: object) -> np.dtype[Any]:
    if not isinstance(declared, str) or "O" in declared:
        raise NotReadError(f"its values are {str(declared)[:40]!r}, not numbers")
    try:
        dtype = np.dtype(declared)
    except TypeError as error:
        raise NotReadError(f"its values are {declared[:40]!r}, not numbers") from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8 or dtype.subdtype is not None:
        raise NotReadError(f"its values are {declared[:40]!r}, not numbers")
    return dtype


def _sizes(declared: object, least: int) -> tuple[int, ...]:
    if not isinstance(declared, list) or not all(type(size) is int and least <= size <= _SIZE for size in declared):
        raise TypeError(f"sizes {str(declared)[:60]}")
    return tuple(declared)
