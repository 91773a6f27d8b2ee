"""Do methods really differ? Tests on tables of numbers: a row a picture, a column a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError

ALPHA = 0.05
"""Chance of a false alarm that tests are held to, by custom."""


@dataclass(frozen=True, slots=True)
class FriedmanTest:
    """Whether any of several methods differs from the others."""

    statistic: float
    """Chi-squared with one degree of freedom less than methods; NaN where there is none."""
    p_value: float
    blocks: int
    """Rows used: those without a NaN."""
    reason: str = ""
    """Why there is no value; empty where there is one."""


@dataclass(frozen=True, slots=True)
class PairTest:
    """Whether two methods differ."""

    first: str
    second: str
    p_value: float
    """Of Wilcoxon's signed-rank test, two-sided."""
    adjusted: float
    """The same after Holm's correction for all pairs."""
    effect: float
    """Matched-pairs rank-biserial correlation, in [-1, 1]: above 0 the first method is higher."""
    differing: int
    """Rows in which the two differ; the others say nothing."""


@dataclass(frozen=True, slots=True)
class MethodRanks:
    """All methods compared with each other: what a critical-difference drawing shows."""

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    """1 is best; equal values share their ranks."""
    groups: tuple[tuple[int, ...], ...]
    """Indices of methods that the tests do not tell apart, neighbours in rank, best first; groups
    may overlap."""
    friedman: FriedmanTest
    pairs: tuple[PairTest, ...]
    alpha: float


def friedman(values: ArrayLike) -> FriedmanTest:
    """Test whether any column differs: Friedman's test with pictures as blocks.

    Parameters
    ----------
    values : array_like of shape (N, M)
        One row a picture, one column a method. Rows with a NaN are left out.

    Returns
    -------
    FriedmanTest
        With `reason` where there is no value: fewer than three methods, fewer than two rows, or no
        row in which the methods differ.

    Notes
    -----
    SciPy's, corrected for ties. The chi-squared law is an approximation, good from some ten rows
    on.

    References
    ----------
    M. Friedman, "The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of
    Variance", Journal of the American Statistical Association 32, 1937.
    """
    table = _whole_rows(values)
    rows, columns = table.shape
    reason = ""
    if columns < 3:
        reason = f"Friedman's test needs three methods or more, there are {columns}"
    elif rows < 2:
        reason = f"too few pictures with a value for every method: {rows}"
    elif not np.ptp(table, axis=1).any():
        reason = "all methods have the same value in every row"
    if reason:
        return FriedmanTest(np.nan, np.nan, rows, reason)
    from scipy.stats import friedmanchisquare  # late: as long to import as all the rest

    found = friedmanchisquare(*table.T)
    return FriedmanTest(float(found.statistic), float(found.pvalue), rows)


def pair_tests(values: ArrayLike, names: Sequence[str]) -> tuple[PairTest, ...]:
    """Test every two columns against each other, corrected for their number.

    Parameters
    ----------
    values : array_like of shape (N, M)
        As for `friedman`.
    names : sequence of str
        Of the columns.

    Returns
    -------
    tuple of PairTest
        In the order (0, 1), (0, 2), ..., (1, 2), ... Two columns that never differ have p = 1 and
        effect 0; where there is no row at all, all are NaN.

    Notes
    -----
    Wilcoxon's test leaves out rows without a difference. Its p is exact for few rows without ties,
    as SciPy decides. The effect is ``(W+ - W-) / (W+ + W-)``, W the sums of the ranks of positive
    and negative differences. Holm: the i-th smallest of k values of p is multiplied by
    ``k - i + 1``, never falling below the one before, and capped at 1.

    References
    ----------
    F. Wilcoxon, Biometrics Bulletin 1 (6), 1945. S. Holm, Scandinavian Journal of Statistics 6 (2),
    1979. D. Kerby, "The Simple Difference Formula", Comprehensive Psychology 3, 2014.
    """
    table = _whole_rows(values, names)
    chosen = list(combinations(range(table.shape[1]), 2))
    raw = [_signed_rank(table[:, i] - table[:, j]) for i, j in chosen]
    adjusted = holm([p for p, _, _ in raw])
    return tuple(
        PairTest(names[i], names[j], p, float(after), effect, differing)
        for (i, j), (p, effect, differing), after in zip(chosen, raw, adjusted, strict=True)
    )


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return values of p after Holm's step-down correction; NaN stays NaN and is not counted.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, np.float64)
    order = [int(i) for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    out = np.full(p.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return out


def compare_ranks(values: ArrayLike, names: Sequence[str], *, alpha: float = ALPHA) -> MethodRanks:
    """Rank methods in every row and say which the tests do not tell apart.

    Parameters
    ----------
    values : array_like of shape (N, M)
        One row a picture, one column a method, higher is better. Rows with a NaN are left out.
    names : sequence of str
        Of the columns.
    alpha : float
        Methods count as different where the corrected p is below.

    Returns
    -------
    MethodRanks
        All in one group where Friedman's test finds no difference. Without a row all numbers are
        NaN, and nothing is told apart.

    Raises
    ------
    InvalidInputError
        The table has no column, infinite values, or another number of names.

    References
    ----------
    J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", Journal of Machine
    Learning Research 7, 2006; with Wilcoxon's test and Holm's correction in place of Nemenyi's, as
    A. Benavoli et al., Journal of Machine Learning Research 17, 2016, advise.
    """
    from scipy.stats import rankdata

    table = _whole_rows(values, names)
    overall, pairs = friedman(table), pair_tests(table, names)
    ranks = rankdata(-table, axis=1).mean(axis=0) if len(table) else np.full(len(names), np.nan)
    order = [int(i) for i in np.argsort(ranks, kind="stable")]
    different = {
        frozenset((test.first, test.second))
        for test in pairs
        if test.adjusted < alpha and not overall.p_value >= alpha
    }
    return MethodRanks(
        tuple(names),
        tuple(ranks.tolist()),
        _groups(order, names, different),
        overall,
        pairs,
        alpha,
    )


def _groups(
    order: Sequence[int], names: Sequence[str], different: set[frozenset[str]]
) -> tuple[tuple[int, ...], ...]:
    """Return the longest runs of neighbours in rank without two that differ."""
    runs: list[tuple[int, ...]] = []
    end = 0
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and not any(
            frozenset((names[order[stop]], names[order[i]])) in different
            for i in range(start, stop)
        ):
            stop += 1
        if stop > end:
            runs.append(tuple(order[start:stop]))
            end = stop
    return tuple(runs)


def _signed_rank(differences: NDArray[np.float64]) -> tuple[float, float, int]:
    """Return p, the effect and the number of differences that are not zero."""
    if len(differences) == 0:
        return np.nan, np.nan, 0
    from scipy.stats import rankdata, wilcoxon

    given = differences[differences != 0]
    if len(given) == 0:
        return 1.0, 0.0, 0
    ranks = rankdata(np.abs(given))
    effect = float((ranks * np.sign(given)).sum() / ranks.sum())
    return float(wilcoxon(given).pvalue), effect, len(given)


def _whole_rows(values: ArrayLike, names: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Return the rows without a NaN, or raise `InvalidInputError`."""
    table = number_array(values, "values").astype(np.float64)
    if table.ndim != 2 or table.shape[1] == 0 or np.isinf(table).any():
        raise InvalidInputError(
            f"values have shape {table.shape}; wanted a table (pictures, methods), "
            "no value infinite"
        )
    if names is not None and (len(names) != table.shape[1] or len(set(names)) != len(names)):
        raise InvalidInputError(
            f"{len(names)} names for {table.shape[1]} methods, or one name twice: {tuple(names)}"
        )
    return table[~np.isnan(table).any(axis=1)]
