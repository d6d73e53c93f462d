"""PNGs inside a page: of one colour whose opacity is the value, which suits light and dark pages, or a picture."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt


def heat_map_uri(values: npt.NDArray[Any], rgb: tuple[int, int, int]) -> str:
    """A data URI of a PNG, one pixel a value.

    Args:
        values: [rows, columns], 0 or more; 0 is transparent, the largest opaque, on a logarithmic scale.
        rgb: The colour.
    """
    scaled = np.log1p(values.astype(np.float64))
    top = scaled.max(initial=0.0)
    opacity = np.zeros(values.shape) if top == 0 else np.where(values > 0, 70 + 185 * scaled / top, 0.0)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., :3] = rgb
    pixels[..., 3] = np.rint(opacity).astype(np.uint8)
    return _uri(pixels)


def picture_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A data URI of a PNG.

    Args:
        pixels: [rows, columns, 3], red, green, blue.
    """
    return _uri(pixels)


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    rows, columns, channels = pixels.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels.reshape(rows, -1)], axis=1)  # filter 0 a line
    header = struct.pack(">IIBBBBB", columns, rows, 8, 6 if channels == 4 else 2, 0, 0, 0)  # 8 bits, RGBA or RGB
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
