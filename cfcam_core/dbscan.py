"""DBSCAN on a given adjacency, with scikit-learn's labels, as a breadth-first search over packed bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dbscan(adjacency: NDArray[np.bool_], *, min_samples: int) -> NDArray[np.intp]:
    """Cluster points by density (Ester et al. 1996).

    A point is a core point if it has at least `min_samples` neighbours, itself included. Clusters are the connected components
    of core points, numbered by their first core point; a point that is no core point joins the lowest-numbered cluster
    with a core point next to it; the rest is noise.

    Parameters
    ----------
    adjacency : ndarray of bool, shape (N, N)
        Symmetric, true on the diagonal.
    min_samples : int

    Returns
    -------
    ndarray of int, shape (N,)
        Cluster of each point, -1 for noise.

    Notes
    -----
    Labels equal those of scikit-learn's ``DBSCAN(metric="precomputed")``. Each row is packed into 64-bit words, so that the union of
    the neighbourhoods of a whole frontier is a few bitwise operations: O(N^2 / 64) words in all.
    """
    count = len(adjacency)
    rows = _pack(adjacency)
    core = np.bitwise_count(rows).sum(axis=1, dtype=np.int64) >= min_samples
    unvisited = _pack(core[None])[0]  # core points in no cluster yet
    unlabelled = _pack(np.ones((1, count), np.bool_))[0]
    labels = np.full(count, -1, np.intp)
    cluster = 0
    for seed in np.flatnonzero(core):
        if labels[seed] != -1:
            continue
        reached = np.zeros_like(unvisited)
        frontier = np.array([seed])
        unvisited[seed // 64] &= ~_bit(seed)
        while len(frontier):
            reach = np.bitwise_or.reduce(rows[frontier], axis=0)
            reached |= reach
            fresh = reach & unvisited
            unvisited &= ~fresh
            frontier = _unpack(fresh, count)
        labels[_unpack(reached & unlabelled, count)] = cluster
        unlabelled &= ~reached
        cluster += 1
    return labels


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (M, N) booleans into (M, ceil(N / 64)) words; the first boolean is the lowest bit."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    if packed.shape[1] % 8:
        packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def _unpack(words: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Return the indices of the bits that are set."""
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.flatnonzero(np.unpackbits(octets, count=count, bitorder="little"))


def _bit(index: int) -> np.uint64:
    return np.uint64(1) << np.uint64(index % 64)
