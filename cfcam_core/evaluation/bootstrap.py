"""How far a number would move if other pictures had been drawn: the bootstrap over pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.shuffling import checked_seed


@dataclass(frozen=True, slots=True)
class Interval:
    """From where to where a number may lie."""

    low: float
    high: float
    level: float
    """Such as 0.95."""
    undefined: float
    """Share of the draws in which the number had no value; they are left out."""


def resampled(blocks: int, draws: int, seed: int) -> NDArray[np.float64]:
    """Return how often each of the blocks is drawn, with replacement: (draws, blocks)."""
    if blocks < 1 or draws < 1:
        raise InvalidInputError(f"{draws} draws from {blocks} pictures; wanted one of each or more")
    rng = np.random.default_rng(checked_seed(seed))
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws).astype(np.float64)


def percentile_interval(values: NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the middle share `level` of the draws (Efron's percentile interval)."""
    if not 0 < level < 1:
        raise InvalidInputError(f"level={level!r}; wanted a number between 0 and 1, such as 0.95")
    valued = values[~np.isnan(values)]
    undefined = 1 - len(valued) / len(values)
    if len(valued) == 0:
        return Interval(np.nan, np.nan, level, undefined)
    low, high = np.quantile(valued, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, undefined)


def bootstrap(
    values: ArrayLike, *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return a bootstrap interval of the mean of one value a picture.

    Parameters
    ----------
    values : array_like of shape (N,)
        NaN where a picture has none; it stays one of the N that are drawn from.
    draws, level, seed : int, float, int
        How often N pictures are drawn with replacement, and which middle share of the means is
        kept.

    Raises
    ------
    InvalidInputError
        No picture at all, another shape, or a number out of range.

    References
    ----------
    B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    table = number_array(values, "values").astype(np.float64)
    if table.ndim != 1:
        raise InvalidInputError(f"values have shape {table.shape}; wanted (N,), one a picture")
    times = resampled(len(table), draws, seed)
    counted = times @ ~np.isnan(table)
    return percentile_interval(
        times @ np.nan_to_num(table) / np.where(counted > 0, counted, np.nan), level
    )
