"""An aligned episode as the arrays of a shard, and back.

times_ns                  [frames] int64
data/<feature>            numbers: [frames, *shape]; images: [images, 3, height, width] uint8; points: [points, columns]
valid/<feature>           [frames, ...] bool
age_ns/<feature>          [frames, ...] int64
row/<feature>             images and points: [frames] int64, which image or scan a frame uses
offsets/<feature>         points: [scans + 1] int64

Of images and scans only those that some frame uses are kept, each once, in the order of the recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from robocache.align import AlignedEpisode, AlignedImages, AlignedScans
from robocache.cache.dataset import Array, EpisodeArrays, Feature
from robocache.cache.layout import Contents, Pieces, damaged
from robocache.errors import DamagedRecordingError
from robocache.readers.stored_points import POINTS_AT_ONCE, scan_runs
from robocache.records import Int64

Kind = Literal["numbers", "image", "points"]
ALIGNED_VERSION = 1  # another one gives other keys: raise it whenever the same input would give other bytes
IMAGE_SIZE = (224, 224)  # height and width of stored images, unless the alignment says another size
_CHUNK_BYTES = 32 * 2**20  # of images as recorded: how many are decoded at once


def episode_contents(aligned: AlignedEpisode) -> Contents:
    """What a shard holds of an aligned episode. Images are decoded while they are written, a few at a time.

    Args:
        aligned: The episode on its clock.

    Raises:
        DamagedRecordingError: A stream of images has none.
    """
    arrays: dict[str, Array | Pieces] = {"times_ns": aligned.times_ns}
    features: list[Feature] = []
    data: Array | Pieces
    for name in aligned.valid:
        columns, horizon, grid = aligned.columns[name], aligned.horizons.get(name, 1), None
        kind: Kind = "numbers"
        if name in aligned.images:
            kind, columns = "image", ()
            data, arrays[f"row/{name}"] = _decoded(aligned.images[name])
        elif name in aligned.scans:
            scans = aligned.scans[name]
            data, arrays[f"row/{name}"], arrays[f"offsets/{name}"] = _used_points(scans)
            kind, grid = "points", None if scans.voxelize is None else _plain(scans.voxelize.arguments)
        else:
            data = _numpy(aligned.data[name])
        features.append(Feature(name, kind, data.dtype, data.shape[1:], horizon, columns, grid))
        arrays[f"data/{name}"] = data
        arrays[f"valid/{name}"] = _numpy(aligned.valid[name])
        arrays[f"age_ns/{name}"] = aligned.age_ns[name]
    description = {"kind": "aligned episode", "features": [feature_document(feature) for feature in features]}
    return Contents(arrays, description)


def episode_arrays(arrays: Mapping[str, Array], features: Mapping[str, Feature]) -> EpisodeArrays:
    """The arrays of a shard by feature; no copies.

    Args:
        arrays: By their names in the shard.
        features: In the order that the result is to have.
    """

    def part(kind: str) -> dict[str, Any]:
        names = ((name, f"{kind}/{name}") for name in features)
        return {name: arrays[stored] for name, stored in names if stored in arrays}

    return EpisodeArrays(
        arrays["times_ns"], part("data"), part("valid"), part("age_ns"), row=part("row"), offsets=part("offsets")
    )


def feature_document(feature: Feature) -> dict[str, Any]:
    """A feature as JSON can say it."""
    return {
        "name": feature.name,
        "kind": feature.kind,
        "dtype": feature.dtype.newbyteorder("<").str,
        "shape": list(feature.shape),
        "horizon": feature.horizon,
        "columns": list(feature.columns),
        "grid": None if feature.grid is None else dict(feature.grid),
    }


def described_features(path: Path, documents: Iterable[Mapping[str, Any]]) -> dict[str, Feature]:
    """The features that a file describes.

    Args:
        path: The file, for the message.
        documents: What `feature_document` gave, through JSON.

    Raises:
        DamagedShardError: It describes none.
    """
    try:
        features = [
            Feature(
                name=document["name"],
                kind=document["kind"],
                dtype=np.dtype(document["dtype"]),
                shape=tuple(document["shape"]),
                horizon=document["horizon"],
                columns=tuple(document["columns"]),
                grid=document["grid"],
            )
            for document in documents
        ]
    except (KeyError, TypeError) as error:
        raise damaged(path, "description", f"it is that of no aligned episode ({error!r})") from error
    return {feature.name: feature for feature in features}


def _decoded(images: AlignedImages) -> tuple[Pieces, Int64]:
    """The distinct images used, [images, 3, height, width], and which of them each frame uses."""
    frames = images.stream.frames
    if frames is None:
        raise DamagedRecordingError(images.stream.name, "is a stream of images that has no images to decode")
    size = IMAGE_SIZE if images.resize is None else images.resize.size
    used, row = np.unique(images.stream.values[images.row, 0].astype(np.int64, copy=False), return_inverse=True)

    def pieces() -> Iterator[npt.NDArray[np.uint8]]:
        step = max(1, _CHUNK_BYTES // max(1, math.prod(frames.shape)))
        for start in range(0, len(used), step):
            yield frames.read(used[start : start + step], size=size).transpose(0, 3, 1, 2)

    made = Pieces(np.dtype(np.uint8), (len(used), 3, *size), pieces)
    return made, row.astype(np.int64, copy=False).reshape(-1)


def _used_points(scans: AlignedScans) -> tuple[Pieces, Int64, Int64]:
    """The points of the distinct scans used, which of those each frame uses, and where each begins."""
    values, offsets = scans.stream.values, scans.stream.offsets
    assert offsets is not None  # a stream of kind "points" always has them
    used, row = np.unique(scans.scan, return_inverse=True)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(offsets[used + 1] - offsets[used])])

    def pieces() -> Iterator[npt.NDArray[np.float32]]:
        for first, after in scan_runs(used, offsets, POINTS_AT_ONCE):
            yield values[offsets[first] : offsets[after]].astype(np.float32, copy=False)

    made = Pieces(np.dtype(np.float32), (int(starts[-1]), values.shape[1]), pieces)
    return made, row.astype(np.int64, copy=False).reshape(-1), starts


def _numpy(tensor: Tensor) -> Array:
    return tensor.cpu().numpy()


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As they come back from JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
