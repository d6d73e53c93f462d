"""Still images, JPEG or PNG, out of bytes that a stranger wrote; and how every image is resized.

What an image declares is read from its header before anything is decoded: PNG stores 60000 x 60000 zeros in 4 MB.
"""

from __future__ import annotations

import io
import struct
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from robocache.errors import ArgumentError, BackendUnavailableError

if TYPE_CHECKING:
    from robocache.readers.limits import Limits

Uint8 = npt.NDArray[np.uint8]
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 65_535
_IHDR = struct.Struct(">I4sIIB")
_SEGMENT = struct.Struct(">HBHH")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # a JPEG's header of a frame, in all its variants
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
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
    pillow = _pillow()
    try:
        with warnings.catch_warnings(), pillow.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            warnings.simplefilter("ignore")
            pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except _DAMAGE as error:
        raise ImageError(f"cannot be decoded ({' '.join(str(error).split())[:200]})") from error
    if pixels.shape != (height, width, 3):
        raise ImageError(f"declares {width} x {height} pixels, but has {pixels.shape[1]} x {pixels.shape[0]}")
    return pixels


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
        raise ImageTooLargeError(f"declares {width} x {height} pixels, and {limits.image_pixels} are allowed")


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
