"""How alike two maps are, by name: from their segments' ranking, the segments' means, the maps.

One convention for all: two maps that are the same everywhere are alike (1), one such map and one
that shows something are not (0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.rankings import overlaps, ranking
from cfcam_core.evaluation.ssim import ssim

Floats = NDArray[np.float64]
OnMeans = Callable[[Floats, Floats], Floats]
"""From one map's means (m,) and others' (N, m) to (N,)."""

FLAT = 1e-5
"""Means that differ by less than this share of the largest are the same, as for
`Explanation.status`."""


def pearson(one: Floats, others: Floats) -> Floats:
    """Pearson's correlation of the segments' means, in [-1, 1]."""
    return cosine(one - one.mean(), others - others.mean(axis=1, keepdims=True))


def cosine(one: Floats, others: Floats) -> Floats:
    """Cosine of the angle between the segments' means, in [-1, 1]; of heatmaps in [0, 1]."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(one)
    return np.clip(others @ one / np.where(lengths > 0, lengths, 1), -1, 1)


def spearman(one: Floats, others: Floats) -> Floats:
    """Spearman's correlation of the segments' means, in [-1, 1]: Pearson's of the mid-ranks."""
    from scipy.stats import rankdata  # late: as long to import as all the rest

    return pearson(rankdata(one), rankdata(others, axis=1))


def kendall(one: Floats, others: Floats) -> Floats:
    """Kendall's tau-b of the segments' means, in [-1, 1]."""
    from scipy.stats import kendalltau

    return np.array([kendalltau(one, other).statistic for other in others])


ON_MEANS: Mapping[str, OnMeans] = MappingProxyType(
    {"spearman": spearman, "kendall": kendall, "cosine": cosine, "pearson": pearson}
)
"""Similarities of segments' means."""

SIMILARITIES = ("rbo", *ON_MEANS, "ssim")
"""What ``similarity=`` takes."""


def find_similarity(name: str) -> str:
    """Return the name, or raise `InvalidInputError` with those that there are."""
    if not isinstance(name, str) or name not in SIMILARITIES:
        raise InvalidInputError(
            f"there is no similarity {name!r}; allowed are {', '.join(SIMILARITIES)}"
        )
    return name


def similarities(
    name: str, means: Floats, maps: NDArray[Any], *, p: float = 0.9
) -> tuple[Floats, NDArray[np.bool_]]:
    """Compare the first map with each of the others.

    Parameters
    ----------
    name : str
        One of `SIMILARITIES`. ``rbo`` compares the rankings of the segments; ``ssim`` the maps
        themselves, see `cfcam_core.evaluation.ssim`; the others the segments' means.
    means : ndarray of shape (1 + N, m)
        The mean of each map in each segment.
    maps : ndarray of shape (1 + N, *size)
    p : float
        Of ``rbo``.

    Returns
    -------
    similarities : ndarray of float64, shape (N,)
        1 at most, and for equal maps; 1 also where both maps are flat, 0 where one of them is.
    flat : ndarray of bool, shape (1 + N,)
        Which maps have the same mean in every segment.

    Raises
    ------
    InvalidInputError
        The name is unknown, p out of range, or a mean is not finite.
    """
    find_similarity(name)
    orders = ranking(means)  # refuses what is not finite
    flat = np.ptp(means, axis=1) <= FLAT * np.abs(means).max(axis=1)
    if name == "rbo":
        found = overlaps(np.broadcast_to(orders[:1], orders[1:].shape), orders[1:], p=p)
    elif name == "ssim":
        found = np.array([ssim(maps[0], other) for other in maps[1:]])
    else:
        found = np.zeros(len(means) - 1)
        shown = ~flat[1:]
        if not flat[0] and shown.any():
            found[shown] = ON_MEANS[name](means[0], means[1:][shown])
    found = np.where(flat[0] & flat[1:], 1.0, found)
    return np.where(flat[0] ^ flat[1:], 0.0, found), flat
