"""Which channels are neighbours: exact answers at the price of one float32 matrix product.

All pairwise squared distances are first computed approximately, with a proven bound on their error.
A pair whose approximate distance is further than the bound from the radius is decided by it; the
few pairs within the bound are computed again, directly and in float64. So the result is that of
float64 arithmetic.

A sample tells beforehand between which two values the radius lies. So most pairs are decided as
soon as their distance is there, and only the few percent in between wait until all are seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray
from cfcam_core.distances import UNIT, Distances, blocks_of, exact_squares, scratch

LEAST = 256
"""Of fewer channels all distances are kept: a sample would save less than it costs."""


class Neighbours(NamedTuple):
    """Result of `neighbours`."""

    later: NDArray[np.uint64]
    """(ceil(N / 64), N): bit j of column i tells whether i and j > i are neighbours."""
    degrees: NDArray[np.intp]
    """(N,): how many neighbours each channel has, itself included."""
    radius: float
    """Radius of DBSCAN that these neighbours belong to."""


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
    order = _order(len(features) * (len(features) - 1) // 2, percentile)
    relative = _rounding(features.shape[1]) if rule == "float32" else 0.0
    near, band = _scan(Distances.of(features), order, least, relative)
    squares = exact_squares(features, band.rows, band.columns, np.float64)
    if rule == "float32":
        roots = np.sqrt(exact_squares(features, band.rows, band.columns, np.float32))
        radius = max(float(interpolate(*_pick(roots, order, band.below), order.share)), least)
        rounded = np.float32(radius)
        by_tree = features.shape[1] <= 15 and len(features) // 2 > 5
        limit = radius * radius if by_tree else float(rounded * rounded)
    else:
        limit, above = (float(d) for d in _pick(squares, order, band.below))
        radius = interpolate(limit**0.5, above**0.5, order.share)
        if radius < least:
            radius, limit = least, least * least
    near[band.places] = squares <= limit
    return Neighbours(*_graph(near, len(features)), radius)


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
    """The pairs that approximate distances cannot decide."""

    places: NDArray[np.intp]
    """Where each lies among the pairs of all blocks."""
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    below: int
    """Number of pairs certainly nearer than all pairs of the band."""


def _scan(
    distances: Distances, order: _Order, least: float, relative: float
) -> tuple[NDArray[np.bool_], _Band]:
    """Tell which pairs are certainly near, and which approximate values cannot decide.

    Undecided are the pairs close to the order statistics: twice the error bound to either side,
    widened by a relative rounding error and up to the least radius. Only the values in the bracket
    that a sample gives are kept until the order statistics are known; if the sample misled, all
    are.
    """

    def widened(low: Any, high: Any) -> tuple[np.float32, np.float32]:
        down, up = np.float32(-np.inf), np.finfo(np.float32).max
        low, high = min(float(low), float(up)), min(float(high), float(up))
        low -= relative * abs(low) + 2 * distances.error
        high = min(max(high + relative * abs(high), least**2) + 2 * distances.error, float(up))
        return np.nextafter(np.float32(low), down), min(np.nextafter(np.float32(high), up), up)

    count = len(distances.left)
    everything = np.float32(-np.inf), np.finfo(np.float32).max
    spans = [everything]
    if count >= LEAST:
        share = 2 * order.low / (count * (count - 1))
        spans = [widened(*_bracket(distances.sample(), share)), everything]
    for span in spans:
        near, eights, kept = _split(distances, *span)
        nearer = int(np.count_nonzero(near))
        below = nearer - int(np.count_nonzero(kept < span[0]))
        until = below + int(np.count_nonzero(kept <= span[1]))
        if span is everything or nearer <= order.low <= order.high < until:
            lower, upper = widened(*_pick(kept, order, below))
            if span[0] <= lower and upper <= span[1]:
                break
    sure = kept < lower
    near.view(np.uint64)[eights] = sure.view(np.uint64)
    undecided = np.flatnonzero((kept >= lower) & (kept <= upper))
    places = 8 * eights[undecided // 8] + undecided % 8
    blocks = np.array(blocks_of(count))
    first, _, width, start = blocks[np.searchsorted(blocks[:, 3], places, side="right") - 1].T
    row, column = np.divmod(places - start, width)
    return near, _Band(places, first + row, first + column, below + int(np.count_nonzero(sure)))


def _bracket(sample: FloatArray, share: float) -> tuple[np.float32, np.float32]:
    """Return two values of a sorted sample: the wanted one, above a `share` of all, is between."""
    centre = share * sample.size
    margin = 1.5 * sample.size**0.5 + 2  # over three standard deviations of a sampled rank
    return (
        sample[max(int(centre - margin), 0)],
        sample[min(int(centre + margin) + 1, sample.size - 1)],
    )


def _split(
    distances: Distances, lower: np.float32, upper: np.float32
) -> tuple[NDArray[np.bool_], NDArray[np.intp], FloatArray]:
    """Tell which distances are below `lower`, and keep those from there to `upper`.

    They are kept as they lie, in eights of which at least one is wanted: where these are among all
    eights, shape (M,), and their values, (8 M,).
    """
    blocks = blocks_of(len(distances.left))
    near = scratch("near", blocks[-1].stop, np.bool_)
    eights, kept = [], []
    for first, rows, width, start in blocks:
        block = distances.block(first, rows, width).reshape(-1)
        below = np.less(block, lower, out=near[start : start + block.size])
        until = np.less_equal(block, upper, out=scratch("until", block.size, np.bool_))
        wanted = np.flatnonzero(below.view(np.uint64) != until.view(np.uint64))
        kept.append(block.reshape(-1, 8).take(wanted, axis=0))
        eights.append(wanted + start // 8)
    return near, np.concatenate(eights), np.concatenate(kept).reshape(-1)


def _graph(near: NDArray[np.bool_], count: int) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return the neighbours after each channel as bits, and how many each has on both sides."""
    bits = np.packbits(near, bitorder="little").view("<u8")
    later = np.zeros((-(-count // 64), count), np.uint64)
    degrees = np.ones(64 * len(later), np.intp)
    for first, rows, width, start in blocks_of(count):
        stop = start + rows * width
        words = bits[start // 64 : stop // 64].reshape(rows, -1)
        later[first // 64 :, first : first + rows] = words.T
        block = near[start:stop].view(np.uint8).reshape(rows, width)
        degrees[first:] += np.add.reduce(block, axis=0, dtype=np.uint8)
    return later, degrees[:count] + np.add.reduce(np.bitwise_count(later), axis=0, dtype=np.intp)


def _rounding(size: int) -> float:
    """Bound the relative error of a sum of `size` squares as NumPy adds them in float32."""
    return 2 * UNIT * (min(size, 128) / 8 + log2(size + 1) + 8)
