"""How sure the model stays when it sees what a heatmap shows, and little else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.evaluation.asked import Asked, Progress
from cfcam_core.evaluation.masking import (
    Baseline,
    baseline_pictures,
    faded,
    flat,
    hottest,
    strengths,
)
from cfcam_core.explanation import Explanation


@dataclass(frozen=True, slots=True, eq=False)
class Confidence:
    """The probability of each sample's class before and after its picture is masked."""

    before: NDArray[np.float64]
    """(N,): Y, on the whole picture."""
    after: NDArray[np.float64]
    """(N,): O, on the masked one; NaN for a heatmap without a positive value."""

    @property
    def drop(self) -> NDArray[np.float64]:
        """(N,): see `average_drop`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(
                self.before > 0, np.maximum(self.before - self.after, 0) / self.before, np.nan
            )

    @property
    def increase(self) -> NDArray[np.float64]:
        """(N,): see `average_increase`."""
        return np.where(np.isnan(self.after), np.nan, self.after > self.before)

    @property
    def gain(self) -> NDArray[np.float64]:
        """(N,): see `average_gain`."""
        room = 1 - self.before
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(room > 0, np.maximum(self.after - self.before, 0) / room, np.nan)


def masked_confidence(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    baseline: Baseline = "zero",
    progress: Progress | None = None,
) -> Confidence:
    """Return what `average_drop`, `average_increase` and `average_gain` rest on, asked for once.

    Parameters
    ----------
    model, inputs : object, array_like
        As for `cfcam_core.explain`.
    heatmaps : array_like of shape (N, *size), or Explanation
        At the size of the inputs. Negative values count as 0, and each map is divided by its own
        maximum.
    target : None, int, sequence of int, or callable, optional
        Default: the classes of the Explanation, else the best of each sample.
    baseline : str, float or array_like
        What is seen where the heatmap is 0: see `cfcam_core.evaluation.baseline_pictures`. The
        default multiplies the heatmap and the model's input, as other libraries do. The papers
        multiply the picture itself, before preprocessing: there 0 is black, and in standardised
        inputs 0 is the training set's mean. For the papers' own pass black as the model gets it,
        such as ``(0 - mean) / std`` of shape (C, 1, 1).
    progress : callable, optional
        Called with pictures done and in all.

    Returns
    -------
    Confidence
        NaN for a heatmap without a positive value: it shows nothing. One that is the same
        everywhere and positive shows the whole picture: it drops nothing, so these measures say
        little without one of where the map is, such as the insertion or deletion area.

    Raises
    ------
    InvalidInputError
        Heatmaps are not of the inputs' size, the target is no class, or the baseline is not
        understood.
    """
    asked = Asked.of(model, inputs, heatmaps, target)
    pictures, masks = asked.pictures.arrays, strengths(asked.heatmaps)
    base = baseline_pictures(pictures, baseline)
    blank = masks.max(axis=tuple(range(1, masks.ndim))) <= 0

    def make(who: NDArray[np.intp], _: NDArray[np.intp]) -> NDArray[np.float32]:
        return faded(pictures[who], masks[who], base[who])

    after = asked.ask(make, 1, leave_out=blank, progress=progress)[:, 0]
    return Confidence(asked.before(), after)


def average_drop(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    baseline: Baseline = "zero",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return which share of its confidence the model loses when it sees the masked picture.

    Parameters and errors are those of `masked_confidence`.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between 0 and 1, small is good; the paper's average drop is the mean, in percent. NaN for a
        heatmap without a positive value, and where the probability was 0 before.

    Notes
    -----
    ``max(0, Y - O) / Y``, Y the probability of the class on the picture, O on the picture masked by
    ``max(h, 0) / max h``.

    References
    ----------
    A. Chattopadhyay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks", WACV 2018, section 4.1.
    """
    return masked_confidence(
        model, inputs, heatmaps, target=target, baseline=baseline, progress=progress
    ).drop


def average_increase(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    baseline: Baseline = "zero",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return whether the model is surer of the masked picture than of the whole.

    Parameters and errors are those of `masked_confidence`.

    Returns
    -------
    ndarray of float64, shape (N,)
        1 where ``O > Y``, else 0, large is good; the paper's increase in confidence is the mean, in
        percent. NaN for a heatmap without a positive value.

    References
    ----------
    As for `average_drop`.
    """
    return masked_confidence(
        model, inputs, heatmaps, target=target, baseline=baseline, progress=progress
    ).increase


def average_gain(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    baseline: Baseline = "zero",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return which share of the confidence that was missing the masked picture brings.

    Parameters and errors are those of `masked_confidence`.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between 0 and 1, large is good; the paper's average gain is the mean, in percent. NaN for a
        heatmap without a positive value, and where the probability was 1 before.

    Notes
    -----
    ``max(0, O - Y) / (1 - Y)``: `average_drop` the other way round.

    References
    ----------
    H. Zhang et al., "Opti-CAM: Optimizing saliency maps for interpretability", Computer Vision and
    Image Understanding 248 (2024), section 4.1.
    """
    return masked_confidence(
        model, inputs, heatmaps, target=target, baseline=baseline, progress=progress
    ).gain


def keep_minus_delete(
    model: Any,
    inputs: Any,
    heatmaps: ArrayLike | Explanation,
    *,
    target: Any = None,
    share: float = 0.2,
    baseline: Baseline = "blur",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Return the probability with only the hottest positions left, minus that with them gone.

    Ours: one point of the insertion curve minus the same point of the deletion curve, at the price
    of two pictures. Where a map is positive on less than the share, it is the point at which its
    positive positions end: what is not hot is neither kept nor deleted.

    Parameters
    ----------
    model, inputs, heatmaps, target, progress : optional
        As for `cfcam_core.evaluation.deletion`.
    share : float
        Share of the positions, 0 to 1.
    baseline : str, float or array_like
        What is seen where the picture is hidden: see `cfcam_core.evaluation.baseline_pictures`.

    Returns
    -------
    ndarray of float64, shape (N,)
        Between -1 and 1, large is good. Compare it with that of ``method="random"``, which is not
        0: a fifth of a picture tells a model less than the other four. NaN for a heatmap that is
        the same everywhere.

    Raises
    ------
    InvalidInputError
        As for `cfcam_core.evaluation.deletion`, or the share is not within 0 and 1.

    Notes
    -----
    Positions are those of `cfcam_core.evaluation.keep_top` and
    `cfcam_core.evaluation.delete_top`; the curves go on, through equally cold positions by index.
    """
    asked = Asked.of(model, inputs, heatmaps, target)
    pictures = asked.pictures.arrays
    top = hottest(asked.heatmaps, share)
    base = baseline_pictures(pictures, baseline)

    def make(who: NDArray[np.intp], which: NDArray[np.intp]) -> NDArray[np.float32]:
        keeps = which.reshape(-1, *[1] * (top.ndim - 1)) == 0
        return np.where((top[who] == keeps)[:, None], pictures[who], base[who])

    found = asked.ask(make, 2, leave_out=flat(asked.heatmaps), progress=progress)
    return np.asarray(found[:, 0] - found[:, 1])
