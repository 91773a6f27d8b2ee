"""ROAD: remove positions and fill in what their neighbours suggest, so that no edge gives it away.

What a fixed colour leaves behind, the outline of what was removed, can itself be read by a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import splu

from cfcam_core.capture import FloatArray
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.asked import Asked, Progress
from cfcam_core.evaluation.masking import count, flat, ranks
from cfcam_core.explanation import Explanation
from cfcam_core.shuffling import checked_seed

PERCENTAGES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
"""Percentages of the positions that are removed (pytorch-grad-cam's ROADCombined)."""

NOISE = 0.01
"""Standard deviation of the noise on what is filled in, in units of the input (the paper's code).
"""


def road(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    percentages: Sequence[float] = PERCENTAGES,
    noise: float = NOISE,
    seed: int = 0,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return how much more it costs to remove the hottest positions than the coldest.

    Parameters
    ----------
    model, inputs : object, array_like
        As for `cfcam_core.explain`.
    heatmaps : array_like of shape (N, *size), or Explanation
        At the size of the inputs. Only the order of the values counts.
    target : None, int, sequence of int, or callable, optional
        Default: the classes of the Explanation, else the best of each sample.
    percentages : sequence of float
        How much is removed, each between 0 and 100; the result is the mean over them.
    noise : float
        Standard deviation of what is added to the values filled in, in units of the input.
    seed : int
        Of the noise. All samples get the same noise, so that none depends on its batch.
    progress : callable, optional
        Called with pictures done and in all.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between -1/2 and 1/2, large is good, about 0 for a map without information. NaN for a
        heatmap that is the same everywhere.

    Raises
    ------
    InvalidInputError
        Heatmaps are not of the inputs' size, the target is no class, or an argument is out of
        range.

    Notes
    -----
    The mean over the percentages of ``(p_cold - p_hot) / 2``: the class's probability with the
    least relevant positions removed (LeRF) minus that with as many most relevant ones (MoRF), as
    pytorch-grad-cam combines them. The paper reports the accuracy over a data set in each order.
    The number removed is rounded as in `cfcam_core.evaluation.keep_top`; at least one position
    stays. Of equally hot positions those of smaller index are the more relevant.

    References
    ----------
    Y. Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods",
    ICML 2022, sections 3 and 4; J. Gildenblat's pytorch-grad-cam, metrics/road.py.
    """
    chosen = checked_seed(seed)
    given = percentages if isinstance(percentages, Iterable) else (percentages,)
    shares = [_share(percentage) for percentage in given]
    if not shares:
        raise InvalidInputError("percentages are empty; pass one or more between 0 and 100")
    if not 0 <= noise < float("inf"):
        raise InvalidInputError(f"noise={noise!r}; wanted a finite number, 0 or more")
    asked = Asked.of(model, inputs, heatmaps, target)
    pictures, order = asked.pictures.arrays, ranks(asked.heatmaps)
    positions = order[0].size
    counts = [min(count(share, positions), positions - 1) for share in shares]

    def make(who: NDArray[np.intp], which: NDArray[np.intp]) -> NDArray[np.float32]:
        out = np.empty((len(who), *pictures.shape[1:]), np.float32)
        for made, n, version in zip(out, who, which, strict=True):
            removed = counts[version // 2]
            hottest = version % 2 == 0
            gone = order[n] < removed if hottest else order[n] >= positions - removed
            made[...] = filled_in(pictures[n], gone)
            if noise:
                rng = np.random.default_rng((chosen, version))
                made[:, gone] += rng.normal(0, noise, made.shape).astype(np.float32)[:, gone]
        return out

    found = asked.ask(make, 2 * len(counts), leave_out=flat(asked.heatmaps), progress=progress)
    return np.asarray((found[:, 1::2] - found[:, ::2]).mean(axis=1) / 2)


def filled_in(picture: FloatArray, gone: NDArray[np.bool_]) -> FloatArray:
    """Return a picture whose missing positions are weighted means of their neighbours.

    Parameters
    ----------
    picture : ndarray of shape (C, *size)
        One to three spatial axes.
    gone : ndarray of bool, shape (*size)
        Where values are missing; at least one is not.

    Returns
    -------
    ndarray of float32, shape (C, *size)

    Raises
    ------
    InvalidInputError
        Nothing is left to fill in from.

    Notes
    -----
    Every missing value x_i solves ``sum_j w_ij x_i = sum_j w_ij x_j`` over its neighbours j, known
    or missing: in a picture 1/6 for the four direct and 1/12 for the diagonal ones. In d axes a
    neighbour that differs in a of them weighs ``2^-a / (2^d - 1)``, which are those numbers for
    d = 2 (ours for others). At borders the neighbours that exist share the weight. One sparse
    factorisation serves all channels.
    """
    if gone.all():
        raise InvalidInputError("all positions are missing; there is nothing to fill in from")
    order = _dissected(gone.shape)
    missing, known = order[gone.ravel()[order]], np.flatnonzero(~gone)
    if not missing.size:
        return picture.copy()
    values = picture.reshape(len(picture), -1)
    rows = _neighbours(gone.shape)[missing]
    system = diags_array(rows.sum(axis=1)) - rows[:, missing]
    solver = splu(  # symmetric and positive definite: no pivoting is needed
        system.tocsc(),
        permc_spec="NATURAL",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    out = values.copy()
    out[:, missing] = solver.solve(rows[:, known] @ values[:, known].T.astype(np.float64)).T
    return out.reshape(picture.shape)


@lru_cache(maxsize=1)
def _neighbours(size: tuple[int, ...]) -> Any:
    """Return the weights (P, P) between all positions of a grid as a sparse matrix."""
    index = np.arange(prod(size)).reshape(size)
    here, there, weights = [], [], []
    for offset in product((-1, 0, 1), repeat=len(size)):
        moved = sum(map(abs, offset))
        if moved:
            pairs = list(zip(offset, size, strict=True))
            start = index[tuple(slice(max(0, -o), n - max(0, o)) for o, n in pairs)].ravel()
            end = index[tuple(slice(max(0, o), n - max(0, -o)) for o, n in pairs)].ravel()
            here.append(start)
            there.append(end)
            weights.append(np.full(start.size, 2.0**-moved / (2 ** len(size) - 1)))
    places = (np.concatenate(here), np.concatenate(there))
    return csr_array((np.concatenate(weights), places), shape=(index.size, index.size))


@lru_cache(maxsize=1)
def _dissected(size: tuple[int, ...]) -> NDArray[np.intp]:
    """Return all positions (P,) of a grid in an order in which little fills up on elimination.

    Nested dissection (George 1973): a line across the middle separates two halves, both come before
    it, and each is ordered likewise. About twice as fast as the solver's own order.
    """

    def ordered(block: NDArray[np.intp]) -> list[NDArray[np.intp]]:
        axis = int(np.argmax(block.shape))
        middle = block.shape[axis] // 2
        if block.size <= 8 or middle < 1:
            return [block.ravel()]
        one, line, other = np.split(block, [middle, middle + 1], axis=axis)
        return [*ordered(one), *ordered(other), line.ravel()]

    return np.concatenate(ordered(np.arange(prod(size)).reshape(size)))


def _share(percentage: float) -> float:
    try:
        within = 0 < percentage < 100
    except TypeError:
        within = False
    if not within:
        raise InvalidInputError(
            f"percentage {percentage!r} is out of range; allowed is between 0 and 100, both "
            "excluded"
        )
    return percentage / 100
