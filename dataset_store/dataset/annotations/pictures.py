"""Images and other media as bytes with a media type, as reports keep them.

An array becomes a PNG here, with nothing but zlib: <https://www.w3.org/TR/png-3/>.
"""

import io
import mimetypes
import os
import struct
import zlib
from typing import Any, Final

from dataset_store.core.arrays import U8, Array, np
from dataset_store.errors import InvalidRequest

__all__ = ["image_type", "media_type", "png_of"]

_IMAGES: Final = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "gif": "gif", "webp": "webp", "svg": "svg+xml"}
_COLOUR_TYPES: Final = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by the number of channels: grey, grey and alpha, colours, colours and alpha."""


def image_type(path: str) -> str:
    """The media type of an image that every browser shows, from its name.

    Raises:
        InvalidRequest: It is no such image.
    """
    end = _ending(path)
    if end not in _IMAGES:
        raise InvalidRequest(f"{path!r} is no image that can be shown.", f"Known are {', '.join(_IMAGES)}.")
    return f"image/{_IMAGES[end]}"


def media_type(path: str) -> str:
    """The media type of any file, from its name."""
    return mimetypes.guess_type(f"file.{_ending(path)}")[0] or "application/octet-stream"


def png_of(image: Any) -> bytes:
    """An array of pixels, or a PIL image, as PNG.

    Args:
        image: Height by width, or height by width by 1 to 4 channels. Floats up to 1 are shares of full brightness;
            other numbers are taken as they are.

    Raises:
        InvalidRequest: It is neither, or has another shape.
    """
    if hasattr(image, "save"):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()
    if not isinstance(image, np.ndarray):
        raise InvalidRequest(f"A {type(image).__name__} is no image.", "Give a file, an array or a PIL image.")
    pixels = np.atleast_3d(image)
    if pixels.ndim != 3 or pixels.shape[2] not in _COLOUR_TYPES or 0 in pixels.shape or pixels.dtype.kind not in "biuf":
        raise InvalidRequest(
            f"An array of shape {image.shape} and type {image.dtype} is no image.",
            "Give numbers: height by width, and 1 to 4 channels.",
        )
    return _encoded(_as_bytes(pixels))


def _as_bytes(pixels: Array) -> U8:
    shares = pixels.dtype.kind == "b" or (pixels.dtype.kind == "f" and np.nanmax(pixels, initial=0) <= 1.0)
    full: Array = np.nan_to_num(pixels * 255.0 if shares else pixels)
    return full.clip(0, 255).astype(np.uint8)


def _encoded(pixels: U8) -> bytes:
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows.tobytes())), _chunk(b"IEND", b"")]
    return b"".join([b"\x89PNG\r\n\x1a\n", *chunks])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower().lstrip(".")
