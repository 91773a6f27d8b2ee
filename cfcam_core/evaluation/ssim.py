"""Structural similarity of two maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from cfcam_core.capture import real_array
from cfcam_core.errors import InvalidInputError

SIGMA, RADIUS = 1.5, 5
"""The window: a Gaussian of 11 positions an axis (Wang et al. 2004, section III-B)."""
K1, K2 = 0.01, 0.03
"""What keeps the two fractions finite (same place)."""


def ssim(a: ArrayLike, b: ArrayLike, *, data_range: float = 1.0) -> float:
    """Return the mean structural similarity of two maps.

    Parameters
    ----------
    a, b : array_like of the same shape (*size)
        Any number of spatial axes.
    data_range : float
        The largest difference that values can have: 1 for heatmaps.

    Returns
    -------
    float
        At most 1, which equal maps alone reach.

    Raises
    ------
    InvalidInputError
        Shapes differ, an axis is empty, a value is not finite, or `data_range` is not positive.

    Notes
    -----
    The mean over all positions of

    ``(2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2))``

    with means, variances and covariance under a Gaussian window of standard deviation 1.5 and 11
    positions an axis, ``C1 = (0.01 L)^2``, ``C2 = (0.03 L)^2`` and L the data range. Positions
    whose window reaches past the edge are left out; along an axis of fewer than 11 positions none
    are, and the map goes on as its mirror image (ours: the paper has no such maps).

    References
    ----------
    Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", IEEE Transactions on Image Processing 13 (4), 2004,
    equations 13 to 17.
    """
    one, other = (real_array(each, name).astype(np.float64) for each, name in ((a, "a"), (b, "b")))
    if one.shape != other.shape or one.ndim == 0 or one.size == 0:
        raise InvalidInputError(
            f"maps have shapes {one.shape} and {other.shape}; wanted the same, no axis empty"
        )
    if not data_range > 0:
        raise InvalidInputError(f"data_range={data_range!r}; wanted a positive number")
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_a, mean_b = _blurred(one), _blurred(other)
    var_a, var_b = _blurred(one * one) - mean_a**2, _blurred(other * other) - mean_b**2
    both = _blurred(one * other) - mean_a * mean_b
    above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    inner = tuple(slice(RADIUS, n - RADIUS) if n > 2 * RADIUS else slice(None) for n in one.shape)
    return float((above / below)[inner].mean())


def _blurred(array: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(gaussian_filter(array, SIGMA, mode="reflect", radius=RADIUS))
