"""Which channels are neighbours: exact answers at the price of one float32 matrix product.

All pairwise squared distances are first computed approximately, with a proven bound on their error.
A pair whose approximate distance is further than the bound from the radius is decided by it; the
few pairs within the bound are computed again, directly and in float64. So the result is that of
float64 arithmetic, and the upper triangle of float32 values is the only large array.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import floor, log2
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray

BLOCK = 64
"""Rows of the distance matrix computed at a time: a multiple of 64 that keeps the waste below the
diagonal small."""

STRIDE = 29
"""Every so many distances are sorted to bracket the wanted order statistic; a prime, against
patterns."""

UNIT = 2.0**-24
"""Unit roundoff of float32."""

_memory = threading.local()


class Neighbours(NamedTuple):
    """Result of `neighbours`."""

    adjacency: NDArray[np.bool_]
    """(N, N), symmetric, true on the diagonal. Valid until the next call in the same thread."""
    radius: float
    """Radius of DBSCAN that this adjacency belongs to."""


class _Order(NamedTuple):
    """Where a percentile lies among the sorted pair distances: between ranks `low` and `high`."""

    low: int
    high: int
    share: float


def neighbours(
    features: FloatArray, *, percentile: float, least: float, rule: Literal["rank", "float32"]
) -> Neighbours:
    """Find the pairs of channels whose distance is at most a percentile of all distances.

    Parameters
    ----------
    features : ndarray of float32, shape (N, K)
        One channel a row, N >= 2, of magnitudes whose squares neither overflow nor vanish in
        float32.
    percentile : float
        In 0 to 100, over all ordered pairs of different channels (numpy's ``linear`` definition).
    least : float
        Least radius, in units of the features.
    rule : str
        ``rank``: pair (i, j) is adjacent iff ``d2_ij <= d2_(k)``, the order statistic just below
        the percentile, both in float64. ``float32``: radius interpolated between float32 distances;
        ``d2_ij`` in float64 is compared with the square of the radius as scikit-learn 1.6 to 1.9
        rounds it: to float32, unless it uses a tree (up to 15 features, from 12 channels on).

    Returns
    -------
    Neighbours
    """
    table = _DistanceTable.of(features)
    order = _order(len(features) * (len(features) - 1) // 2, percentile)
    band = table.band(order, least, _rounding(features.shape[1]) if rule == "float32" else 0.0)
    squares = table.exact(band, np.float64)
    if rule == "float32":
        roots = np.sqrt(table.exact(band, np.float32))
        radius = max(float(interpolate(*_pick(roots, order, band.below), order.share)), least)
        rounded = np.float32(radius)
        by_tree = features.shape[1] <= 15 and len(features) // 2 > 5
        limit = radius * radius if by_tree else float(rounded * rounded)
    else:
        limit, above = (float(d) for d in _pick(squares, order, band.below))
        radius = interpolate(limit**0.5, above**0.5, order.share)
        if radius < least:
            radius, limit = least, least * least
    return Neighbours(table.adjacency(band, squares <= limit), radius)


def _order(pairs: int, percentile: float) -> _Order:
    """Locate a percentile of all ordered pairs among the sorted pair distances."""
    place = (2 * pairs - 1) * (percentile / 100)
    below = floor(place)
    return _Order(below // 2, min((below + 1) // 2, pairs - 1), place - below)


def interpolate(low: Any, high: Any, share: float) -> Any:
    """Interpolate linearly, rounding as ``numpy.percentile`` does."""
    step = high - low
    return low + step * share if share < 0.5 else high - step * (1 - share)


def _pick(values: NDArray[Any], order: _Order, below: int) -> tuple[Any, Any]:
    """Return the two order statistics of the whole table from the values inside a band."""
    ordered = np.partition(values, order.high - below)
    high = ordered[order.high - below]
    if order.low == order.high:
        return high, high
    return ordered[: order.high - below].max(), high


@dataclass(frozen=True, slots=True, eq=False)
class _Band:
    """The pairs (rows[p], columns[p]) that approximate distances cannot decide."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    lower: np.float32
    below: int
    """Number of pairs certainly nearer than all pairs of the band."""


@dataclass(frozen=True, slots=True, eq=False)
class _DistanceTable:
    """Approximate squared distances of all pairs i < j, in blocks of rows of the upper triangle."""

    features: FloatArray
    values: FloatArray
    """Flat; entries on and below the diagonal are +inf."""
    blocks: list[tuple[int, FloatArray]]
    """The first row i of each block, and a view (rows, N - i) of its values."""
    error: float
    """Bound on |approximate - exact| of every entry."""

    @classmethod
    def of(cls, features: FloatArray) -> _DistanceTable:
        """Compute ``|x|^2 - 2 <x, y> + |y|^2`` of centred features as one matrix product.

        Its factors are ``[-2x, |x|^2, 1]`` and ``[y, 1, |y|^2]``. Centring keeps a common offset
        from cancelling. Error bound (Higham 2002, section 3.1), u the unit roundoff, n the largest
        squared norm, gamma_k = k u / (1 - k u): the product gives gamma_(K+2) 4 n, the two norms
        gamma_K 2 n, the centring 8 u n.
        """
        count, size = features.shape
        left = _scratch("left", count * (size + 2), np.float32).reshape(count, size + 2)
        right = _scratch("right", count * (size + 2), np.float32).reshape(count, size + 2)
        centred = right[:, :size]
        centre = np.full(count, 1 / count, np.float32) @ features
        np.subtract(features, centre, out=centred)
        squares = np.vecdot(centred, centred)
        np.multiply(centred, -2, out=left[:, :size])
        left[:, size], left[:, size + 1] = squares, 1
        right[:, size], right[:, size + 1] = 1, squares
        firsts, starts = _layout(count)
        values = _scratch("values", starts[-1], np.float32)
        blocks = [
            values[start:stop].reshape(-1, count - first)
            for first, start, stop in zip(firsts, starts[:-1], starts[1:], strict=True)
        ]
        for first, block in zip(firsts, blocks, strict=True):
            np.matmul(left[first : first + len(block)], right[first:].T, out=block)
            block[:, : len(block)] += _lower(len(block))
        error = _error_bound(size, float(squares.max()))
        return cls(features, values, list(zip(firsts, blocks, strict=True)), error)

    def band(self, order: _Order, least: float, relative: float) -> _Band:
        """Return the pairs whose place on either side of the radius approximate values cannot tell.

        These are the pairs near the order statistics, twice the error bound to either side, widened
        by a relative rounding error and up to the least radius. A sorted sample brackets them, so
        that only a few percent of the values are looked at more than once; if the sample misled,
        all are.
        """

        def widened(low: Any, high: Any) -> tuple[np.float32, np.float32]:
            down, up = np.float32(-np.inf), np.finfo(np.float32).max
            low, high = min(float(low), float(up)), min(float(high), float(up))
            low -= relative * abs(low) + 2 * self.error
            high = min(max(high + relative * abs(high), least**2) + 2 * self.error, float(up))
            return np.nextafter(np.float32(low), down), min(np.nextafter(np.float32(high), up), up)

        sample = np.sort(self.values[::STRIDE])
        centre = order.low / self.values.size * sample.size
        margin = 1.5 * sample.size**0.5 + 2  # over three standard deviations of a sampled rank
        bracket = (
            sample[max(int(centre - margin), 0)],
            sample[min(int(centre + margin) + 1, sample.size - 1)],
        )
        everything = np.float32(-np.inf), np.finfo(np.float32).max
        for span in (widened(*bracket), everything):
            flat, below = self._between(*span)
            if span is everything or below <= order.low <= order.high < below + flat.size:
                values = self.values[flat]
                lower, upper = widened(*_pick(values, order, below))
                if span[0] <= lower and upper <= span[1]:
                    break
        below += int(np.count_nonzero(values < lower))
        flat = flat[(values >= lower) & (values <= upper)]
        firsts, starts = (np.array(each) for each in _layout(len(self.features)))
        block = np.searchsorted(starts, flat, side="right") - 1
        row, column = np.divmod(flat - starts[block], len(self.features) - firsts[block])
        return _Band(row + firsts[block], column + firsts[block], lower, below)

    def _between(self, lower: np.float32, upper: np.float32) -> tuple[NDArray[np.intp], int]:
        """Return the places of values in [lower, upper] and the number of those below."""
        near = np.less(self.values, lower, out=_scratch("near", self.values.size, np.bool_))
        below = int(np.count_nonzero(near))
        inside = _scratch("inside", self.values.size, np.bool_)
        np.less_equal(self.values, upper, out=inside)
        return np.flatnonzero(np.not_equal(near, inside, out=inside)), below

    def exact(self, band: _Band, dtype: type[np.floating[Any]]) -> NDArray[Any]:
        """Return squared distances of the band's pairs by direct differences in `dtype`."""
        out = np.empty(len(band.rows), dtype)
        chunk = max(1, 2**18 // self.features.shape[1])
        for s in range(0, len(out), chunk):
            d = self.features[band.rows[s : s + chunk]].astype(dtype, copy=False)
            d = d - self.features[band.columns[s : s + chunk]].astype(dtype, copy=False)
            out[s : s + chunk] = np.add.reduce(d * d, axis=1)
        return out

    def adjacency(self, band: _Band, near: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the symmetric matrix: true below the band, inside it as `near` says."""
        count = len(self.features)
        width = (count // 64 + 1 | 1) * 64  # rows an odd number of cache lines apart
        matrix = _scratch("adjacency", count * width, np.bool_).reshape(count, width)[:, :count]
        for i, block in self.blocks:
            end = i + len(block)
            np.less(block, band.lower, out=matrix[i:end, i:])
            matrix[end:, i:end] = matrix[i:end, end:].T
            square = matrix[i:end, i:end]
            square |= square.T.copy()
        matrix[band.rows, band.columns] = near
        matrix[band.columns, band.rows] = near
        np.einsum("ii->i", matrix)[:] = True
        return matrix


def _rounding(size: int) -> float:
    """Bound the relative error of a sum of `size` squares as NumPy adds them in float32."""
    return 2 * UNIT * (min(size, 128) / 8 + log2(size + 1) + 8)


def _error_bound(size: int, largest: float) -> float:
    if size * UNIT > 0.01:  # the bound no longer holds: let every pair be computed exactly
        return float("inf")
    gamma = (size + 2) * UNIT / (1 - (size + 2) * UNIT)
    return (6 * gamma + 8 * UNIT) * largest / (1 - gamma)


@lru_cache(maxsize=16)
def _layout(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first row of each block, and where its values begin; the last entry is the end."""
    firsts = range(0, count, BLOCK)
    sizes = [min(BLOCK, count - first) * (count - first) for first in firsts]
    return tuple(firsts), tuple(accumulate(sizes, initial=0))


@lru_cache(maxsize=8)
def _lower(size: int) -> FloatArray:
    """Return infinity on and below the diagonal, zero above."""
    return np.where(np.tri(size, dtype=np.bool_), np.float32(np.inf), np.float32(0))


def _scratch(name: str, size: int, dtype: type[Any]) -> NDArray[Any]:
    """Return uninitialised memory that this thread keeps: fresh pages cost more than arithmetic."""
    kept: dict[str, NDArray[np.uint8]] = _memory.__dict__
    wanted = size * np.dtype(dtype).itemsize
    if name not in kept or kept[name].size < wanted:
        kept[name] = np.empty(wanted, np.uint8)
    return kept[name][:wanted].view(dtype)


def release_scratch() -> None:
    """Give back the working memory that this thread keeps between calls."""
    _memory.__dict__.clear()
