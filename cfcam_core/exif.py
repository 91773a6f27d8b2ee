"""The one thing wanted of EXIF: which way up a picture is.

OpenCV applies the orientation only when it also drops the alpha channel, and which formats it reads
it from depends on its version. So the tag is read here: JPEG (APP1), PNG (eXIf), WebP (EXIF).
TIFF files are turned by OpenCV's decoder itself, always.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

TAG = 0x0112
"""EXIF 2.32, section 4.6.4: Orientation, a SHORT from 1 to 8."""


def orientation(data: bytes) -> int:
    """Return the orientation that an image file asks for, 1 to 8; 1 where it asks for none."""
    try:
        for block in _blocks(data):
            value = _tag(block.removeprefix(b"Exif\0\0"))
            if value is not None:
                return value
    except (struct.error, IndexError):
        pass
    return 1


def upright(image: NDArray[Any], value: int) -> NDArray[Any]:
    """Return an image of shape (H, W, ...) turned and mirrored as orientation `value` asks for.

    1 leaves it, 2 mirrors left to right, 3 turns by 180 degrees, 4 mirrors top to bottom; 5, 6, 7
    and 8 do what 1, 2, 3 and 4 do after swapping the axes: 6 turns clockwise, 8 against it.
    """
    if value >= 5:
        image = image.swapaxes(0, 1)
    if value in (3, 4, 7, 8):
        image = image[::-1]
    if value in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _tag(tiff: bytes) -> int | None:
    """Look the orientation up in the first directory of a TIFF header (TIFF 6.0, section 2)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for index in range(entries):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * index)
        if tag == TAG and kind == 3 and 1 <= value <= 8:
            return int(value)
    return None


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield the blocks of a JPEG, PNG or WebP file that may hold EXIF."""
    if data[:2] == b"\xff\xd8":
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                yield data[at + 4 : at + 2 + length]
            at += 2 + length
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        at = 8
        while at + 8 <= len(data):
            length, kind = struct.unpack_from(">I4s", data, at)
            if kind == b"eXIf":
                yield data[at + 8 : at + 8 + length]
            at += 12 + length
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        at = 12
        while at + 8 <= len(data):
            kind, length = struct.unpack_from("<4sI", data, at)
            if kind == b"EXIF":
                yield data[at + 8 : at + 8 + length]
            at += 8 + length + length % 2
