"""Changes to pictures by name, each in five severities: noise, blur and attacks.

A picture is an array (*size, C) in [0, 1], and so is what comes back: everything is clipped. The
kinds of noise are common; the numbers behind the severities are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cfcam_core.capture import FloatArray
from cfcam_core.errors import InvalidInputError
from cfcam_core.shuffling import checked_seed

Floats = NDArray[np.float64]
Gradient = Callable[[Floats], Floats]
"""From a picture (*size, C) to the slope of the explained logit at it, of the same shape."""

STEPS = 10
"""Steps of ``pgd``."""
STRIDE = 0.25
"""Length of a step of ``pgd`` as a share of eps: 2.5 eps over all steps, as Madry et al. advise."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A kind of change and how strong it is at each severity."""

    name: str
    function: Callable[..., NDArray[Any]]
    """``(picture (*size, C) in [0, 1], level, rng)`` to a picture of that shape; clipped after."""
    levels: tuple[float, ...]
    """What severity 1, 2, ... hands on as `level`."""
    asks_model: bool = False
    """Whether `function` takes a fourth argument: the gradient, itself a function of pictures."""
    meaning: str = ""
    """What a level is."""


def gaussian(picture: Floats, std: float, rng: np.random.Generator) -> Floats:
    """Add normal noise of that standard deviation to every value."""
    return picture + rng.normal(0, std, picture.shape)


def salt_and_pepper(picture: Floats, share: float, rng: np.random.Generator) -> Floats:
    """Turn that share of the positions black or white, all channels alike; either with chance 1/2.

    Each position is drawn by itself, so the share holds on average.
    """
    drawn = rng.random((*picture.shape[:-1], 1))
    return np.where(drawn < share, np.where(drawn < share / 2, 0.0, 1.0), picture)


def speckle(picture: Floats, std: float, rng: np.random.Generator) -> Floats:
    """Multiply every value by 1 plus normal noise of that standard deviation."""
    return picture * (1 + rng.normal(0, std, picture.shape))


def poisson(picture: Floats, counts: float, rng: np.random.Generator) -> Floats:
    """Count photons, `counts` of them where the picture is 1: variance ``x / counts`` at x."""
    return rng.poisson(picture * counts) / counts


def uniform(picture: Floats, half_width: float, rng: np.random.Generator) -> Floats:
    """Add noise that is even from -half_width to half_width to every value."""
    return picture + rng.uniform(-half_width, half_width, picture.shape)


def gaussian_blur(picture: Floats, sigma: float, _rng: np.random.Generator) -> Floats:
    """Blur along the spatial axes by a Gaussian of that many positions; edges are mirrored."""
    spatial = tuple(range(picture.ndim - 1))
    return np.asarray(gaussian_filter(picture, sigma, mode="reflect", axes=spatial))


def fgsm(picture: Floats, eps: float, _rng: np.random.Generator, gradient: Gradient) -> Floats:
    """Take one step of eps against the sign of the slope of the predicted class's logit.

    Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015; of
    the logit here, where they climb the loss.
    """
    return picture - eps * np.sign(gradient(picture))


def pgd(picture: Floats, eps: float, rng: np.random.Generator, gradient: Gradient) -> Floats:
    """Take `STEPS` such steps of `STRIDE` eps from a random start, within eps of the picture.

    After each step every value is brought back to within eps of the picture and to [0, 1]. Madry
    et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """
    low, high = np.maximum(picture - eps, 0), np.minimum(picture + eps, 1)
    found = np.clip(picture + rng.uniform(-eps, eps, picture.shape), low, high)
    for _ in range(STEPS):
        found = np.clip(found - STRIDE * eps * np.sign(gradient(found)), low, high)
    return found


_EPS = tuple(eps / 255 for eps in (1, 2, 4, 8, 16))

PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        each.name: each
        for each in (
            Perturbation(
                "gaussian", gaussian, (0.04, 0.06, 0.08, 0.12, 0.18), meaning="standard deviation"
            ),
            Perturbation(
                "salt_and_pepper",
                salt_and_pepper,
                (0.01, 0.02, 0.05, 0.10, 0.20),
                meaning="share of positions",
            ),
            Perturbation(
                "speckle", speckle, (0.05, 0.10, 0.20, 0.35, 0.50), meaning="standard deviation"
            ),
            Perturbation("poisson", poisson, (100, 60, 30, 12, 5), meaning="photons at white"),
            Perturbation("uniform", uniform, (0.05, 0.10, 0.15, 0.20, 0.30), meaning="half-width"),
            Perturbation(
                "gaussian_blur",
                gaussian_blur,
                (0.5, 1.0, 2.0, 3.0, 4.0),
                meaning="sigma, positions",
            ),
            Perturbation("fgsm", fgsm, _EPS, asks_model=True, meaning="eps"),
            Perturbation("pgd", pgd, _EPS, asks_model=True, meaning="eps"),
        )
    }
)
"""Perturbations by name."""

NOISES = tuple(name for name, each in PERTURBATIONS.items() if not each.asks_model)
"""Those that do not ask the model."""


def find_perturbation(given: str | Perturbation) -> Perturbation:
    """Return the perturbation of that name, or the given one.

    Raises
    ------
    InvalidInputError
        There is none; the message has the names.
    """
    if isinstance(given, Perturbation):
        return given
    if not isinstance(given, str) or given not in PERTURBATIONS:
        raise InvalidInputError(
            f"there is no perturbation {given!r}; allowed are {', '.join(PERTURBATIONS)}, or a "
            "cfcam.evaluation.Perturbation of your own"
        )
    return PERTURBATIONS[given]


def checked_severities(
    severities: Iterable[int], perturbations: Iterable[Perturbation]
) -> tuple[int, ...]:
    """Return the severities, or raise `InvalidInputError` where a perturbation lacks one."""
    wanted = tuple(severities) if isinstance(severities, Iterable) else (severities,)
    least = min((len(each.levels) for each in perturbations), default=0)
    fits = all(isinstance(s, int | np.integer) and 1 <= s <= least for s in wanted)
    if not wanted or not fits or len(set(wanted)) < len(wanted):
        raise InvalidInputError(
            f"severities {wanted}; wanted whole numbers from 1 to {least}, none twice"
        )
    return tuple(map(int, wanted))


def perturb(
    picture: NDArray[Any],
    perturbation: str | Perturbation,
    severity: int,
    *,
    seed: int = 0,
    index: int = 0,
    gradient: Gradient | None = None,
) -> FloatArray:
    """Return a perturbed copy of one picture.

    Parameters
    ----------
    picture : ndarray of shape (*size, C)
        Values in [0, 1].
    perturbation : str or Perturbation
        A name in `PERTURBATIONS`, or your own.
    severity : int
        From 1, the weakest, to the number of its levels.
    seed, index : int
        The same numbers, kind and severity give the same noise, whatever else is in the batch;
        `index` says which picture of a set it is.
    gradient : callable, optional
        What attacks ask: from a picture to the slope of the logit they lower, both (*size, C).

    Returns
    -------
    ndarray of float32, shape (*size, C)
        In [0, 1].

    Raises
    ------
    InvalidInputError
        There is no such perturbation or severity, an attack has no gradient, the values are not in
        [0, 1], or what a perturbation of yours returns is of another shape or not finite.

    Examples
    --------
    >>> perturb(np.full((1, 2, 1), 0.5), "uniform", 1, seed=7).ravel()
    array([0.48692498, 0.47568235], dtype=float32)
    """
    kind = find_perturbation(perturbation)
    (severity,) = checked_severities([severity], [kind])
    clean = np.asarray(picture, np.float64)
    if not ((clean >= 0) & (clean <= 1)).all():
        raise InvalidInputError(
            f"the picture has values from {clean.min():.4g} to {clean.max():.4g}; wanted 0 to 1"
        )
    rng = np.random.default_rng((checked_seed(seed), index, crc32(kind.name.encode()), severity))
    level = kind.levels[severity - 1]
    if kind.asks_model:
        if gradient is None:
            raise InvalidInputError(f"{kind.name} asks for the model's gradient; pass gradient=")
        changed = np.asarray(kind.function(clean, level, rng, gradient))
    else:
        changed = np.asarray(kind.function(clean, level, rng))
    if changed.shape != clean.shape or not np.isfinite(changed).all():
        raise InvalidInputError(
            f"{kind.name} made shape {changed.shape} of {clean.shape}, or values that are not "
            "finite; a perturbation returns a picture like the one it gets"
        )
    return np.asarray(np.clip(changed, 0, 1), np.float32)
