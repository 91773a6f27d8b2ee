"""From what was measured to verdicts: block means, tests against the default, first or behind."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from contest import DEFAULT, FAMILY, FAST, plan
from networks import network
from numpy.typing import NDArray
from truth import DATASETS, DataSet

from cfcam_core.evaluation import pair_tests
from cfcam_core.evaluation.robustness import Robustness, gather
from cfcam_core.evaluation.statistics import ALPHA, holm

Records = Mapping[str, Any]
Values = NDArray[np.float64]

MEASURES = {
    "energy": "energy in the mask",
    "rank": "rank accuracy",
    "pointing": "pointing game",
    "kept": "keep minus delete",
    "robust": "robustness RM",
    "class": "correlation of two classes",
}
LOWER_IS_BETTER = frozenset({"class"})
LEAST = 6
"""Blocks that a test takes: with fewer, Wilcoxon's p cannot be below 0.05."""
PHOTOGRAPHS = ("MobileNetV2", "SqueezeNet")


@dataclass(frozen=True, slots=True)
class Pair:
    """The default against another method, on the blocks that both have."""

    other: str
    mine: float
    theirs: float
    blocks: int
    adjusted: float
    """p of Wilcoxon's test after Holm's correction for all other methods."""
    effect: float
    """Rank-biserial correlation; above 0 the default is better, whichever way the measure goes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the default stands in one measure, at one layer, on one set of blocks."""

    measure: str
    place: str
    where: str
    mine: float
    blocks: int
    pairs: tuple[Pair, ...]

    @property
    def ahead(self) -> list[Pair]:
        """Methods that the default is significantly behind, the best first."""
        found = [pair for pair in self.pairs if pair.adjusted < ALPHA and pair.effect < 0]
        return sorted(found, key=lambda pair: pair.effect)

    @property
    def level(self) -> list[Pair]:
        """Methods that the tests do not tell from the default."""
        return [pair for pair in self.pairs if not pair.adjusted < ALPHA]

    @property
    def word(self) -> str:
        """``first``, ``tied for first`` or ``behind``."""
        return "behind" if self.ahead else "tied for first" if self.level else "first"

    @property
    def best(self) -> Pair:
        """The best of the others by its mean, on the blocks that all fast methods have."""
        sign = -1 if self.measure in LOWER_IS_BETTER else 1
        full = [pair for pair in self.pairs if pair.other in FAST and np.isfinite(pair.theirs)]
        return max(full, key=lambda pair: sign * pair.theirs)


def label(each: DataSet) -> str:
    """Return how a data set is called."""
    return each.name if each.network == "digits" else f"{each.network}, {each.name}"


def with_measure(measure: str, *, secondary: bool = False) -> list[DataSet]:
    """Return the data sets on which it is measured."""
    wanted = "kept" if measure == "robust" else measure
    return [each for each in DATASETS if wanted in each.measures and each.secondary == secondary]


def targets(
    records: Records, part: str, each: DataSet, place: str, name: str, *, measure: str
) -> list[Values]:
    """Return for each block the values of its targets; an empty array where there is none."""
    found = []
    for n in range(each.count):
        record = records.get(f"{part}/{each.name}/{each.network}/{n}", {"found": {}})["found"]
        values = record.get(place, {}).get(name, {}).get(measure, [])
        found.append(np.array(values, float))
    return found


def means(values: Iterable[Values]) -> Values:
    """Return the mean of each array; NaN of an empty one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.array([np.nanmean(each) if each.size else np.nan for each in values])


def cell(records: Records, each: DataSet, place: str, measure: str) -> dict[str, Values]:
    """Return block means by method, on one data set; of slow methods NaN where they did not run."""
    if measure == "robust":
        found = robustness(records, each.network, place)
        if found is None:
            return {}
        names = list(found.plan.methods)
        return dict(zip(names, found.per_image("robustness").T, strict=True))
    return {
        name: means(
            targets(
                records, "report" if name in FAST else "slow", each, place, name, measure=measure
            )
        )
        for name in FAMILY
    }


def mine_for(records: Records, each: DataSet, place: str, name: str, measure: str) -> Values:
    """Return the default's block means on the targets that another method was run on."""
    mine = targets(records, "report", each, place, DEFAULT, measure=measure)
    if name in FAST:
        return means(mine)
    theirs = targets(records, "slow", each, place, name, measure=measure)
    return means(own[: len(other)] for own, other in zip(mine, theirs, strict=True))


def robustness(records: Records, net: str, place: str) -> Robustness | None:
    """Return what was found about robustness of one network's maps."""
    start = f"robust/{place}/{net}/"
    found = [record["found"] for key, record in records.items() if key.startswith(start)]
    return gather(found, plan(network(net), place)) if found else None


def on_cell(records: Records, each: DataSet, place: str, measure: str) -> Verdict | None:
    """Return the verdict on one data set."""
    values = cell(records, each, place, measure)
    if not values or np.isnan(values[DEFAULT]).all():
        return None
    pairs = {
        name: (
            values[DEFAULT]
            if measure == "robust"
            else mine_for(records, each, place, name, measure),
            theirs,
        )
        for name, theirs in values.items()
        if name != DEFAULT
    }
    return verdict(measure, place, label(each), values[DEFAULT], pairs)


def pooled(records: Records, place: str, measure: str) -> tuple[dict[str, Values], Verdict]:
    """Return all blocks together by method, and the verdict on them.

    A mosaic's block is its clean and its noisy version. Scenes enter in as many groups as there
    are blocks of one network of the photographs, so the three networks count alike.
    """
    values: dict[str, Values] = {}
    pairs: dict[str, tuple[Values, Values]] = {}
    sets = {
        net: [each for each in with_measure(measure) if each.network == net]
        for net in ("digits", *PHOTOGRAPHS)
    }
    cells = {
        (each.name, net): cell(records, each, place, measure)
        for net, several in sets.items()
        for each in several
    }
    for name in FAMILY:
        mine, theirs = [], []
        for net, several in sets.items():
            known = [each for each in several if name in cells[each.name, net]]
            own = [
                cells[each.name, net][DEFAULT]
                if measure == "robust"
                else mine_for(records, each, place, name, measure)
                for each in known
            ]
            other = [cells[each.name, net][name] for each in known]
            if name not in FAST:  # slow methods saw the clean mosaics only
                own, other = own[:1], other[:1]
            if other:
                mine.append(means(np.stack(own, axis=1)))
                theirs.append(means(np.stack(other, axis=1)))
        size = min((int(np.isfinite(each).sum()) for each in theirs[1:]), default=0)
        if len(theirs) < 3 or not size:
            continue
        both = [
            np.concatenate([means(np.array_split(each[0], size)), *each[1:]])
            for each in (mine, theirs)
        ]
        values[name] = both[1]
        if name != DEFAULT:
            pairs[name] = (both[0], both[1])
    return values, verdict(measure, place, "all", values[DEFAULT], pairs)


def verdict(
    measure: str,
    place: str,
    where: str,
    mine: Values,
    pairs: Mapping[str, tuple[Values, Values]],
) -> Verdict:
    """Test the default against every other method."""
    sign = -1 if measure in LOWER_IS_BETTER else 1
    tests, found = [], []
    for name, (own, other) in pairs.items():
        both = np.isfinite(own) & np.isfinite(other)
        if both.sum() < LEAST:
            continue
        (test,) = pair_tests(sign * np.stack([own, other], axis=1), (DEFAULT, name))
        tests.append(test)
        found.append((name, _mean(own[both]), _mean(other[both]), int(both.sum())))
    adjusted = holm([test.p_value for test in tests])
    return Verdict(
        measure,
        place,
        where,
        _mean(mine[np.isfinite(mine)]),
        int(np.isfinite(mine).sum()),
        tuple(
            Pair(*facts, float(p), test.effect)
            for facts, p, test in zip(found, adjusted, tests, strict=True)
        ),
    )


def complete(values: Mapping[str, Values]) -> tuple[list[str], NDArray[np.float64]]:
    """Return the fast methods and their blocks as a table, a column each, for rankings."""
    names = [name for name in values if name in FAST]
    return names, np.stack([values[name] for name in names], axis=1)


def blanks(records: Records, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return for each method how many maps were blank, and of how many."""
    found = {}
    for name in names:
        part = "report" if name in FAST else "slow"
        flags = [
            value
            for each in DATASETS
            for place in ("last", "inner")
            for block in targets(records, part, each, place, name, measure="blank")
            for value in block
        ]
        found[name] = (int(sum(flags)), len(flags))
    return found


def _mean(values: Values) -> float:
    return float(values.mean()) if values.size else float("nan")
