"""Pictures cut into segments: what a map is averaged over before it is ranked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import BackendUnavailableError, InvalidInputError

CELLS = 7
"""Cells along each axis of the regular grid (ours: the grid of most last layers)."""


def grid_segments(size: Sequence[int], cells: int = CELLS) -> NDArray[np.intp]:
    """Cut a picture into a regular grid.

    Parameters
    ----------
    size : sequence of int
        The picture's spatial size, any number of axes.
    cells : int
        Cells along each axis; an axis shorter than that has one a position.

    Returns
    -------
    ndarray of int, shape size
        The segment of each position, counted along the last axis first. Position i of n lies in
        cell ``floor(i cells / n)``: cells differ by one position at most.

    Raises
    ------
    InvalidInputError
        A number is not positive.

    Examples
    --------
    >>> grid_segments((2, 3), 2)
    array([[0, 0, 1],
           [2, 2, 3]])
    """
    if not isinstance(cells, int | np.integer) or not size or min(cells, *size) < 1:
        raise InvalidInputError(
            f"a grid of {cells!r} cells on size {tuple(size)}; wanted 1 or more"
        )
    counts = tuple(min(int(cells), n) for n in size)
    places = np.ix_(*(np.arange(n) * k // n for n, k in zip(size, counts, strict=True)))
    return np.asarray(np.ravel_multi_index(np.broadcast_arrays(*places), counts), np.intp)


def quickshift_segments(
    picture: ArrayLike,
    *,
    kernel_size: float = 5,
    max_dist: float = 200,
    ratio: float = 0.2,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Cut a photograph along its own edges, by scikit-image's quickshift.

    Parameters
    ----------
    picture : array_like of shape (H, W), (H, W, 1) or (H, W, 3)
        Gray or RGB in [0, 1].
    kernel_size, max_dist, ratio : float
        Handed on: how smooth densities are, how far apart what belongs together may lie, and how
        much colour counts beside nearness. The defaults are ours; explainers by superpixels
        often take them.
    seed : int
        Breaks ties.

    Returns
    -------
    ndarray of int, shape (H, W)

    Raises
    ------
    BackendUnavailableError
        scikit-image is not installed.
    InvalidInputError
        It is no picture.
    """
    try:
        from skimage.segmentation import quickshift
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            "quickshift needs scikit-image, which is not installed; run: "
            'pip install "cfcam[evaluation]", or take segments="grid"'
        ) from error
    array = number_array(picture, "picture").astype(np.float64)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise InvalidInputError(
            f"a picture of shape {array.shape} came; quickshift wants (H, W) or (H, W, 3). For "
            'signals, volumes and other channels take segments="grid"'
        )
    colour = np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
    shift: Any = quickshift
    labels = shift(colour, ratio=ratio, kernel_size=kernel_size, max_dist=max_dist, rng=seed)
    return checked_segments(labels, array.shape[:2])


def checked_segments(labels: Any, size: Sequence[int]) -> NDArray[np.intp]:
    """Return labels of a picture of that size, numbered 0 to m - 1 in the order of their values.

    Raises
    ------
    InvalidInputError
        They are no integers, or of another size.
    """
    array = number_array(labels, "segments")
    if array.dtype.kind not in "iu" or array.shape != tuple(size):
        raise InvalidInputError(
            f"segments are {array.dtype} of shape {array.shape}; wanted integers of shape "
            f"{tuple(size)}, the segment of each position"
        )
    return np.asarray(np.unique(array, return_inverse=True)[1].reshape(array.shape), np.intp)


def segment_means(maps: NDArray[Any], segments: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the mean of each map in each segment, in float64.

    Parameters
    ----------
    maps : ndarray of shape (N, *size)
    segments : ndarray of int, shape size
        Numbered 0 to m - 1, none left out.

    Returns
    -------
    ndarray of float64, shape (N, m)
    """
    flat = segments.ravel()
    counts = np.bincount(flat)
    rows = [np.bincount(flat, weights=each.ravel()) / counts for each in maps]
    return np.stack(rows)
