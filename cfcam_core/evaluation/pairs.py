"""What robustness to noise is computed from, pair by pair, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cfcam_core.evaluation.bootstrap import Interval, percentile_interval, resampled

FEW = 30
"""Pairs of either kind below which a number is marked as shaky (ours)."""

Measure = Literal["consistency", "responsiveness", "robustness"]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A table: one row a method and perturbed picture, compared with the clean one. Read-only."""

    method: NDArray[np.str_]
    image: NDArray[np.intp]
    kind: NDArray[np.str_]
    """The perturbation's name."""
    severity: NDArray[np.intp]
    same: NDArray[np.bool_]
    """Whether the model predicts the same class as for the clean picture."""
    similarity: NDArray[np.float64]
    """Of the two maps, each for its own predicted class."""
    degenerate: NDArray[np.bool_]
    """Whether one of the two maps, or both, is the same in every segment."""

    def __len__(self) -> int:
        return len(self.image)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, in the order above."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows as Python's own values, for ``csv.writer`` and the like."""
        return zip(*(column.tolist() for column in self.columns().values()), strict=True)

    @property
    def undefined(self) -> str:
        """Why some numbers have no value (NaN); empty where all have one."""
        for kind, what, rests in (
            (~self.same, "changed", "responsiveness"),
            (self.same, "kept", "consistency"),
        ):
            if not kind.any():
                return (
                    f"no perturbation {what} a prediction, so {rests} and robustness have no "
                    "value; take more pictures or other severities"
                )
        return ""

    def where(self, chosen: NDArray[np.bool_]) -> Pairs:
        """Return the rows where `chosen` is True."""
        return Pairs(**{name: column[chosen] for name, column in self.columns().items()})


@dataclass(frozen=True, slots=True)
class RobustnessScore:
    """The numbers of one method over some pairs."""

    method: str
    consistency: float
    """Mean similarity where the class stayed; NaN without such a pair."""
    responsiveness: float
    """1 minus the mean similarity where the class changed; NaN without such a pair."""
    robustness: float
    """Their product."""
    same: int
    """Pairs whose class stayed."""
    changed: int
    """Pairs whose class changed."""
    degenerate: float
    """Share of pairs with a map that is the same in every segment."""

    @property
    def few(self) -> bool:
        """Whether there are fewer than `FEW` pairs of either kind: read the numbers with care."""
        return min(self.same, self.changed) < FEW


@dataclass(frozen=True, slots=True)
class RobustnessIntervals:
    """Where the numbers of one method may lie, the pictures being a sample of all there are."""

    method: str
    consistency: Interval
    responsiveness: Interval
    robustness: Interval


def score(method: str, pairs: Pairs) -> RobustnessScore:
    """Return the numbers of the pairs of one method."""
    of_method = pairs.method == method
    same, changed = of_method & pairs.same, of_method & ~pairs.same
    consistency, responsiveness, robustness = _numbers(
        *(np.array(pairs.similarity[rows].sum()) for rows in (same, changed)),
        *(np.array(rows.sum()) for rows in (same, changed)),
    )
    return RobustnessScore(
        method,
        float(consistency),
        float(responsiveness),
        float(robustness),
        int(same.sum()),
        int(changed.sum()),
        float(pairs.degenerate[of_method].mean()) if of_method.any() else float("nan"),
    )


def per_image(method: str, pairs: Pairs, measure: Measure) -> NDArray[np.float64]:
    """Return a measure for each picture that has pairs, in the order of their indices."""
    names = ("consistency", "responsiveness", "robustness")
    return _numbers(*_sums(method, pairs))[names.index(measure)]


def intervals(
    method: str, pairs: Pairs, *, draws: int, level: float, seed: int
) -> RobustnessIntervals:
    """Return bootstrap intervals: pictures are drawn with replacement, each with all its pairs.

    All methods get the same draws. Without a picture nothing has a value.
    """
    sums = _sums(method, pairs)
    if not len(sums[0]):
        none = Interval(np.nan, np.nan, level, 1.0)
        return RobustnessIntervals(method, none, none, none)
    times = resampled(len(sums[0]), draws, seed)
    numbers = _numbers(*(times @ each for each in sums))
    return RobustnessIntervals(method, *(percentile_interval(each, level) for each in numbers))


def _sums(
    method: str, pairs: Pairs
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return for each picture the sums of similarities, class same and changed, and the counts."""
    images, place = np.unique(pairs.image, return_inverse=True)
    weights = [rows * (pairs.method == method) for rows in (pairs.same.astype(float), ~pairs.same)]
    sums = [np.bincount(place, each * pairs.similarity, len(images)) for each in weights]
    counts = [np.bincount(place, each, len(images)) for each in weights]
    return sums[0], sums[1], counts[0], counts[1]


def _numbers(
    alike: NDArray[Any], changed: NDArray[Any], n0: NDArray[Any], n1: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return consistency, responsiveness, robustness from sums and counts; NaN without a pair."""
    consistency = alike / np.where(n0 > 0, n0, np.nan)
    responsiveness = 1 - changed / np.where(n1 > 0, n1, np.nan)
    return consistency, responsiveness, consistency * responsiveness
