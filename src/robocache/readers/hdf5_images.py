"""Datasets of images in HDF5 files: pictures as robomimic stores them, JPEG and PNG as ALOHA does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from robocache.readers.images import ImageError, Uint8, check_pixels, check_sides, decoded, image_shape, is_image
from robocache.readers.stills import StillFrames
from robocache.records import Int64

if TYPE_CHECKING:
    from h5py import Dataset

    from robocache.readers.hdf5_tree import Hdf5File

MIN_ENCODED_BYTES = 64  # fewer are numbers, not an image
PICTURE_AXES = 4


def image_frames(file: Hdf5File, dataset: Dataset, full: str) -> StillFrames | str | None:
    """What decodes a dataset's images; a text says why they cannot be; None of a dataset that holds none.

    Args:
        file: Which holds it.
        dataset: [images, height, width, 3] uint8, or one string of bytes an image: [images, bytes] uint8 or [images]
            of fixed length, which may be padded at its end.
        full: Its name.
    """
    count = dataset.shape[0]
    if len(dataset.shape) == PICTURE_AXES:
        height, width = dataset.shape[1:3]
        try:
            check_sides(height, width)
        except ImageError as error:
            return f"each of its images {error}"
        shape = (height, width, 3)
    else:
        row_bytes = dataset.shape[1] if len(dataset.shape) > 1 else dataset.dtype.itemsize
        if (
            not count
            or row_bytes < MIN_ENCODED_BYTES
            or dataset.dtype.kind not in "Su"
            or dataset.dtype.kind + str(dataset.dtype.itemsize) not in ("u1", f"S{row_bytes}")
        ):
            return None
        first = file.rows(dataset, full, 0, 1)[0].tobytes()
        if not is_image(first):
            return None
        try:
            shape = image_shape(first)
        except ImageError as error:
            return f"its first image {error}"

    def fetch(numbers: Int64) -> Iterator[Uint8]:
        if len(shape) and len(dataset.shape) == PICTURE_AXES:
            check_pixels(shape[0], shape[1], file.limits)
        for row in numbers.tolist():
            stored = file.rows(dataset, full, row, row + 1)[0]
            yield np.asarray(stored) if stored.ndim > 1 else decoded(stored.tobytes(), file.limits)

    return StillFrames(str(file.path), f"dataset {full}, row", count, shape, fetch)
