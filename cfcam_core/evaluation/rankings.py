"""Rankings of segments, best first, and how far two of them agree from the top down."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError


def rank_biased_overlap(
    a: Sequence[Hashable] | NDArray[Any], b: Sequence[Hashable] | NDArray[Any], *, p: float = 0.9
) -> float:
    """Return how far two rankings of the same items agree, the top counting most.

    Parameters
    ----------
    a, b : sequence of length m
        The same items, each once, best first: segment ids, or anything that can be a key.
    p : float
        Between 0 and 1, both left out: how deep the comparison looks. The first d ranks carry about
        ``1 - p**d`` of the weight, so 0.9 looks at some ten segments and 0.2 at little but the
        first. A result says nothing without its p.

    Returns
    -------
    float
        In (0, 1]; 1 for the same order and for no other. Rankings drawn at random agree by more
        than 0, see `chance_overlap`.

    Raises
    ------
    InvalidInputError
        The rankings are empty, hold an item twice or different items, or p is out of range.

    Notes
    -----
    ``(1 - p) sum_{d=1..m} p^(d-1) |a_{1:d} & b_{1:d}| / d + p^m``, the extrapolated form for
    rankings of all items, in time proportional to m: an item is in both tops from the worse of its
    two ranks on.

    References
    ----------
    W. Webber, A. Moffat and J. Zobel, "A Similarity Measure for Indefinite Rankings", ACM
    Transactions on Information Systems 28 (4), 2010, equation 23.

    Examples
    --------
    >>> rank_biased_overlap([2, 0, 1], [0, 2, 1], p=0.5)
    0.5
    """
    first, second = _items(a, "a"), _items(b, "b")
    place = {item: rank for rank, item in enumerate(second)}
    if len(first) != len(second) or any(item not in place for item in first):
        raise InvalidInputError(
            f"the rankings hold different items: {len(first)} and {len(second)}, of which "
            f"{len(place.keys() & set(first))} are in both; rank the same segments in both"
        )
    worse = np.array([max(rank, place[item]) for rank, item in enumerate(first)])
    return float(_weighed(worse[None], checked_p(p))[0])


def overlaps(a: NDArray[np.intp], b: NDArray[np.intp], *, p: float = 0.9) -> NDArray[np.float64]:
    """Return `rank_biased_overlap` for each pair of rows of a and b, permutations of 0 to m - 1.

    Parameters
    ----------
    a, b : ndarray of int, shape (N, m)
        Taken as they are: what `ranking` returns.
    """
    return _weighed(np.maximum(_ranks(a), _ranks(b)), checked_p(p))


def chance_overlap(m: int, *, p: float = 0.9) -> float:
    """Return the mean of `rank_biased_overlap` over all pairs of rankings of m items.

    Notes
    -----
    ``(1 - p**m) / (m (1 - p))`` (ours): two tops of d items drawn at random share ``d**2 / m``.

    Examples
    --------
    >>> round(chance_overlap(40, p=0.9), 3)
    0.246
    """
    return (1 - checked_p(p) ** m) / (m * (1 - p))


def ranking(values: ArrayLike) -> NDArray[np.intp]:
    """Return the indices 0 to m - 1 in descending order of their values, along the last axis.

    The sort is stable: equal values stay in the order of their indices.

    Raises
    ------
    InvalidInputError
        A value is not a finite number.

    Examples
    --------
    >>> ranking([0.2, 0.5, 0.2, 0.9])
    array([3, 1, 0, 2])
    """
    numbers = number_array(values, "values").astype(np.float64)
    if not np.isfinite(numbers).all():
        raise InvalidInputError("values to rank contain NaN or infinity; wanted finite numbers")
    return np.argsort(-numbers, axis=-1, kind="stable")


def checked_p(p: float) -> float:
    """Return p, or raise `InvalidInputError` where it is not between 0 and 1."""
    if not isinstance(p, int | float | np.floating) or not 0 < p < 1:
        raise InvalidInputError(f"p={p!r}; wanted a number between 0 and 1, such as 0.9")
    return float(p)


def _weighed(worse: NDArray[np.intp], p: float) -> NDArray[np.float64]:
    """Return the overlap for each row: the worse of the two ranks, from 0, of each item."""
    rows, m = worse.shape
    flat = (worse + m * np.arange(rows)[:, None]).ravel()
    common = np.bincount(flat, minlength=rows * m).reshape(rows, m).cumsum(axis=1)
    depth = np.arange(1, m + 1)
    weight = (1 - p) * p ** (depth - 1.0)
    total = (weight * common / depth).sum(axis=1) + p**m
    same = (common == depth).all(axis=1)
    return np.where(same, 1.0, np.minimum(total, np.nextafter(1, 0)))  # however the sum is rounded


def _ranks(orders: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the inverse permutation of each row."""
    ranks = np.empty_like(orders)
    np.put_along_axis(ranks, orders, np.arange(orders.shape[1])[None], axis=1)
    return ranks


def _items(ranked: Sequence[Hashable] | NDArray[Any], name: str) -> list[Hashable]:
    """Return the items of a ranking, or raise `InvalidInputError`."""
    items = ranked.tolist() if isinstance(ranked, np.ndarray) else list(ranked)
    if not items:
        raise InvalidInputError(f"ranking {name} is empty; wanted one item or more")
    try:
        distinct = len(set(items))
    except TypeError as error:
        raise InvalidInputError(
            f"ranking {name} holds what cannot be told apart ({error}); wanted one axis of ids"
        ) from error
    if distinct < len(items):
        raise InvalidInputError(
            f"ranking {name} holds {len(items)} items, {distinct} of them distinct; each may come "
            "once"
        )
    return items
