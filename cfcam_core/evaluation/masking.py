"""Pictures with a part hidden, by what a heatmap says: kept, deleted, or faded.

Arrays in, arrays out: pictures (N, C, *size), channels first, heatmaps (N, *size). What is hidden
shows a baseline instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from cfcam_core.capture import FloatArray, real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.explainer import FLAT

Baseline: TypeAlias = str | ArrayLike
"""A name of `BASELINES`, a number, or an array that broadcasts to the pictures (N, C, *size), such
as (C, 1, 1)."""

BLUR = 5
"""Standard deviation in pixels of the blur, and how far it reaches to each side: a kernel of 11
(RISE's code), at a length of `BLUR_SIDE`."""

BLUR_SIDE = 224
"""Length of an axis that `BLUR` is for. At others it grows and shrinks in proportion, so that a
picture of another size loses the same detail, and is at least one pixel (ours)."""


def blurred(pictures: FloatArray) -> FloatArray:
    """Return pictures blurred by a normalised Gaussian that ends at its radius; borders mirror.

    RISE's own kernel is a Gaussian folded back at its 11 x 11 border, and its pictures are
    continued by zeros: near a border ours is brighter or darker.
    """
    out = pictures
    for axis, length in enumerate(pictures.shape[2:], start=2):
        reach = max(1, round(BLUR * length / BLUR_SIDE))
        out = gaussian_filter1d(out, reach, axis, mode="reflect", radius=reach)
    return np.asarray(out, np.float32)


def mean_colour(pictures: FloatArray) -> FloatArray:
    """Return pictures (N, C, 1, ...) of the mean of each channel of each picture."""
    axes = tuple(range(2, pictures.ndim))
    return np.asarray(pictures.mean(axis=axes, keepdims=True, dtype=np.float64), np.float32)


def zeros(pictures: FloatArray) -> FloatArray:
    """Return 0 in the model's own input space: the training mean, if inputs are standardised."""
    return np.zeros((1,) * pictures.ndim, pictures.dtype)


BASELINES: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {"blur": blurred, "mean": mean_colour, "zero": zeros}
)
"""What may stand in place of what is hidden, by name."""


def baseline_pictures(pictures: FloatArray, baseline: Baseline) -> FloatArray:
    """Return what each picture shows where it is hidden.

    Parameters
    ----------
    pictures : ndarray of float32, shape (N, C, *size)
    baseline : str, float or array_like
        - ``blur``: the picture blurred by a Gaussian of standard deviation 5 pixels in a kernel of
          11 at a length of 224, in proportion at others: 1 in a kernel of 3 at 32 and below. A
          small picture keeps much of itself; for less pass another baseline;
        - ``mean``: the mean of each channel of that picture;
        - ``zero``: 0 in the model's input space. That is the training set's mean where inputs are
          standardised, and black where they are in [0, 1];
        - a number or an array that broadcasts to the pictures.

    Returns
    -------
    ndarray of float32, shape (N, C, *size)
        Read-only.

    Raises
    ------
    InvalidInputError
        There is no baseline of that name, or the array does not fit.

    References
    ----------
    V. Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    BMVC 2018, section 4.1, and its code, evaluation.py.
    """
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise InvalidInputError(
                f"there is no baseline {baseline!r}; allowed are {', '.join(BASELINES)}, a number, "
                "or an array that broadcasts to the pictures"
            )
        found = BASELINES[baseline](pictures)
    else:
        found = real_array(baseline, "baseline")
    try:
        return np.broadcast_to(found, pictures.shape)
    except ValueError:
        colour = (pictures.shape[1], *[1] * (pictures.ndim - 2))
        raise InvalidInputError(
            f"the baseline has shape {found.shape} and the pictures {pictures.shape}, channels "
            f"first; pass one that broadcasts, such as {colour} for a colour"
        ) from None


def count(share: float, positions: int) -> int:
    """Return how many positions a share is: the nearest whole number, halves up.

    Raises
    ------
    InvalidInputError
        The share is not within 0 and 1.
    """
    try:
        within = 0 <= share <= 1
    except TypeError:
        within = False
    if not within:
        raise InvalidInputError(f"share={share!r}; allowed is 0 to 1, such as 0.2 for the top 20 %")
    return int(np.floor(share * positions + 0.5))


def ranks(heatmaps: NDArray[Any]) -> NDArray[np.int32]:
    """Return the rank (N, *size) of every position of every map: 0 is the hottest.

    Of equally hot positions the one of smaller index comes first, the last axis counting fastest.
    """
    flat = heatmaps.reshape(len(heatmaps), prod(heatmaps.shape[1:]))
    order = np.argsort(-flat, axis=1, kind="stable")
    found = np.empty(flat.shape, np.int32)
    np.put_along_axis(found, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return found.reshape(heatmaps.shape)


def hottest(heatmaps: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Return where each map (N, *size) is among its hottest positions, by `ranks` and `count`.

    A position without heat, 0 or less, never is: of a map that is positive on less than the share
    only the positive positions are hot, or ties would fill the picture's upper rows.
    """
    positions = prod(heatmaps.shape[1:])
    return np.asarray((ranks(heatmaps) < count(share, positions)) & (heatmaps > 0))


def flat(heatmaps: NDArray[Any]) -> NDArray[np.bool_]:
    """Return for each map (N, *size) whether it is the same everywhere: it ranks nothing.

    Values that differ by no more than 1e-5 of the largest are the same, as for
    `cfcam_core.Explanation.status`.
    """
    axes = tuple(range(1, heatmaps.ndim))
    high, low = heatmaps.max(axis=axes).astype(np.float64), heatmaps.min(axis=axes)
    return np.asarray(high - low <= FLAT * np.abs(heatmaps).max(axis=axes))


def strengths(heatmaps: FloatArray) -> FloatArray:
    """Return ``max(h, 0) / max h`` of each map; zeros where a map is nowhere positive."""
    positive = np.maximum(heatmaps, 0)
    peak = positive.max(axis=tuple(range(1, positive.ndim)), keepdims=True)
    return np.asarray(positive / np.where(peak > 0, peak, 1), np.float32)


def keep_top(
    pictures: ArrayLike, heatmaps: ArrayLike, share: float, baseline: Baseline = "blur"
) -> FloatArray:
    """Return pictures of which only the hottest positions are left.

    Parameters
    ----------
    pictures : array_like of shape (N, C, *size)
        Channels first, one to three spatial axes.
    heatmaps : array_like of shape (N, *size)
    share : float
        Share of the positions, 0 to 1. The hottest ``floor(share * P + 1/2)`` of P positions are
        kept; of equally hot ones those of smaller index. Those without heat, 0 or less, never are:
        of a map that is positive at fewer positions, only these are kept.
    baseline : str, float or array_like
        What the others show: see `baseline_pictures`.

    Returns
    -------
    ndarray of float32, shape (N, C, *size)

    Raises
    ------
    InvalidInputError
        Shapes do not fit, values are not finite, or share or baseline is not understood.

    Examples
    --------
    >>> keep_top([[[5, 6, 7]]], [[0.1, 0.9, 0.9]], 1 / 3, 0)
    array([[[0., 6., 0.]]], dtype=float32)
    """
    arrays, maps = _fitting(pictures, heatmaps)
    top = hottest(maps, share)
    return np.where(top[:, None], arrays, baseline_pictures(arrays, baseline))


def delete_top(
    pictures: ArrayLike, heatmaps: ArrayLike, share: float, baseline: Baseline = "blur"
) -> FloatArray:
    """Return pictures of which the hottest positions are gone.

    Parameters and errors are those of `keep_top`, and so are the positions.

    Returns
    -------
    ndarray of float32, shape (N, C, *size)

    Examples
    --------
    >>> delete_top([[[5, 6, 7]]], [[0.1, 0.9, 0.9]], 1 / 3, 0)
    array([[[5., 0., 7.]]], dtype=float32)
    """
    arrays, maps = _fitting(pictures, heatmaps)
    top = hottest(maps, share)
    return np.where(top[:, None], baseline_pictures(arrays, baseline), arrays)


def soft_mask(pictures: ArrayLike, heatmaps: ArrayLike, baseline: Baseline = "zero") -> FloatArray:
    """Return pictures faded to a baseline where the heatmap is low.

    Parameters
    ----------
    pictures : array_like of shape (N, C, *size)
    heatmaps : array_like of shape (N, *size)
        Negative values count as 0; each map is divided by its own maximum.
    baseline : str, float or array_like
        See `baseline_pictures`.

    Returns
    -------
    ndarray of float32, shape (N, C, *size)
        ``m x + (1 - m) b`` with ``m = max(h, 0) / max h``. With the baseline 0 that is the product
        of heatmap and picture.

    Raises
    ------
    InvalidInputError
        As for `keep_top`.

    Examples
    --------
    >>> soft_mask([[[8, 8, 8]]], [[0, 1, 2]])
    array([[[0., 4., 8.]]], dtype=float32)
    """
    arrays, maps = _fitting(pictures, heatmaps)
    return faded(arrays, strengths(maps), baseline_pictures(arrays, baseline))


def faded(pictures: FloatArray, mask: FloatArray, base: FloatArray) -> FloatArray:
    """Return ``m x + (1 - m) b`` for a mask (N, *size) within 0 and 1."""
    m = mask[:, None]
    return np.asarray(m * pictures + (1 - m) * base, np.float32)


def _fitting(pictures: ArrayLike, heatmaps: ArrayLike) -> tuple[FloatArray, FloatArray]:
    arrays, maps = real_array(pictures, "pictures"), real_array(heatmaps, "heatmaps")
    check_fit(maps, arrays)
    return arrays, maps


def check_fit(heatmaps: FloatArray, pictures: FloatArray) -> None:
    """Raise `InvalidInputError` unless heatmaps are (N, *size) to pictures (N, C, *size)."""
    if not 3 <= pictures.ndim <= 5 or 0 in pictures.shape:
        raise InvalidInputError(
            f"pictures have shape {pictures.shape}; wanted (N, C, *size) with one to three spatial "
            "axes, none empty"
        )
    size = pictures.shape[2:]
    wanted = (len(pictures), *size)
    if heatmaps.shape == wanted:
        return
    how = ""
    if heatmaps.shape == size and len(pictures) == 1:
        how = "; of one picture, pass heatmaps[None]"
    elif heatmaps.ndim == len(wanted) and len(heatmaps) == len(pictures):
        how = (
            f"; make heatmaps of the pictures' size: explain(..., size={size}), or "
            f"cfcam_core.resize.resize(heatmaps, {size})"
        )
    raise InvalidInputError(
        f"heatmaps have shape {heatmaps.shape}; wanted {wanted}, one map a picture and at its "
        f"size{how}"
    )
