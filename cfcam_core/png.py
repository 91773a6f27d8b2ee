"""A PNG writer on the standard library: pictures can be shown and saved without an image package.

Format: Portable Network Graphics, third edition (W3C 2025), sections 5 (chunks) and 9 (filters).
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_core.files import replacing


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return a picture as the bytes of a PNG file.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W) or (H, W, 3)
        Gray or RGB.

    Raises
    ------
    InvalidInputError
        Another dtype or shape.
    """
    gray = image.ndim == 2
    if image.dtype != np.uint8 or not (gray or image.shape[2:] == (3,)) or 0 in image.shape:
        raise InvalidInputError(
            f"a PNG picture cannot be made of {image.dtype} of shape {image.shape}; "
            "wanted uint8 of shape (H, W) or (H, W, 3)"
        )
    height, width = image.shape[:2]
    rows = image.reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # "Up": each row is stored as its difference to the row above, modulo 256
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">2I5B", width, height, 8, 0 if gray else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.data, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return a picture as a ``data:`` address for an ``<img>``."""
    return "data:image/png;base64," + b64encode(encode(image)).decode("ascii")


def write(path: str | PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a picture to a PNG file, replacing it atomically.

    Parameters
    ----------
    path : str or path
    image : ndarray of uint8, shape (H, W) or (H, W, 3)
        Gray or RGB, such as an overlay.

    Raises
    ------
    InvalidInputError
        Another dtype or shape.
    """
    data = encode(image)
    with replacing(Path(path)) as file:
        file.write(data)
