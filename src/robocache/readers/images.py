"""Still images, JPEG or PNG, out of bytes that a stranger wrote; and how every image is resized.

What an image declares is read from its header before anything is decoded: PNG stores 60000 x 60000 zeros in 4 MB.
Pillow holds 4 bytes a pixel, and up to 12 of a progressive JPEG; what it decoded is converted and copied in strips.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, BackendUnavailableError

if TYPE_CHECKING:
    from PIL.Image import Image

    from robocache.readers.limits import Limits

Uint8 = npt.NDArray[np.uint8]
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 65_535
MAX_SCANS = 64  # of a JPEG: encoders make some ten, and each takes a pass over all of the image
STRIP_BYTES = 2**20
_IHDR = struct.Struct(">I4sIIB")
_SEGMENT = struct.Struct(">HBHH")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # a JPEG's header of a frame, in all its variants
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_BASELINE, _SCAN, _END = (0xC0, 0xC1), 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # between the data of a scan and what follows them
# What Pillow raises on damaged files, whichever of its parts notices.
_DAMAGE = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, struct.error, EOFError)


class ImageError(ValueError):
    """An image that cannot be decoded; the reader turns it into an error that names file and place."""


class ImageTooLargeError(ImageError):
    """An image that declares more pixels than `Limits.image_pixels`."""


def is_image(data: bytes) -> bool:
    """Whether bytes begin as a JPEG or PNG does."""
    return data.startswith((JPEG, PNG))


def image_shape(data: bytes) -> tuple[int, int, int]:
    """What an image's header declares: height, width, and the three channels that it is decoded to.

    Raises:
        ImageError: It is no JPEG or PNG, is cut inside its header, or has 16 bits a channel.
    """
    if data.startswith(PNG):
        height, width = _png_size(data)
    elif data.startswith(JPEG):
        height, width = _jpeg_size(data)
    else:
        raise ImageError(f"starts with {data[:8]!r}, which is neither JPEG nor PNG" if data else "is empty")
    check_sides(height, width)
    return height, width, 3


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < len(PNG) + _IHDR.size:
        raise ImageError("ends inside the header of a PNG")
    _, name, width, height, bits = _IHDR.unpack_from(data, len(PNG))
    if name != b"IHDR":
        raise ImageError(f"is a PNG that begins with {name!r}, not IHDR")
    if bits > 8:
        raise ImageError(f"has {bits} bits a channel, which is a depth image, not a picture")
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ImageError(f"is a JPEG with {data[at]:#04x} at byte {at}, where a marker should be")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            if at + 4 + 5 > len(data):
                break
            length, bits, height, width = _SEGMENT.unpack_from(data, at + 2)
            if length < 8 or bits != 8:
                raise ImageError(f"is a JPEG of {bits} bits a channel")
            return height, width
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise ImageError("ends inside the header of a JPEG")


def decoded(data: bytes, limits: Limits) -> Uint8:
    """An image as [height, width, 3], red, green, blue; grey becomes three equal channels, transparency is dropped.

    Raises:
        ImageError: It cannot be decoded.
        ImageTooLargeError: It declares more pixels than the limits allow.
        BackendUnavailableError: Pillow is not installed.
    """
    height, width, _ = image_shape(data)
    check_pixels(height, width, limits)
    if data.startswith(JPEG) and jpeg_scans(data) > MAX_SCANS:
        raise ImageError(f"is a JPEG of more than {MAX_SCANS} scans, each a pass over all of its pixels")
    pillow = _pillow()
    try:
        with warnings.catch_warnings(), pillow.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            warnings.simplefilter("ignore")
            return _pixels(image, height, width)
    except ImageError:
        raise
    except (*_DAMAGE, pillow.DecompressionBombError) as error:
        raise ImageError(f"cannot be decoded ({' '.join(str(error).split())[:200]})") from error


def _pixels(image: Image, height: int, width: int) -> Uint8:
    """Red, green and blue of an image. Pillow's own way out of it, and its conversions, hold it twice."""
    if image.size != (width, height):
        raise ImageError(f"declares {width} x {height} pixels, but has {image.size[0]} x {image.size[1]}")
    image.load()
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_BYTES // (3 * width))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height))) if rows < height else image
        pixels[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def jpeg_scans(data: bytes) -> int:
    """How many scans a JPEG has; counting ends with the first beyond `MAX_SCANS`, or where there can be but one."""
    at, scans, of_one_scan = 2, 0, b""
    while scans <= MAX_SCANS:
        found = _MARKER.search(data, at)
        if found is None or data[found.start() + 1] == _END:
            break
        at, marker = found.end(), data[found.start() + 1]
        if marker in _BASELINE:
            of_one_scan = data[at + 7 : at + 8]  # as many components as the image has
        elif marker == _SCAN:
            scans += 1
            if data[at + 2 : at + 3] == of_one_scan:
                break
        if marker not in _ALONE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans


def check_sides(height: int, width: int) -> None:
    """See that an image has pixels, and no side that none can have.

    Raises:
        ImageTooLargeError: It has not, or has.
    """
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ImageTooLargeError(f"declares {width} x {height} pixels, and 1 to {MAX_SIDE} a side are possible")


def check_pixels(height: int, width: int, limits: Limits) -> None:
    """See that an image is not larger than the limits allow.

    Raises:
        ImageTooLargeError: It is.
    """
    if height * width > limits.image_pixels:
        allowed = f"{limits.image_pixels} are allowed by Limits(image_pixels=...)"
        raise ImageTooLargeError(f"declares {width} x {height} pixels, and {allowed}")


def checked_size(size: tuple[int, int] | None) -> tuple[int, int] | None:
    """A size to resize to, as (height, width).

    Raises:
        ArgumentError: It is none.
    """
    if size is None:
        return None
    sides = np.asarray(size)
    if sides.shape != (2,) or sides.dtype.kind not in "iu" or not np.all((sides > 0) & (sides <= MAX_SIDE)):
        raise ArgumentError(f"size must be (height, width), each 1 to {MAX_SIDE}, got {size!r}")
    return int(sides[0]), int(sides[1])


def room_for(count: int, sides: tuple[int, int], *, resized: bool) -> Uint8:
    """An array for images, [count, height, width, 3]; for those that `resized` gives, one channel after the other.

    So they come from PyTorch, and so a cache and a batch hold them: in the other order each would be turned twice,
    pixel by pixel, which costs as much as the decoding.
    """
    if resized:
        return np.empty((count, 3, *sides), np.uint8).transpose(0, 2, 3, 1)
    return np.empty((count, *sides, 3), np.uint8)


def resized(image: Uint8, size: tuple[int, int]) -> Uint8:
    """An image [height, width, 3] at another size, by PyTorch's antialiased bilinear filter.

    It is what torchvision's `resize(antialias=True)` computes; Pillow's `BILINEAR` differs from it by at most 1.
    """
    if image.shape[:2] == size:
        return image
    import torch

    channels_last = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    smaller = torch.nn.functional.interpolate(
        channels_last, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    return np.asarray(smaller[0].permute(1, 2, 0).numpy())


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        message = 'images are decoded by Pillow, which is not installed; pip install "robocache[video]"'
        raise BackendUnavailableError(message) from error
    return Image
