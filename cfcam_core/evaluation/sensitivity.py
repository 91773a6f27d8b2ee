"""Does a map depend on the class it explains? Maps of two classes of the same input, correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import FloatArray, read_only, real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.explainer import FLAT, explain
from cfcam_core.explanation import Explanation
from cfcam_core.registry import open_model
from cfcam_core.settings import Settings
from cfcam_core.targets import resolve_targets

RANK = 6
"""Rank of the class that the best one is compared with (ours). The runner-up is often the same
thing by another name, whose map should look alike; the sixth seldom is, and still is in the
picture's neighbourhood."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassSensitivity:
    """What `class_sensitivity` returns, sample by sample. Arrays are read-only."""

    correlations: NDArray[np.float64]
    """(N,): -1 to 1. 1: both classes get the same map. NaN where there is nothing to compare."""
    targets: NDArray[np.intp]
    """(N,): the best class of each sample."""
    others: NDArray[np.intp]
    """(N,): the class that it is compared with."""

    @property
    def undefined(self) -> int:
        """Return the number of samples without a value."""
        return int(np.isnan(self.correlations).sum())

    @property
    def mean(self) -> float:
        """Return the mean over the samples that have a value; NaN if none has one."""
        valued = self.correlations[~np.isnan(self.correlations)]
        return float(valued.mean()) if valued.size else float("nan")


def class_sensitivity(
    model: Any,
    inputs: Any,
    *,
    method: str = "cf-cam",
    settings: Settings | None = None,
    layer: Any = None,
    others: Any = None,
    rank: int = RANK,
    of: Literal["heatmaps", "maps"] = "heatmaps",
) -> ClassSensitivity:
    """Correlate the map of each sample's best class with that of another class.

    The lower, the more a map says about the class that it is made for. A method that scores 1
    draws the same picture whatever it is asked.

    Parameters
    ----------
    model, inputs, method, settings, layer : optional
        As in `cfcam_core.explain`.
    others : optional
        The other class, as `explain` takes a target: an int, one int a sample, or a callable that
        returns these. Default: the class at `rank`.
    rank : int
        Rank of the other class by score, 2 the runner-up; the last class where there are fewer.
        Default: 6, for the runner-up is often the same thing by another name.
    of : str
        ``heatmaps``: what a user sees, the positive part, upsampled. ``maps``: signed, at the
        layer's resolution; they tell apart what speaks against a class as well.

    Returns
    -------
    ClassSensitivity
        A correlation for each sample; NaN where one of the two maps is the same everywhere, blank
        ones among them, and where the other class is the best one itself.

    Raises
    ------
    InvalidInputError
        The model has a single logit, `others` names no classes, or an argument is unknown.
    CfcamError
        As for `explain`.

    Warns
    -----
    BlankMapWarning
        As for `explain`.

    Notes
    -----
    Ours: Pearson's correlation over all positions, see `map_correlation`. The model runs once for
    the scores and once for each of the two maps.
    """
    if of not in {"heatmaps", "maps"}:
        raise InvalidInputError(f"of={of!r} is unknown; allowed are 'heatmaps' and 'maps'")
    if not isinstance(rank, int | np.integer) or rank < 2:
        raise InvalidInputError(
            f"rank={rank!r}; wanted a whole number: 2 is the runner-up, 1 the best class itself"
        )
    opened = open_model(model)
    scores = opened.scores(inputs)
    if scores.shape[1] < 2:
        raise InvalidInputError(
            "the model has a single logit, so there are no two classes to compare"
        )
    best = scores.argmax(axis=1)
    if others is None:
        other = np.argsort(-scores, axis=1, kind="stable")[:, min(rank, scores.shape[1]) - 1]
    else:
        other, _ = resolve_targets(others, scores)
        if (other < 0).any():
            raise InvalidInputError(
                "others is a function of several scores; pass an int, or one int a sample"
            )
    first, second = (
        explain(opened, inputs, layer=layer, target=target, method=method, settings=settings)
        for target in (best, other)
    )
    correlations = map_correlation(getattr(first, of), getattr(second, of))
    correlations[best == other] = np.nan
    return ClassSensitivity(read_only(correlations), read_only(best), read_only(other))


def map_correlation(
    first: ArrayLike | Explanation, second: ArrayLike | Explanation
) -> NDArray[np.float64]:
    """Return Pearson's correlation of two maps of each sample.

    Parameters
    ----------
    first, second : array_like of shape (N, *size), or Explanation
        Of an Explanation its heatmaps.

    Returns
    -------
    ndarray of float64, shape (N,)
        -1 to 1; NaN where either map is the same everywhere: its values differ by less than 1e-5 of
        its peak, as `Explanation.status` has it.

    Raises
    ------
    InvalidInputError
        Shapes differ, there is no axis of samples, or values are not finite.

    Notes
    -----
    ``<a - mean a, b - mean b> / (|a - mean a| |b - mean b|)`` over all positions, in float64.
    A positive factor of a map does not change it, nor does an offset.

    Examples
    --------
    >>> map_correlation([[1, 2, 3]], [[6, 4, 2]])
    array([-1.])
    """
    a, b = _maps(first, "first"), _maps(second, "second")
    if a.shape != b.shape or a.ndim < 2 or 0 in a.shape:
        raise InvalidInputError(
            f"the first maps have shape {a.shape} and the second {b.shape}; both must have the "
            "same shape (N, *size), no axis empty"
        )
    products = (_standard(a) * _standard(b)).sum(axis=1)
    return np.asarray(np.clip(products, -1, 1))


def _maps(given: ArrayLike | Explanation, name: str) -> FloatArray:
    return real_array(given.heatmaps if isinstance(given, Explanation) else given, f"{name} maps")


def _standard(maps: FloatArray) -> NDArray[np.float64]:
    """Return maps (N, P) with mean 0 and length 1; NaN for one that is the same everywhere."""
    values = maps.reshape(len(maps), -1).astype(np.float64)
    spread = np.ptp(values, axis=1, keepdims=True)
    constant = spread <= FLAT * np.abs(values).max(axis=1, keepdims=True)
    centred = (values - values.mean(axis=1, keepdims=True)) / np.where(constant, np.nan, spread)
    return np.asarray(centred / np.sqrt((centred**2).sum(axis=1, keepdims=True)))
