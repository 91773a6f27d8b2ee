"""Linear interpolation of maps over one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray, read_only

LARGEST_MATRIX = 1 << 18
"""Entries up to which interpolating an axis is done as a matrix product, the fastest way by far."""


def resize(maps: NDArray[np.floating[Any]], size: Sequence[int]) -> FloatArray:
    """Resize maps linearly (bilinearly, trilinearly), cell centres aligned.

    Position ``i`` of the result lies at ``(i + 1/2) * n_in / n_out - 1/2`` of the input, clamped to
    the first and last cell: PyTorch's ``interpolate(align_corners=False)`` and OpenCV's
    ``INTER_LINEAR``. No smoothing when shrinking.

    Parameters
    ----------
    maps : ndarray of shape (N, *s)
        Any number of axes after the first.
    size : sequence of int
        New length of each axis after the first.

    Returns
    -------
    ndarray of float32, shape (N, *size)
        Values lie within those of `maps`.
    """
    out = np.asarray(maps, np.float32)
    for axis, (old, new) in enumerate(zip(out.shape[1:], size, strict=True), start=1):
        if old == new:
            continue
        if old * new <= LARGEST_MATRIX:
            out = along(interpolation(old, new), out, axis)
        else:
            left, share = _places(old, new)
            part = share.astype(np.float32).reshape(-1, *[1] * (out.ndim - axis - 1))
            right = np.minimum(left + 1, old - 1)
            out = out.take(left, axis) * (1 - part) + out.take(right, axis) * part
    return out


def along(matrix: NDArray[Any], maps: NDArray[Any], axis: int) -> NDArray[Any]:
    """Multiply a (new, old) matrix to one axis of an array."""
    before, after = prod(maps.shape[:axis]), prod(maps.shape[axis + 1 :])
    old = maps.shape[axis]
    if after == 1:  # one product instead of many by vectors
        out = maps.reshape(before, old) @ matrix.T
    else:
        out = matrix @ maps.reshape(before, old, after)
    return np.asarray(out.reshape(*maps.shape[:axis], len(matrix), *maps.shape[axis + 1 :]))


@lru_cache(maxsize=64)
def interpolation(old: int, new: int) -> FloatArray:
    """Return the (new, old) matrix of linear interpolation; its rows sum to one."""
    left, share = _places(old, new)
    matrix = np.zeros((new, old), np.float32)
    rows = np.arange(new)
    matrix[rows, left] = 1 - share
    matrix[rows, np.minimum(left + 1, old - 1)] += share.astype(np.float32)
    return read_only(matrix)


def _places(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return for each new position its left neighbour and its distance from it."""
    place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    left = np.minimum(place.astype(np.intp), max(old - 2, 0))
    return left, place - left
