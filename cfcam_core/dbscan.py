"""DBSCAN with scikit-learn's labels, as a breadth-first search over packed bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dbscan(adjacency: NDArray[np.bool_], *, min_samples: int) -> NDArray[np.intp]:
    """Cluster points by density (Ester et al. 1996).

    A point is a core point if it has at least `min_samples` neighbours, itself included. Clusters
    are the connected components of core points, numbered by their first core point; a point that is
    no core point joins the lowest-numbered cluster with a core point next to it; the rest is noise.

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
    Labels equal those of scikit-learn's ``DBSCAN(metric="precomputed")``. Each row is packed into
    64-bit words, so that the union of the neighbourhoods of a whole frontier is a few bitwise
    operations: O(N^2 / 64) words in all.
    """
    count = len(adjacency)
    rows = _pack(adjacency)
    core = np.add.reduce(np.bitwise_count(rows), axis=1, dtype=np.int32) >= min_samples
    unvisited = _pack(core[None])[0]  # core points in no cluster yet
    unlabelled = np.full_like(unvisited, ~np.uint64(0))
    labels = np.full(count, -1, np.intp)
    seeds, cluster = np.flatnonzero(core), 0
    while seeds.size:
        frontier, reached = seeds[:1], np.zeros_like(unvisited)
        while frontier.size:
            reach = np.bitwise_or.reduce(rows[frontier], axis=0)
            reached |= reach
            frontier = _unpack(reach & unvisited, count)
            unvisited &= ~reach
        labels[_unpack(reached & unlabelled, count)] = cluster
        unlabelled &= ~reached
        seeds, cluster = seeds[labels[seeds] == -1], cluster + 1
    return labels


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (M, N) booleans into (M, ceil(N / 64)) words; the first boolean is the lowest bit."""
    octets = np.packbits(bits, axis=1, bitorder="little")
    packed = np.zeros((len(bits), -(-bits.shape[1] // 64) * 8), np.uint8)
    packed[:, : octets.shape[1]] = octets
    return packed.view("<u8")


def _unpack(words: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Return the indices of the bits that are set."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), count=count, bitorder="little"))
