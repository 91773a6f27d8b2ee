"""DBSCAN with scikit-learn's labels, as a breadth-first search over packed bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dbscan(
    later: NDArray[np.uint64], degrees: NDArray[np.intp], *, min_samples: int
) -> NDArray[np.intp]:
    """Cluster points by density (Ester et al. 1996).

    A point is a core point if it has at least `min_samples` neighbours, itself included. Clusters
    are the connected components of core points, numbered by their first core point; a point that is
    no core point joins the lowest-numbered cluster with a core point next to it; the rest is noise.

    Parameters
    ----------
    later : ndarray of uint64, shape (ceil(N / 64), N)
        Each pair of neighbours i < j once: bit j of column i, the lowest bit of the first word
        being bit 0.
    degrees : ndarray of int, shape (N,)
        How many neighbours each point has, itself included.
    min_samples : int

    Returns
    -------
    ndarray of int, shape (N,)
        Cluster of each point, -1 for noise.

    Notes
    -----
    Labels equal those of scikit-learn's ``DBSCAN(metric="precomputed")``. Of a whole frontier, the
    neighbours that come later are the union of its columns; the earlier ones are those whose own
    column meets the frontier. Both take a few bitwise operations on N^2 / 64 words.
    """
    count = later.shape[1]
    core = degrees >= min_samples
    unvisited = _pack(core)  # core points in no cluster yet
    unlabelled = ~np.zeros_like(unvisited)
    labels = np.full(count, -1, np.intp)
    seeds, cluster = np.flatnonzero(core), 0
    while seeds.size:
        frontier, reached = seeds[:1], np.zeros_like(unvisited)
        while frontier.size:
            reach = _reach(later, frontier)
            reached |= reach
            frontier = _unpack(reach & unvisited, count)
            unvisited &= ~reach
        labels[_unpack(reached & unlabelled, count)] = cluster
        unlabelled &= ~reached
        seeds, cluster = seeds[labels[seeds] == -1], cluster + 1
    return labels


def _reach(later: NDArray[np.uint64], frontier: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Return the points of a frontier and all their neighbours, as bits."""
    inside = np.zeros(later.shape[1], np.bool_)
    inside[frontier] = True
    meeting = np.bitwise_or.reduce(later & _pack(inside)[:, None], axis=0) != 0
    reach = _pack(inside | meeting)
    reach |= np.bitwise_or.reduce(later.take(frontier, axis=1), axis=1)
    return reach


def _pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack N booleans into ceil(N / 64) words; the first boolean is the lowest bit."""
    words = np.zeros(-(-len(bits) // 64), "<u8")
    octets = np.packbits(bits, bitorder="little")
    words.view(np.uint8)[: len(octets)] = octets
    return words


def _unpack(words: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Return the indices of the bits that are set."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), count=count, bitorder="little"))
