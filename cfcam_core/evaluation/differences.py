"""The part of a page that says whether methods really differ: tests, mean ranks, every pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

import numpy as np

from cfcam_core import report
from cfcam_core.evaluation import plots
from cfcam_core.evaluation.statistics import FriedmanTest, MethodRanks


def differences(title: str, ranks: Mapping[str, MethodRanks], blocks: str) -> Iterator[str]:
    """Yield the tests of each measure; `blocks` says what they count. Nothing for one method."""
    ranks = {name: each for name, each in ranks.items() if len(each.names) > 1}
    if not ranks:
        return
    yield report.heading(title)
    yield report.paragraph(
        f"{blocks} Mean ranks: 1 is best; a bar joins methods that Wilcoxon's test with Holm's "
        "correction does not tell apart at .05."
    )
    yield report.table(
        ("measure", "images", "Friedman's chi-squared", "p", "note"),
        [_friedman(name, each.friedman) for name, each in ranks.items()],
    )
    yield report.row(
        plots.critical_difference(f"{name}: mean ranks", each.names, each.mean_ranks, each.groups)
        for name, each in ranks.items()
        if np.isfinite(each.mean_ranks).all()
    )
    for name, each in ranks.items():
        yield _pairs(name, each)


def _friedman(name: str, test: FriedmanTest) -> tuple[object, ...]:
    """Return the cells of Friedman's test: name, images, statistic, p, and why there is none."""
    known = np.isfinite(test.statistic)
    statistic = f"{test.statistic:.2f}" if known else "-"
    return (name, test.blocks, statistic, _p(test.p_value), test.reason)


def _pairs(name: str, ranks: MethodRanks) -> str:
    """Return Wilcoxon's test for every pair, folded away."""
    heads = ("first", "second", "p", "p after Holm", "effect (+1: first better)", "images")
    rows = [
        (t.first, t.second, _p(t.p_value), _p(t.adjusted), float(t.effect), t.differing)
        for t in ranks.pairs
    ]
    table = report.table(heads, rows)
    return f"<details><summary>{escape(name)}: every pair</summary>{table}</details>"


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.1e}" if value < 0.0005 else f"{value:.3f}"
