"""Points out of `sensor_msgs/PointCloud2` messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robocache.readers.ros2_layout import MAX_FIELDS, Bytes, Layout, LayoutError, Place

DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
MAX_STEP = 2**31 - 1  # bytes of a point; numpy counts them in a C int


class NotXyzError(LayoutError):
    """A cloud without x, y and z, such as a radar's of ranges and angles."""


@dataclass(frozen=True)
class PointFormat:
    """How the points of a cloud lie in its bytes.

    Args:
        columns: x, y, z first, then the other fields in the cloud's order.
        dtype: A structure with one member a column.
        number: What the points are converted to: float32, or float64 where a column needs it.
    """

    columns: tuple[str, ...]
    dtype: np.dtype[np.void]
    number: np.dtype[np.generic]


def point_format(layout: Layout, message: Bytes) -> PointFormat:
    """The format that one message ([1, bytes]) declares.

    Raises:
        NotXyzError: Fields without x, y, z.
        LayoutError: Fields that overlap the end of a point, an unknown datatype.
    """
    order = ">" if _number(layout, "is_bigendian", message) else "<"
    step = _number(layout, "point_step", message)
    names: list[str] = []
    formats, offsets = [], []
    for index in range(layout.sizes.get("fields", 0)):
        prefix = f"fields[{index}]"
        if f"{prefix}.name" not in layout.texts:
            raise LayoutError(f"has no text {prefix}.name")
        code = DATATYPES.get(_number(layout, f"{prefix}.datatype", message))
        if code is None:
            raise LayoutError(f"has {prefix}.datatype {_number(layout, f'{prefix}.datatype', message)}, not 1 to 8")
        start, count = (_number(layout, f"{prefix}.{name}", message) for name in ("offset", "count"))
        if len(names) + count > MAX_FIELDS:
            raise LayoutError(f"has {count} numbers in {prefix}, and {MAX_FIELDS} columns are allowed")
        # Some drivers write 0 where they mean 1.
        for place in range(max(1, count)):
            base = layout.texts[f"{prefix}.name"]
            names.append(base if count <= 1 else f"{base}_{place}")
            formats.append(order + code)
            offsets.append(start + place * int(code[1]))
    return _point_format(names, formats, offsets, step)


def _point_format(names: list[str], formats: list[str], offsets: list[int], step: int) -> PointFormat:
    if not {"x", "y", "z"} <= set(names) or len(set(names)) != len(names):
        raise NotXyzError(f"has the point fields {', '.join(names[:8]) or 'none'}, not x, y, z once each")
    for name, code, offset in zip(names, formats, offsets, strict=True):
        if offset + int(code[2]) > step:
            raise LayoutError(f"has the point field {name} at byte {offset} of points of {step} bytes")
    if step > MAX_STEP:
        raise LayoutError(f"has points of {step} bytes, and {MAX_STEP} are allowed")
    columns = ("x", "y", "z", *(name for name in names if name not in ("x", "y", "z")))
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": step})
    number = np.result_type(np.float32, *(np.dtype(code) for code in formats))
    return PointFormat(columns, dtype, number)


@dataclass(frozen=True)
class CloudSize:
    """How the points of one message are laid out; it has the bytes for them.

    Args:
        height: Rows.
        width: Points of a row.
        row_step: Bytes of a row.
    """

    height: int
    width: int
    row_step: int


def cloud_size(form: PointFormat, layout: Layout, message: Bytes) -> CloudSize:
    """The size that one message ([1, bytes]) declares.

    Raises:
        LayoutError: Rows and points that do not add up to the bytes there are.
    """
    height, width, row_step = (_number(layout, name, message) for name in ("height", "width", "row_step"))
    place = layout.places.get("data", Place(0, "", 0))
    if place.dtype[1:] != "u1":
        raise LayoutError("has no sequence of bytes called data")
    step = form.dtype.itemsize
    # One row may be padded, and a cloud of one row need not say how long that row is.
    row_step = row_step if height > 1 else width * step
    if width * step > row_step or height * row_step > place.count:
        raise LayoutError(f"has {place.count} bytes of points, not {height} rows of {width} points of {step} bytes")
    return CloudSize(height, width, row_step)


def points(form: PointFormat, layout: Layout, message: Bytes) -> npt.NDArray[np.generic]:
    """The points of one message ([1, bytes]): [height * width, columns], with whatever NaN the sensor wrote.

    Raises:
        LayoutError: Rows and points that do not add up to the bytes there are.
    """
    size = cloud_size(form, layout, message)
    data = np.ascontiguousarray(layout.values("data", message)[0])
    rows = data[: size.height * size.row_step].reshape(size.height, size.row_step)
    packed = np.ascontiguousarray(rows[:, : size.width * form.dtype.itemsize]).reshape(-1).view(form.dtype)
    return np.stack([packed[name].astype(form.number) for name in form.columns], axis=1)


def _number(layout: Layout, path: str, message: Bytes) -> int:
    place = layout.places.get(path)
    if place is None or place.count != 1:
        raise LayoutError(f"has no single number {path}")
    return int(layout.values(path, message)[0, 0].item())
