"""Heatmaps as colours, alone or blended over the picture they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import FloatArray
from cfcam_core.errors import InvalidInputError
from cfcam_core.resize import resize

LEVELS = 1024
"""Steps of the colour table: neighbours differ by at most one in each uint8 band (ours)."""

WANTED = (
    "wanted (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), with a leading axis N for several samples"
)


def colours(heatmaps: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return heatmaps in the colours of jet: dark blue at 0 over cyan and yellow to dark red at 1.

    Parameters
    ----------
    heatmaps : ndarray of shape (...)
        Values in [0, 1]; others are clipped.

    Returns
    -------
    ndarray of uint8, shape (..., 3)
        RGB.

    Notes
    -----
    Red, green and blue are ``clip(1.5 - |4 x - c|, 0, 1)`` with c = 3, 2, 1 (MATLAB's jet), taken
    from a table of `LEVELS` steps.
    """
    steps = np.linspace(0, 4, LEVELS)[:, None]
    table = np.rint(255 * np.clip(1.5 - np.abs(steps - [3, 2, 1]), 0, 1)).astype(np.uint8)
    index = np.rint(np.clip(heatmaps, 0, 1) * (LEVELS - 1)).astype(np.uint16)
    return np.asarray(table[index])


def overlay(heatmaps: FloatArray, image: ArrayLike, *, alpha: float = 0.5) -> NDArray[np.uint8]:
    """Return heatmaps blended over pictures, in jet colours.

    Parameters
    ----------
    heatmaps : ndarray of float32, shape (N, h, w)
        Values in [0, 1]. Resized to the picture, bilinearly.
    image : array_like of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        uint8, uint16, or float in [0, 1]; gray, RGB or RGBA, the last composited on white. For
        several samples with a leading axis N.
    alpha : float
        Share of the heatmap's colour, 0 to 1.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3), or (N, H, W, 3) if `image` has a leading axis N

    Raises
    ------
    InvalidInputError
        Heatmaps of signals or volumes, an image of another shape, dtype or range, or `alpha` out of
        range.
    """
    if heatmaps.ndim != 3:
        instead = (
            "plot the heatmap along the signal"
            if heatmaps.ndim == 2
            else "overlay it slice by slice"
        )
        raise InvalidInputError(
            f"heatmaps of shape {heatmaps.shape} are not pictures, wanted (N, H, W); {instead}"
        )
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha={alpha!r} is out of range; allowed is 0 to 1")
    pictures = np.asarray(image)
    batched = _is_batch(pictures.shape, len(heatmaps))
    if not batched:
        pictures = pictures[None]
    _check_values(pictures)
    size = pictures.shape[1:3]
    blended = np.empty((len(heatmaps), *size, 3), np.uint8)
    for out, heatmap, picture in zip(blended, heatmaps, pictures, strict=True):
        mixed = colours(resize(heatmap[None], size)[0]).astype(np.float32)
        mixed *= alpha
        mixed += (1 - alpha) * _rgb255(picture)
        np.rint(mixed, out=mixed)
        out[:] = mixed
    return blended if batched else np.asarray(blended[0])


def composite_on_white(
    picture: NDArray[np.floating[Any]], opacity: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """Return ``opacity * picture + (1 - opacity)``: a transparent picture on white paper.

    Parameters
    ----------
    picture : ndarray of shape (H, W, B)
        In [0, 1], not multiplied by its opacity before.
    opacity : ndarray of shape (H, W, 1)
        In [0, 1].
    """
    return np.asarray(1 - opacity * (1 - picture))


def _is_batch(shape: tuple[int, ...], samples: int) -> bool:
    """Whether `shape` has a leading axis of samples; refuse shapes that cannot be read at all."""
    bands = (1, 3, 4)
    single = len(shape) == 2 or (len(shape) == 3 and shape[-1] in bands)
    several = len(shape) == 3 or (len(shape) == 4 and shape[-1] in bands)
    if 0 not in shape:
        if single and samples == 1:
            return False
        if several and shape[0] == samples:
            return True
    hint = "; move the bands to the last axis" if len(shape) >= 3 and shape[-3] in bands else ""
    raise InvalidInputError(
        f"an image of shape {shape} does not fit {samples} heatmap(s); {WANTED}{hint}"
    )


def _check_values(pictures: NDArray[Any]) -> None:
    if pictures.dtype in (np.uint8, np.uint16):
        return
    if pictures.dtype.kind != "f":
        raise InvalidInputError(
            f"the image has dtype {pictures.dtype}; wanted uint8, uint16 or float in [0, 1]"
        )
    low, high = float(pictures.min()), float(pictures.max())
    slack = 1e-3  # interpolation and float16 rounding overshoot a little
    if not -slack <= low <= high <= 1 + slack:
        raise InvalidInputError(
            f"the float image has values from {low:.4g} to {high:.4g}; wanted 0 to 1: pass the "
            "picture itself, not the preprocessed input"
        )


def _rgb255(picture: NDArray[Any]) -> FloatArray:
    """Return one picture of shape (H, W) or (H, W, 1 | 3 | 4) as (H, W, 1 | 3) in 0 to 255."""
    if picture.dtype == np.uint8 and picture.shape[2:] == (3,):
        return picture.astype(np.float32)
    whole = 1.0 if picture.dtype.kind == "f" else float(np.iinfo(picture.dtype).max)
    bands = np.clip(picture.astype(np.float32) / np.float32(whole), 0, 1)
    if bands.ndim == 2:
        bands = bands[..., None]
    if bands.shape[-1] == 4:
        bands = composite_on_white(bands[..., :3], bands[..., 3:]).astype(np.float32)
    return np.asarray(255 * bands, np.float32)
