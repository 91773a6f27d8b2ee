"""Squared distances between channels: all of them fast with a bound on the error, some exactly.

The fast ones are products of two float32 matrices. There are too many to keep them for long, so
they come in blocks of rows, each to be used while the processor's cache still holds it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray

BLOCKS = 12
"""About how many blocks of rows: few, for each costs some calls, but not few enough to waste much
below the diagonal. Their height is a multiple of 64, to begin with a new word, and below 256, so
that a byte can count rows."""

SAMPLE = 32
"""Distances are sampled between groups of so many channels, each group paired with one other."""

UNIT = 2.0**-24
"""Unit roundoff of float32."""

_memory = threading.local()


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Approximate squared distances of all pairs, as products of two matrices not yet multiplied.

    ``|x|^2 - 2 <x, y> + |y|^2`` of centred features has the factors ``[-2x, |x|^2, 1]`` and
    ``[y, 1, |y|^2]``. Centring keeps a common offset from cancelling.
    """

    left: FloatArray
    """(N, K + 2)"""
    right: FloatArray
    """(N, K + 2)"""
    error: float
    """Bound on |approximate - exact| of every distance (Higham 2002, section 3.1): u the unit
    roundoff, n the largest squared norm, gamma_k = k u / (1 - k u), the product gives gamma_(K+2)
    4 n, the two norms gamma_K 2 n, the centring 8 u n."""

    @classmethod
    def of(cls, features: FloatArray) -> Distances:
        """Make the factors of (N, K) features. Valid until the next call in the same thread."""
        count, size = features.shape
        left = scratch("left", count * (size + 2), np.float32).reshape(count, size + 2)
        right = scratch("right", count * (size + 2), np.float32).reshape(count, size + 2)
        centred = right[:, :size]
        centre = np.full(count, 1 / count, np.float32) @ features
        np.subtract(features, centre, out=centred)
        squares = np.vecdot(centred, centred)
        np.multiply(centred, -2, out=left[:, :size])
        left[:, size], left[:, size + 1] = squares, 1
        right[:, size], right[:, size + 1] = 1, squares
        return cls(left, right, _error_bound(size, float(squares.max())))

    def block(self, first: int, rows: int, width: int) -> FloatArray:
        """Return the distances of some rows i to j = first, first + 1, ...; +inf for j <= i.

        Shape (rows, width), filled up with +inf. Valid until the next call in the same thread.
        """
        columns = len(self.left) - first
        values = scratch("values", rows * width, np.float32).reshape(rows, width)
        np.matmul(self.left[first : first + rows], self.right[first:].T, out=values[:, :columns])
        values[:, columns:] = np.inf
        values[:, :rows] += _lower(rows)
        return values

    def sample(self) -> FloatArray:
        """Return some of the distances, sorted; every channel has an equal share in them.

        Group c holds the channels c, c + G, c + 2 G, ..., and meets group c + G / 2.
        """
        groups = len(self.left) // (2 * SAMPLE) * 2
        left, right = (
            each[: SAMPLE * groups].reshape(SAMPLE, groups, -1).swapaxes(0, 1)
            for each in (self.left, self.right)
        )
        half = groups // 2
        return np.sort(left[:half] @ right[half:].swapaxes(1, 2), axis=None)


def exact_squares(
    features: FloatArray,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    dtype: type[np.floating[Any]],
) -> NDArray[Any]:
    """Return squared distances of some pairs by direct differences in `dtype`."""
    out = np.empty(len(rows), dtype)
    chunk = max(1, 2**18 // features.shape[1])
    for s in range(0, len(out), chunk):
        d = features[rows[s : s + chunk]].astype(dtype, copy=False)
        d = d - features[columns[s : s + chunk]].astype(dtype, copy=False)
        out[s : s + chunk] = np.add.reduce(d * d, axis=1)
    return out


class Block(NamedTuple):
    """Some rows of the upper triangle of all pairs, from the column `first` on.

    The width is rounded up to whole words of 64 bits.
    """

    first: int
    rows: int
    width: int
    start: int
    """Where its pairs begin among the pairs of all blocks."""

    @property
    def stop(self) -> int:
        """Where they end."""
        return self.start + self.rows * self.width


@lru_cache(maxsize=16)
def blocks_of(count: int) -> tuple[Block, ...]:
    """Return the blocks that hold all pairs of so many channels."""
    height = min(-(-count // (64 * BLOCKS)), 3) * 64
    firsts = range(0, count, height)
    rows = [min(height, count - first) for first in firsts]
    widths = [-(-(count - first) // 64) * 64 for first in firsts]
    starts = accumulate((r * w for r, w in zip(rows, widths, strict=True)), initial=0)
    return tuple(map(Block, firsts, rows, widths, starts))


def _error_bound(size: int, largest: float) -> float:
    if size * UNIT > 0.01:  # the bound no longer holds: let every pair be computed exactly
        return float("inf")
    gamma = (size + 2) * UNIT / (1 - (size + 2) * UNIT)
    return (6 * gamma + 8 * UNIT) * largest / (1 - gamma)


@lru_cache(maxsize=8)
def _lower(size: int) -> FloatArray:
    """Return infinity on and below the diagonal, zero above."""
    return np.where(np.tri(size, dtype=np.bool_), np.float32(np.inf), np.float32(0))


def scratch(name: str, size: int, dtype: type[Any]) -> NDArray[Any]:
    """Return uninitialised memory that this thread keeps: fresh pages cost more than arithmetic."""
    kept: dict[str, NDArray[np.uint8]] = _memory.__dict__
    wanted = size * np.dtype(dtype).itemsize
    if name not in kept or kept[name].size < wanted:
        kept[name] = np.empty(wanted, np.uint8)
    return kept[name][:wanted].view(dtype)


def release_scratch() -> None:
    """Give back the working memory that this thread keeps between calls."""
    _memory.__dict__.clear()
