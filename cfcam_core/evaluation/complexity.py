"""How concentrated a heatmap is. Says nothing of whether it is right: a single dot is sparse."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.explanation import Explanation


def sparseness(heatmaps: ArrayLike | Explanation) -> NDArray[np.float64]:
    """Return the Gini index of each heatmap's absolute values.

    Parameters
    ----------
    heatmaps : array_like of shape (N, H, W), or Explanation
        Three spatial axes do as well, and so does one of an Explanation; signals as arrays are
        (N, 1, T).

    Returns
    -------
    ndarray of float64, shape (N,)
        0 where all values are equal, up to ``1 - 1/P`` for a single dot among P positions. NaN for
        a heatmap that is zero everywhere.

    Raises
    ------
    InvalidInputError
        The shape is another, or values are not finite.

    Notes
    -----
    ``sum_i (2 i - P - 1) a_i / (P sum_i a_i)``, the absolute values a sorted ascending, i from 1.
    It does not change if the map is multiplied by a number.

    References
    ----------
    P. Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training",
    ICML 2020, section 4.

    Examples
    --------
    >>> sparseness([[[0, 0], [0, 1]], [[1, 1], [1, 1]]])
    array([0.75, 0.  ])
    """
    shares = _shares(heatmaps)
    positions = shares.shape[1]
    weights = 2 * np.arange(1, positions + 1) - positions - 1
    return np.asarray((np.sort(shares, axis=1) * weights).sum(axis=1) / positions)


def complexity(heatmaps: ArrayLike | Explanation) -> NDArray[np.float64]:
    """Return the entropy of each heatmap's absolute values, as shares of their sum, in nats.

    Parameters
    ----------
    heatmaps : array_like of shape (N, H, W), or Explanation
        As for `sparseness`.

    Returns
    -------
    ndarray of float64, shape (N,)
        0 for a single dot, up to ``log P`` where all P values are equal. NaN for a heatmap that is
        zero everywhere.

    Raises
    ------
    InvalidInputError
        As for `sparseness`.

    Notes
    -----
    ``-sum_p q_p log q_p`` with ``q_p = |h_p| / sum |h|`` and ``0 log 0 = 0``. It grows with the
    number of positions: compare maps of one size.

    References
    ----------
    U. Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", IJCAI 2020,
    section 3.

    Examples
    --------
    >>> complexity([[[0, 0], [0, 1]], [[1, 1], [1, 1]]]).round(3)
    array([0.   , 1.386])
    """
    shares = _shares(heatmaps)
    logs = np.log(np.where(shares > 0, shares, 1))
    return np.asarray(-(shares * logs).sum(axis=1)) + 0.0


def effective_complexity(
    heatmaps: ArrayLike | Explanation, *, threshold: float = 0.05
) -> NDArray[np.float64]:
    """Return how many positions of each heatmap count: those above a share of its peak.

    Parameters
    ----------
    heatmaps : array_like of shape (N, H, W), or Explanation
        As for `sparseness`.
    threshold : float
        Share of the largest absolute value, 0 to 1 (ours: the paper's threshold is on the effect on
        the model).

    Returns
    -------
    ndarray of float64, shape (N,)
        Whole numbers; NaN for a heatmap that is zero everywhere.

    Raises
    ------
    InvalidInputError
        As for `sparseness`, or the threshold is not within 0 and 1.

    Notes
    -----
    ``#{p : |h_p| > threshold * max |h|}``.

    References
    ----------
    A. Nguyen and M. R. Martínez, "On quantitative aspects of model interpretability",
    arXiv 2007.07584, section 3.3.

    Examples
    --------
    >>> effective_complexity([[[0, 0.01], [0.5, 1]]])
    array([2.])
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"threshold={threshold!r} is out of range; allowed is 0 to 1")
    shares = _shares(heatmaps)
    above = (shares > threshold * shares.max(axis=1, keepdims=True)).sum(axis=1)
    return np.where(np.isnan(shares[:, 0]), np.nan, above)


def _shares(heatmaps: ArrayLike | Explanation) -> NDArray[np.float64]:
    """Return ``|h| / sum |h|`` as (N, P) in float64; NaN for maps of zeros."""
    given = heatmaps.heatmaps if isinstance(heatmaps, Explanation) else heatmaps
    maps = real_array(given, "heatmaps")
    least = 2 if isinstance(heatmaps, Explanation) else 3
    if not least <= maps.ndim <= 4 or 0 in maps.shape:
        how = "; of one picture, pass heatmaps[None], of N signals heatmaps[:, None]"
        raise InvalidInputError(
            f"heatmaps have shape {maps.shape}; wanted (N, H, W) or (N, D, H, W), no axis empty"
            f"{how if maps.ndim == 2 else ''}"
        )
    sizes = np.abs(maps.reshape(len(maps), -1).astype(np.float64))
    total = sizes.sum(axis=1, keepdims=True)
    return np.asarray(sizes / np.where(total > 0, total, np.nan))
