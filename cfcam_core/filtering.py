"""Filters on gradient maps of shape (M, *s), and what the public code calls bilateral."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray, read_only
from cfcam_core.resize import along
from cfcam_core.settings import Settings


def filter_maps(maps: FloatArray, settings: Settings) -> FloatArray:
    """Apply the filter that `settings` names to each of the maps, shape (M, *s) in and out."""
    if settings.filter == "none" or not maps.size:
        return maps
    widths = {"sigma_spatial": settings.sigma_spatial, "sigma_range": settings.sigma_range}
    if settings.filter == "gaussian":
        return gaussian(maps, sigma=settings.sigma_spatial)
    if settings.filter == "bilateral":
        return bilateral(maps, **widths)
    return np.stack([public_code_filter(g, **widths) for g in maps]).astype(np.float32)


def filtered_means(maps: FloatArray, settings: Settings) -> FloatArray:
    """Return the mean of each filtered map, shape (M,): all that a weighting by channel needs."""
    if settings.filter == "public-code":
        widths = {"sigma_spatial": settings.sigma_spatial, "sigma_range": settings.sigma_range}
        return np.array([public_code_filter_mean(g, **widths) for g in maps], np.float32)
    flat = filter_maps(maps, settings).reshape(len(maps), prod(maps.shape[1:]))
    return np.asarray(flat.mean(axis=1))


def gaussian(maps: FloatArray, *, sigma: float) -> FloatArray:
    """Smooth along every axis after the first with a Gaussian, renormalised at the border.

    ``out_i = sum_j w_ij g_j / sum_j w_ij`` with ``w_ij = exp(-|i - j|^2 / (2 sigma^2))``,
    cut off at 6 sigma. A constant map stays as it is; values stay within those of the input.

    Parameters
    ----------
    maps : ndarray of shape (M, *s)
    sigma : float
        In positions of the map.
    """
    from scipy.ndimage import gaussian_filter

    widths = [0.0, *[float(sigma)] * (maps.ndim - 1)]
    smooth = {"sigma": widths, "mode": "constant", "truncate": 6.0}
    weights = gaussian_filter(np.ones((1, *maps.shape[1:])), **smooth)
    return np.asarray(gaussian_filter(maps.astype(np.float64), **smooth) / weights, np.float32)


def bilateral(maps: FloatArray, *, sigma_spatial: float, sigma_range: float) -> FloatArray:
    """Smooth where values are alike, keep edges (Tomasi and Manduchi 1998).

    ``out_i = sum_j w_ij g_j / sum_j w_ij`` with ``w_ij = exp(-|i - j|^2 / (2 sigma_spatial^2)) *
    exp(-(g_i - g_j)^2 / (2 r^2))`` and ``r = sigma_range * std(g)``, so that scaling the gradients
    scales the result (the relative width is ours). Cut off at 4 sigma_spatial along each axis, so
    that the time grows with the number of positions and no faster.

    Parameters
    ----------
    maps : ndarray of float32, shape (M, *s)
    sigma_spatial : float
        In positions of the map.
    sigma_range : float
        In standard deviations of each map.
    """
    axes = tuple(range(1, maps.ndim))
    mean = maps.mean(axis=axes, keepdims=True)
    centred = maps - mean
    spread = np.sqrt((centred * centred).mean(axis=axes, keepdims=True))
    varies = spread > 1e-6 * np.abs(maps).max(axis=axes, keepdims=True)  # not just by rounding
    z = centred / np.where(varies, spread * np.float32(sigma_range), 1)
    out = np.empty_like(maps)
    for tile, block in _tiles(maps.shape[1:], ceil(min(4 * sigma_spatial, max(maps.shape)))):
        geometry = [
            (t.start - b.start, t.stop - b.start, b.stop - b.start)
            for t, b in zip(tile, block, strict=True)
        ]
        closeness = _closeness(tuple(geometry), sigma_spatial)
        here, there, around = (
            each[(slice(None), *where)].reshape(len(maps), -1)
            for each, where in ((z, tile), (z, block), (centred, block))
        )
        smooth = np.empty_like(here)
        step = max(1, 2**18 // there.size)  # rows of weights held at a time
        for start in range(0, here.shape[1], step):
            rows = slice(start, start + step)
            weights = here[:, rows, None] - there[:, None]
            weights *= weights
            weights *= np.float32(-0.5)
            np.exp(weights, out=weights)
            weights *= closeness[rows]
            smooth[:, rows] = (weights @ around[:, :, None])[..., 0] / weights.sum(axis=2)
        out[(slice(None), *tile)] = smooth.reshape(len(maps), *(t.stop - t.start for t in tile))
    return np.where(varies, out + mean, maps)


def _tiles(shape: tuple[int, ...], reach: int) -> Iterator[tuple[list[slice], list[slice]]]:
    """Yield pieces of a map of about 256 positions, each with the part that is in its reach."""
    side = round(256 ** (1 / len(shape)))
    for corner in product(*(range(0, length, side) for length in shape)):
        tile = [slice(c, min(c + side, n)) for c, n in zip(corner, shape, strict=True)]
        yield (
            tile,
            [
                slice(max(t.start - reach, 0), min(t.stop + reach, n))
                for t, n in zip(tile, shape, strict=True)
            ],
        )


@lru_cache(maxsize=4)
def _closeness(geometry: tuple[tuple[int, int, int], ...], sigma: float) -> FloatArray:
    """Return Gaussian weights from the positions of a tile to those around: products by axis.

    For each axis, `geometry` says where the tile begins and ends in what is around it, and how
    long that is.
    """
    weights = np.ones((1, 1), np.float32)
    for first, end, length in geometry:
        away = np.abs(np.arange(first, end)[:, None] - np.arange(length))
        bell = np.where(away > 4 * sigma, 0, np.exp(-((away / sigma) ** 2) / 2)).astype(np.float32)
        weights = (weights[:, None, :, None] * bell[:, None]).reshape(
            len(weights) * len(bell), weights.shape[1] * length
        )
    return read_only(weights)


def public_code_filter(
    gradient: FloatArray, *, sigma_spatial: float, sigma_range: float
) -> NDArray[np.float64]:
    """Correlate a gradient with one global kernel made from itself, as the public code does.

    ``w_i = exp(-|i - s/2|^2 / (2 sigma_spatial^2)) exp(-(g_i - mean g)^2 / (2 sigma_range^2))``,
    ``w /= sum(w) + 1e-6``; the result is the cross-correlation of g with w, zero-padded, anchored
    at ``(n - 1) // 2`` of each axis. Despite its name in that code it keeps no edges, and the
    padding shrinks it towards the border.

    Parameters
    ----------
    gradient : ndarray of shape (*s)
    sigma_spatial : float
        In positions of the map.
    sigma_range : float
        In units of `gradient`.
    """
    from scipy.signal import fftconvolve

    kernel = _public_code_kernel(gradient, sigma_spatial, sigma_range)
    full = fftconvolve(gradient.astype(np.float64), np.flip(kernel), mode="full")
    return np.asarray(full[tuple(slice(n // 2, n // 2 + n) for n in gradient.shape)])


def public_code_filter_mean(
    gradient: FloatArray, *, sigma_spatial: float, sigma_range: float
) -> float:
    """Return the mean of `public_code_filter` without computing it.

    Every value g_l meets the kernel entries whose shift keeps it inside the map, so the mean is
    ``<g, S> / size`` with S the kernel summed over a window along each axis.
    """
    window_sums = _public_code_kernel(gradient, sigma_spatial, sigma_range)
    for axis, length in enumerate(gradient.shape):
        window_sums = along(_windows(length), window_sums, axis)
    return float((gradient * window_sums).mean())


def _public_code_kernel(
    gradient: FloatArray, sigma_spatial: float, sigma_range: float
) -> NDArray[np.float64]:
    g = gradient.astype(np.float64)
    exponent = (g - g.mean()) ** 2 / (2 * sigma_range**2)
    kernel = _bell(g.shape, sigma_spatial) * np.exp(-exponent)
    return np.asarray(kernel / (kernel.sum() + 1e-6))


@lru_cache(maxsize=64)
def _windows(length: int) -> NDArray[np.float64]:
    """Return the matrix whose entry (l, a) tells whether kernel entry a ever meets position l."""
    shift = np.arange(length)[:, None] - np.arange(length) + (length - 1) // 2
    return read_only(((shift >= 0) & (shift < length)).astype(np.float64))


@lru_cache(maxsize=64)
def _bell(shape: tuple[int, ...], sigma: float) -> NDArray[np.float64]:
    """Return a Gaussian around half the length of each axis, where the public code centres it."""
    centre = np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    return read_only(np.exp(-((np.indices(shape) - centre) ** 2).sum(axis=0) / (2 * sigma**2)))
