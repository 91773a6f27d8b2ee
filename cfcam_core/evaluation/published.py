"""What the public code of CF-CAM measures under known names, under names of its own.

Source: jerryp-hfut/CF-CAM, metrics/ad.py, ai.py and robust.py. Where the literature has a measure
of the same name, its definition differs: that one is in `confidence` and `curves`. The code's
deletion and insertion areas (auc.py) are `deletion` and `insertion` with ``baseline="zero"`` and
100 steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter

from cfcam_core.capture import FloatArray, real_array
from cfcam_core.errors import BlankMapWarning, InvalidInputError
from cfcam_core.evaluation.asked import Asked, Progress
from cfcam_core.evaluation.masking import Baseline, baseline_pictures, strengths
from cfcam_core.explainer import explain_arrays
from cfcam_core.explanation import Explanation
from cfcam_core.settings import Settings
from cfcam_core.shuffling import checked_seed

DROP_THRESHOLD = 0.5
"""Heat above which `published_drop` keeps a position (ad.py)."""

GAIN_THRESHOLD = 0.3
"""Heat above which `published_gain` inserts a position (ai.py)."""

GAIN_FILL = (0.485, 0.456, 0.406)
"""What ai.py fills pictures with: ImageNet's mean colour, but in standardised inputs, where that is
a light grey and the mean itself would be 0."""

NOISE_LEVEL = 0.1
"""Noise on the gradients by default (robust.py)."""

WINDOW = 7
"""Positions an axis of the flat window of its structural similarity (scikit-image's default, which
robust.py takes)."""


def published_drop(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    threshold: float = DROP_THRESHOLD,
    baseline: Baseline = "zero",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the share of its confidence that the model loses under a hard mask.

    What the code calls average drop: the mask is hard, and a rise is a negative drop.

    Parameters
    ----------
    model, inputs, heatmaps, target, progress : optional
        As for `cfcam_core.evaluation.average_drop`.
    threshold : float
        Positions with ``max(h, 0) / max h`` above it are kept.
    baseline : str, float or array_like
        What the others show. The code makes them black before it standardises the picture: pass
        black as the model gets it, such as ``(0 - mean) / std`` of shape (C, 1, 1), for the same.

    Returns
    -------
    ndarray of float64, shape (N,)
        ``(Y - O) / Y``, at most 1; the code prints percent. NaN for a heatmap without a positive
        value, and where the probability was 0 before.

    Raises
    ------
    InvalidInputError
        As for `cfcam_core.evaluation.average_drop`.
    """
    asked = Asked.of(model, inputs, heatmaps, target)
    base = baseline_pictures(asked.pictures.arrays, baseline)
    before, after = asked.before(), _hard(asked, threshold, base, progress)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0, (before - after) / before, np.nan)


def published_gain(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    threshold: float = GAIN_THRESHOLD,
    baseline: Baseline | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the probability with the hot positions inserted into a bare picture, minus without.

    What the code calls average increase: not how often confidence rises, but by how much, and not
    against the picture but against the bare one.

    Parameters
    ----------
    model, inputs, heatmaps, target, progress : optional
        As for `cfcam_core.evaluation.average_drop`.
    threshold : float
        Positions with ``max(h, 0) / max h`` above it are inserted.
    baseline : str, float or array_like, optional
        The bare picture. Default: the code's, `GAIN_FILL` in each of three channels.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between -1 and 1. NaN for a heatmap without a positive value.

    Raises
    ------
    InvalidInputError
        As for `cfcam_core.evaluation.average_drop`, or the pictures do not have three channels and
        no baseline is given.
    """
    asked = Asked.of(model, inputs, heatmaps, target)
    pictures = asked.pictures.arrays
    if baseline is None:
        if pictures.shape[1] != len(GAIN_FILL):
            raise InvalidInputError(
                f"the published baseline is a colour of three channels, the pictures have "
                f"{pictures.shape[1]}; pass baseline=, such as 'zero'"
            )
        baseline = np.reshape(GAIN_FILL, (-1, *[1] * (pictures.ndim - 2)))
    base = baseline_pictures(pictures, baseline)
    after = _hard(asked, threshold, base, progress)
    bare = asked.ask(lambda who, _: base[who], 1, leave_out=np.isnan(after))
    return np.asarray(after - bare[:, 0])


def _hard(
    asked: Asked, threshold: float, base: FloatArray, progress: Progress | None
) -> NDArray[np.float64]:
    """Return the probability (N,) on pictures of which only hot positions are left."""
    heat, pictures = strengths(asked.heatmaps), asked.pictures.arrays
    blank = heat.max(axis=tuple(range(1, heat.ndim))) <= 0

    def make(who: NDArray[np.intp], _: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.where((heat[who] > threshold)[:, None], pictures[who], base[who])

    return asked.ask(make, 1, leave_out=blank, progress=progress)[:, 0]


@dataclass(frozen=True, slots=True, eq=False)
class NoiseStability:
    """How alike each heatmap is to the one under noisy gradients."""

    ssim: NDArray[np.float64]
    """(N,): see `window_ssim`; NaN where the clean heatmap is blank."""
    mse: NDArray[np.float64]
    """(N,): mean squared difference, 0 for equal ones; NaN likewise."""


def published_noise_stability(
    activations: ArrayLike,
    gradients: ArrayLike,
    *,
    method: str = "cf-cam",
    settings: Settings | None = None,
    level: float = NOISE_LEVEL,
    size: Sequence[int] | None = None,
    seed: int = 0,
) -> NoiseStability:
    """Compare heatmaps with those that the same method makes of noisy gradients.

    The code's robustness, repaired. There the noise on CF-CAM's gradients comes after the weights
    have been taken from them, so no map can change; here it is added before the method sees them.
    There the level is the noise's standard deviation itself; here it counts in standard deviations
    of that sample's gradients, for these differ by orders of magnitude between models.

    Parameters
    ----------
    activations, gradients : array_like of shape (N, C, *s)
        Of one layer, as a backend's ``capture`` gives them.
    method, settings : optional
        As for `cfcam_core.explain`.
    level : float
        Standard deviation of the noise, in those of each sample's gradients.
    size : sequence of int, optional
        Size at which heatmaps are compared, 7 or more along each axis. Default: that of the layer,
        as the code compares most methods; CF-CAM's it compares at the size of the input.
    seed : int
        Of the noise. All samples get the same noise but for its scale, so that none depends on its
        batch.

    Returns
    -------
    NoiseStability
        NaN where the heatmap is blank without noise.

    Raises
    ------
    InvalidInputError
        Arrays or size do not fit, or an argument is out of range.

    Warns
    -----
    BlankMapWarning
        A heatmap is blank without noise.
    """
    A, G = real_array(activations, "activations"), real_array(gradients, "gradients")
    if not 0 <= level < float("inf"):
        raise InvalidInputError(f"level={level!r}; wanted a finite number, 0 or more")
    if A.shape != G.shape or not 3 <= A.ndim <= 5 or 0 in A.shape:
        raise InvalidInputError(
            f"activations have shape {A.shape} and gradients {G.shape}; both must have the same "
            "shape (N, C, *spatial), one to three spatial axes, none empty"
        )
    axes = tuple(range(1, G.ndim))
    spread = level * G.std(axis=axes, keepdims=True, dtype=np.float64)
    noise = np.random.default_rng(checked_seed(seed)).normal(size=G.shape[1:])

    def heatmaps(gradients: NDArray[Any]) -> FloatArray:
        found = explain_arrays(
            A, gradients, method=method, settings=settings, size=size, spatial_dims=A.ndim - 2
        )
        return found.heatmaps

    clean = heatmaps(G)
    if min(clean.shape[1:]) < WINDOW:
        raise InvalidInputError(
            f"heatmaps of size {clean.shape[1:]} are smaller than the {WINDOW} positions an axis "
            "that the similarity looks at; pass size=, such as that of the model's input"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlankMapWarning)  # then the two differ, which is the answer
        noisy = heatmaps(G + spread * noise)
    blank = clean.max(axis=tuple(range(1, clean.ndim))) <= 0
    squares = (clean.astype(np.float64) - noisy) ** 2
    alike = window_ssim(clean, noisy)
    mse = squares.mean(axis=tuple(range(1, clean.ndim)))
    return NoiseStability(np.where(blank, np.nan, alike), np.where(blank, np.nan, mse))


def window_ssim(a: FloatArray, b: FloatArray) -> NDArray[np.float64]:
    """Return the structural similarity (N,) of maps (N, *size) in [0, 1] under a flat window.

    The mean over all windows of 7 positions an axis that lie inside the map of
    ``(2 m_a m_b + c) (2 s_ab + d) / ((m_a^2 + m_b^2 + c) (s_a^2 + s_b^2 + d))`` with means m,
    unbiased variances s^2 and covariance s_ab, ``c = 0.01^2`` and ``d = 0.03^2``. The published
    code's: the original takes a Gaussian window, see `cfcam_core.evaluation.ssim`.
    """
    axes = tuple(range(1, a.ndim))
    inside = (slice(None), *[slice(WINDOW // 2, -(WINDOW // 2)) for _ in axes])

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(uniform_filter(values, WINDOW, axes=axes)[inside])

    one, other = a.astype(np.float64), b.astype(np.float64)
    m, n = mean(one), mean(other)
    unbiased = WINDOW ** len(axes) / (WINDOW ** len(axes) - 1)
    spread = unbiased * (mean(one * one) + mean(other * other) - m * m - n * n)
    common = unbiased * (mean(one * other) - m * n)
    c, d = 0.01**2, 0.03**2
    alike = (2 * m * n + c) * (2 * common + d) / ((m * m + n * n + c) * (spread + d))
    return np.asarray(alike.mean(axis=axes))
