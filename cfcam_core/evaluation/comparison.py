"""The result of a comparison: every number, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from os import PathLike
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import read_only
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.bootstrap import Interval, bootstrap
from cfcam_core.evaluation.comparison_files import as_csv, as_json, from_json
from cfcam_core.evaluation.journal import dumps
from cfcam_core.evaluation.metrics import METRICS, Better
from cfcam_core.evaluation.noise_run import NoiseRun
from cfcam_core.evaluation.statistics import ALPHA, MethodRanks, compare_ranks
from cfcam_core.evaluation.thumbnails import small_picture, unpacked
from cfcam_core.files import written

Mark = Literal["best", "tied", ""]
NEITHER: Mark = ""
SIGNS: Mapping[Mark, str] = {"best": "*", "tied": "=", NEITHER: " "}
"""Marks in plain letters."""
EQUAL = 1e-6
"""Means that differ by less than this share are the same: rounding, no more (ours)."""
DIGITS = 6
"""Decimals of the values that are ranked; what lies beyond is rounding as well (ours)."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """One curve for each method and image."""

    x: NDArray[np.float64]
    """(P,)"""
    y: NDArray[np.float64]
    """(M, I, P); NaN where a map has none."""

    def means(self) -> NDArray[np.float64]:
        """Return the mean curve of each method, (M, P)."""
        return _means(np.moveaxis(self.y, 1, 0))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods, images, metrics, and a number for each three of them. Arrays are read-only."""

    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    images: tuple[str, ...]
    values: NDArray[np.float64] = field(repr=False)
    """(M, I, Q); NaN where a map has no value."""
    targets: NDArray[np.intp]
    """(I,): the class that is explained."""
    statuses: tuple[tuple[str, ...], ...]
    """(M, I): see `Explanation.status`."""
    curves: Mapping[str, Curves]
    """By metric."""
    settings: Mapping[str, Any]
    """Everything that decides the numbers, as the journal's header has it."""
    failures: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Images that could not be compared, and why."""
    seconds: NDArray[np.float64] | None = None
    """(M, I): time for one map, its capture included. It differs from run to run, so it is neither
    in the CSV nor in the JSON."""
    maps: Mapping[str, tuple[NDArray[np.uint8], ...]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    """For the first images the small map of each method; not in the CSV and the JSON either."""
    pictures: Mapping[str, NDArray[np.uint8] | None] = field(
        default_factory=lambda: MappingProxyType({}), repr=False
    )
    """For the same images a small picture, where the input is one."""

    def __post_init__(self) -> None:
        shape = (len(self.methods), len(self.images), len(self.metrics))
        if self.values.shape != shape or self.targets.shape != shape[1:2]:
            raise InvalidInputError(
                f"values have shape {self.values.shape} and targets {self.targets.shape}; wanted "
                f"{shape} and {shape[1:2]}"
            )
        # in one memory order: sums depend on it in their last bit
        object.__setattr__(self, "values", read_only(np.ascontiguousarray(self.values)))
        object.__setattr__(self, "targets", read_only(self.targets))

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """(M, Q): the mean over the images that have a value; NaN where none has."""
        return _means(np.moveaxis(self.values, 1, 0))

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """(M, Q): how many images have a value."""
        return np.asarray(np.isfinite(self.values).sum(axis=1))

    @cached_property
    def intervals(self) -> tuple[tuple[Interval, ...], ...]:
        """(M, Q): bootstrap intervals of the means, images drawn with replacement."""
        seed = int(self.settings.get("seed", 0))
        return tuple(
            tuple(bootstrap(self.values[m, :, q], seed=seed) for q in range(len(self.metrics)))
            for m in range(len(self.methods))
        )

    @cached_property
    def ranks(self) -> Mapping[str, MethodRanks]:
        """By metric that has a direction: Friedman's test, pairwise tests and mean ranks.

        Values that differ by rounding alone, such as those of methods that are the same for a
        model, rank as equal. Left out are metrics for which no image has a value by every method.
        """
        found = {}
        for q, name in enumerate(self.metrics):
            table = self.values[:, :, q].T
            if self.better(name) and np.isfinite(table).all(axis=1).any():
                sign = 1 if self.better(name) == "higher" else -1
                found[name] = compare_ranks(sign * table.round(DIGITS), self.methods)
        return found

    @property
    def least_images(self) -> int:
        """How many images the pairwise tests need to tell any two of so many methods apart.

        Of n images that all favour one method, Wilcoxon's p is ``2 / 2^n``, and Holm multiplies the
        smallest by the number of pairs.
        """
        pairs = len(self.methods) * (len(self.methods) - 1) // 2
        return next(n for n in count(1) if pairs * 2.0 ** (1 - n) < ALPHA)

    def better(self, metric: str) -> Better | None:
        """Return which values of a metric are good."""
        return METRICS[metric].better if metric in METRICS else None

    def marks(self, metric: str) -> tuple[Mark, ...]:
        """Return for each method whether its mean is the best, or not told apart from it.

        Methods with the same mean are best together. Tied is what the pairwise tests, corrected by
        Holm, do not tell from the best at .05; or all methods, where Friedman's test does not tell
        any apart.
        """
        means = self.means[:, self.metrics.index(metric)]
        ranks, better = self.ranks.get(metric), self.better(metric)
        if better is None or not np.isfinite(means).any():
            return tuple(NEITHER for _ in means)
        best = int(np.nanargmax(means) if better == "higher" else np.nanargmin(means))
        different = set()
        if ranks is not None and not ranks.friedman.p_value >= ranks.alpha:
            pairs = [{t.first, t.second} for t in ranks.pairs if t.adjusted < ranks.alpha]
            different = {name for pair in pairs if self.methods[best] in pair for name in pair}

        def mark(m: int) -> Mark:
            if np.isclose(means[m], means[best], rtol=EQUAL, atol=0):
                return "best"
            known = np.isfinite(means[m])
            return "tied" if known and self.methods[m] not in different else NEITHER

        return tuple(mark(m) for m in range(len(means)))

    def to_csv(self, path: str | PathLike[str] | None = None) -> str:
        """Return a row for each image and method, and write them to a file if one is named.

        Columns are image, class, method, status and the metrics; a value that is not there is
        empty. Numbers are written with all their digits.
        """
        return written(as_csv(self), path)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return everything but times and maps as JSON, and write it to a file if one is named.

        `from_json` reads it. NaN is null.
        """
        return written(as_json(self), path)

    @staticmethod
    def from_json(text: str) -> Comparison:
        """Return what `to_json` wrote; times and maps are not there.

        Raises
        ------
        InvalidInputError
            It is no such JSON.
        """
        return from_json(text)

    def to_html(
        self,
        path: str | PathLike[str] | None = None,
        *,
        labels: Mapping[int, str] | None = None,
        robustness: NoiseRun | None = None,
    ) -> str:
        """Return a page that needs no other file, and write it to one if it is named.

        Parameters
        ----------
        path : path, optional
        labels : mapping, optional
            Names of classes, by index.
        robustness : NoiseRun, optional
            What `robustness_on_files` found with the same methods, to be shown on the same page.
        """
        from cfcam_core.evaluation.comparison_page import comparison_page

        return written(comparison_page(self, labels or {}, robustness), path)

    def __str__(self) -> str:
        width = max(map(len, ("method", *self.methods)))
        lines = [f"{len(self.images)} images; * best mean, = not told apart from it"]
        lines.append("  ".join([f"{'method':<{width}}", *self.metrics]))
        marks = [self.marks(metric) for metric in self.metrics]
        for m, method in enumerate(self.methods):
            cells = [
                f"{f'{self.means[m, q]:.3f}' + SIGNS[marks[q][m]]:<{len(metric)}}"
                for q, metric in enumerate(self.metrics)
            ]
            lines.append("  ".join([f"{method:<{width}}", *cells]).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from cfcam_core.evaluation.comparison_page import means_table

        return means_table(self)


def gather(
    settings: Mapping[str, Any],
    records: Mapping[str, Any],
    failures: Mapping[str, str],
    pictures: Mapping[str, NDArray[Any] | None],
) -> Comparison:
    """Return the comparison that finished images make up.

    Parameters
    ----------
    settings : mapping
        The journal's header.
    records : mapping of str to what `cfcam_core.evaluation.compare.measure` returns
        By image, as they come out of JSON.
    failures : mapping of str to str
    pictures : mapping of str to ndarray of shape (H, W, 3), or None
        Of the images that are shown.
    """
    methods, metrics = tuple(settings["methods"]), tuple(settings["metrics"])
    parts = [[record["methods"][m] for record in records.values()] for m in methods]
    shown = {
        name: tuple(unpacked(part["map"], part["shape"]) for part in record["methods"].values())
        for name, record in records.items()
        if name in pictures
    }
    return Comparison(
        methods=methods,
        metrics=metrics,
        images=tuple(records),
        values=np.array(
            [[[part["values"][q] for q in metrics] for part in row] for row in parts], np.float64
        ).reshape(len(methods), len(records), len(metrics)),
        targets=np.array([record["target"] for record in records.values()], np.intp),
        statuses=tuple(tuple(part["status"] for part in row) for row in parts),
        curves={
            q: Curves(
                np.array(parts[0][0]["curves"][q]["x"], np.float64),
                np.array([[part["curves"][q]["y"] for part in row] for row in parts], np.float64),
            )
            for q in metrics
            if q in parts[0][0]["curves"]
        },
        settings=json.loads(dumps(settings)),
        failures=MappingProxyType(dict(failures)),
        seconds=np.array([[part["seconds"] for part in row] for row in parts], np.float64),
        maps=MappingProxyType(shown),
        pictures=MappingProxyType(
            {name: None if p is None else small_picture(p) for name, p in pictures.items()}
        ),
    )


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the first axis of what is finite; NaN where nothing is."""
    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    sums = np.where(finite, values, 0).sum(axis=0)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))
