"""Filters on gradient maps of shape (M, *s): Gaussian, bilateral, and what the public code calls bilateral."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray, read_only
from cfcam_core.settings import Settings


def filter_maps(maps: FloatArray, settings: Settings) -> FloatArray:
    """Apply the filter that `settings` names to each of the maps, shape (M, *s) in and out."""
    if settings.filter == "none" or not maps.size:
        return maps
    if settings.filter == "gaussian":
        return gaussian(maps, sigma=settings.sigma_spatial)
    run = bilateral if settings.filter == "bilateral" else public_code_filter
    filtered = [
        run(g, sigma_spatial=settings.sigma_spatial, sigma_range=settings.sigma_range) for g in maps
    ]
    return np.stack(filtered).astype(np.float32)


def gaussian(maps: FloatArray, *, sigma: float) -> FloatArray:
    """Smooth along every axis after the first with a Gaussian, renormalised at the border.

    ``out_i = sum_j w_ij g_j / sum_j w_ij`` with ``w_ij = exp(-|i - j|^2 / (2 sigma^2))``, separable, not truncated.
    A constant map stays as it is; values stay within those of the input.

    Parameters
    ----------
    maps : ndarray of shape (M, *s)
    sigma : float
        In positions of the map.
    """
    out = maps
    for axis, length in enumerate(maps.shape[1:], start=1):
        out = np.moveaxis(np.moveaxis(out, axis, -1) @ _smoothing(length, sigma).T, -1, axis)
    return out


def bilateral(
    gradient: FloatArray, *, sigma_spatial: float, sigma_range: float
) -> NDArray[np.float64]:
    """Smooth where values are alike, keep edges (Tomasi and Manduchi 1998).

    ``out_i = sum_j w_ij g_j / sum_j w_ij``, ``w_ij = exp(-|i - j|^2 / (2 sigma_spatial^2) - (g_i - g_j)^2 / (2 r^2))``, with
    ``r = sigma_range * std(g)``, so that scaling the gradients scales the result (the relative width is ours).

    Parameters
    ----------
    gradient : ndarray of shape (*s)
    sigma_spatial : float
        In positions of the map.
    sigma_range : float
        In standard deviations of `gradient`.
    """
    values = gradient.astype(np.float64).ravel()
    spread = values.std()
    if spread <= 1e-7 * np.abs(values).max(initial=0):  # constant, up to rounding
        return values.reshape(gradient.shape)
    z = values / (spread * sigma_range)
    places = np.indices(gradient.shape).reshape(gradient.ndim, -1).T / sigma_spatial
    out = np.empty_like(values)
    rows = max(1, 2**19 // values.size)
    for s in range(0, values.size, rows):
        apart = (places[s : s + rows, None] - places[None]) ** 2
        weights = np.exp(-(apart.sum(axis=2) + (z[s : s + rows, None] - z) ** 2) / 2)
        out[s : s + rows] = weights @ values / weights.sum(axis=1)
    return out.reshape(gradient.shape)


def public_code_filter(
    gradient: FloatArray, *, sigma_spatial: float, sigma_range: float
) -> NDArray[np.float64]:
    """Correlate a gradient with one global kernel made from itself, as the public code does.

    ``w_i = exp(-|i - s/2|^2 / (2 sigma_spatial^2)) exp(-(g_i - mean g)^2 / (2 sigma_range^2))``, ``w /= sum(w) + 1e-6``; the
    result is the cross-correlation of g with w, zero-padded, anchored at ``(n - 1) // 2`` of each axis. Despite its name in
    that code it keeps no edges, and the padding shrinks it towards the border.

    Parameters
    ----------
    gradient : ndarray of shape (*s)
    sigma_spatial : float
        In positions of the map.
    sigma_range : float
        In units of `gradient`.
    """
    from scipy.signal import correlate

    g = gradient.astype(np.float64)
    axes = np.indices(g.shape, dtype=np.float64)
    centre = np.array(g.shape).reshape(-1, *[1] * g.ndim) / 2
    exponent = ((axes - centre) ** 2).sum(axis=0) / (2 * sigma_spatial**2)
    exponent += (g - g.mean()) ** 2 / (2 * sigma_range**2)
    kernel = np.exp(-exponent)
    kernel /= kernel.sum() + 1e-6
    full = correlate(g, kernel, mode="full")
    return np.asarray(full[tuple(slice(n // 2, n // 2 + n) for n in g.shape)])


@lru_cache(maxsize=64)
def _smoothing(length: int, sigma: float) -> FloatArray:
    """Return the (length, length) matrix of a Gaussian whose rows sum to one."""
    place = np.arange(length) / sigma
    weights = np.exp(-((place[:, None] - place) ** 2) / 2)
    return read_only((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
