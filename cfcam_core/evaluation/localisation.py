"""Does a heatmap fall on the object? Measures against masks that say where each object is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.explanation import Explanation


def energy_in_mask(heatmaps: ArrayLike | Explanation, masks: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each heatmap's energy that falls inside its mask.

    Parameters
    ----------
    heatmaps : array_like of shape (N, H, W), or Explanation
        Only positive values count. Three spatial axes do as well, and so does one, (N, T), of an
        Explanation; of arrays as (N, 1, T), for those of two axes might be one picture.
    masks : array_like of the same shape
        The object is where the mask is not zero.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between 0 and 1; NaN for a heatmap without a positive value, which has no energy to share
        out. A heatmap that is the same everywhere gets the mask's share of the area: that is the
        level of chance.

    Raises
    ------
    InvalidInputError
        Shapes differ, or values are not finite.

    Notes
    -----
    ``sum_p max(h_p, 0) [m_p != 0] / sum_p max(h_p, 0)`` over all positions p, in float64: the
    energy-based pointing game with a mask in place of a box.

    References
    ----------
    H. Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural
    Networks", CVPR Workshops 2020, section 4.3.

    Examples
    --------
    >>> energy_in_mask([[[3, 1], [-5, 0]]], [[[1, 0], [1, 0]]])
    array([0.75])
    """
    maps, inside = _flat(heatmaps, masks)
    energy = np.maximum(maps, 0)
    total = energy.sum(axis=1)
    within = (energy * inside).sum(axis=1)
    return np.asarray(within / np.where(total > 0, total, np.nan))


def pointing_game(heatmaps: ArrayLike | Explanation, masks: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each heatmap is highest inside its mask.

    Parameters
    ----------
    heatmaps, masks : array_like of shape (N, H, W), or Explanation
        As in `energy_in_mask`.

    Returns
    -------
    ndarray of bool, shape (N,)
        True for a hit. Where several positions are highest, all of them must lie inside: a map
        that is the same everywhere points at nothing. A heatmap without a positive value is a miss.

    Raises
    ------
    InvalidInputError
        Shapes differ, or values are not finite.

    Notes
    -----
    ``all(m_p != 0 for p with h_p = max h) and max h > 0``. The paper counts a hit up to 15 pixels
    beside the object, here there is no such margin.

    References
    ----------
    J. Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1.

    Examples
    --------
    >>> pointing_game([[[3, 1], [2, 0]]], [[[1, 0], [1, 0]]])
    array([ True])
    """
    maps, inside = _flat(heatmaps, masks)
    peak = maps.max(axis=1, keepdims=True)
    return np.asarray((inside | (maps < peak)).all(axis=1) & (peak[:, 0] > 0))


def rank_accuracy(heatmaps: ArrayLike | Explanation, masks: ArrayLike) -> NDArray[np.float64]:
    """Return which share of each heatmap's hottest positions, as many as its mask has, is inside.

    It asks only which positions are hotter than others: a heatmap may be squared, or its contrast
    raised in any other way, and keeps its value, while the energy inside grows.

    Parameters
    ----------
    heatmaps, masks : array_like of shape (N, H, W), or Explanation
        As in `energy_in_mask`; negative values count as 0.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between 0 and 1; NaN for a heatmap without a positive value and for an empty mask.

    Raises
    ------
    InvalidInputError
        Shapes differ, or values are not finite.

    Notes
    -----
    With k the size of the mask, and t the k-th largest value:
    ``(hotter_inside + (k - hotter) * equal_inside / equal) / k``, where hotter and equal count the
    positions above t and at t. Equally hot positions share what is left between them: the value is
    what breaking ties at random gives on average (ours; the paper does not say). So the level of
    chance is the mask's share of the area, and a map that is positive at fewer than k positions is
    credited with that of the rest.

    References
    ----------
    L. Arras, A. Osman and W. Samek, "CLEVR-XAI: A benchmark dataset for the ground truth evaluation
    of neural network explanations", Information Fusion 81 (2022), section 4.3: relevance rank
    accuracy.

    Examples
    --------
    >>> rank_accuracy([[[3, 1], [2, 0]]], [[[1, 1], [0, 0]]])
    array([0.5])
    """
    maps, inside = _flat(heatmaps, masks)
    heat = np.maximum(maps, 0)
    size = inside.sum(axis=1)
    known = (size > 0) & (heat.max(axis=1) > 0)
    least = np.maximum(size - 1, 0)[:, None]
    threshold = np.take_along_axis(-np.sort(-heat, axis=1), least, axis=1)
    hotter, equal = heat > threshold, heat == threshold
    share = (equal & inside).sum(axis=1) / equal.sum(axis=1)
    found = (hotter & inside).sum(axis=1) + (size - hotter.sum(axis=1)) * share
    return np.asarray(np.where(known, found, np.nan) / np.maximum(size, 1))


def _flat(
    heatmaps: ArrayLike | Explanation, masks: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return heatmaps (N, P) and masks (N, P) of equal shape, P the number of positions."""
    given = heatmaps.heatmaps if isinstance(heatmaps, Explanation) else heatmaps
    maps, inside = real_array(given, "heatmaps"), real_array(masks, "masks")
    if maps.shape != inside.shape or maps.ndim < 2 or 0 in maps.shape:
        size = inside.shape[1:]
        how = (
            f"; make heatmaps of the masks' size: explain(..., size={size}), or "
            f"cfcam_core.resize.resize(heatmaps, {size})"
            if maps.ndim == inside.ndim and len(maps) == len(inside)
            else ""
        )
        raise InvalidInputError(
            f"heatmaps have shape {maps.shape} and masks {inside.shape}; both must have the same "
            f"shape (N, H, W), no axis empty{how}"
        )
    if maps.ndim == 2 and given is heatmaps:
        raise InvalidInputError(
            f"heatmaps and masks have shape {maps.shape}, without the axis N of samples; of one "
            "picture, pass heatmaps[None] and masks[None], of N signals heatmaps[:, None] and "
            "masks[:, None]"
        )
    return maps.reshape(len(maps), -1).astype(np.float64), inside.reshape(len(maps), -1) != 0
