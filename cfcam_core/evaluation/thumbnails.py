"""Maps and pictures made small, so that a page with many of them stays light."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Any
from zlib import decompress

import numpy as np
from numpy.typing import NDArray

from cfcam_core.overlay import overlay
from cfcam_core.report import flat_picture

SHOWN = 24
"""Images whose maps are kept and shown; the rest is only counted."""

SIDE = 112
"""Longest side in pixels at which a picture is shown."""

MAP_SIDE = 64
"""Longest side at which a map is kept; most layers' maps are smaller."""


def small_map(heatmap: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a heatmap (*size) in [0, 1] as a small gray picture."""
    small = shrunk(flat_picture(heatmap)[..., None], MAP_SIDE)[..., 0]
    return np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8)


def unpacked(text: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return a small map from its base64."""
    return np.frombuffer(decompress(b64decode(text)), np.uint8).reshape(tuple(shape))


def small_picture(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) of uint8, uint16 or floats in [0, 1] as a small one."""
    whole = 1.0 if picture.dtype.kind == "f" else float(np.iinfo(picture.dtype).max)
    return np.rint(255 / whole * shrunk(picture, SIDE)).clip(0, 255).astype(np.uint8)


def laid_over(small: NDArray[np.uint8], picture: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return a small map in colours over its picture; alone where there is none."""
    heat = (small / np.float32(255)).astype(np.float32)[None]
    if picture is None:
        return overlay(heat, np.zeros((*small.shape, 3), np.uint8), alpha=1)
    return overlay(heat, picture)


def shrunk(picture: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Return a picture (H, W, C) with no side longer than `side`, by means over areas."""
    values = np.asarray(picture, np.float64)
    longest = max(values.shape[:2])
    if longest <= side:
        return values
    for axis, length in enumerate(values.shape[:2]):
        wanted = max(1, round(length * side / longest))
        starts = np.arange(wanted) * length // wanted
        counts = np.diff([*starts, length]).reshape(-1, *[1] * (2 - axis))
        values = np.add.reduceat(values, starts, axis=axis) / counts
    return values
