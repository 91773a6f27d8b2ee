"""Robustness to noise as one HTML page: numbers, plots by severity and kind, tests, and words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cfcam_core import report
from cfcam_core.evaluation import plots
from cfcam_core.evaluation.differences import differences
from cfcam_core.evaluation.noise_run import NoiseRun
from cfcam_core.evaluation.pairs import FEW, score
from cfcam_core.evaluation.statistics import MethodRanks, compare_ranks

BLOCKS = (
    "Images are the blocks; of each the mean over its pairs counts, and images without a pair of "
    "the kind are left out."
)
MEANING = (
    "Each picture is changed by noise of several kinds and strengths. Consistency: how alike the "
    "maps of the clean and the changed picture are where the model's prediction stays; 1 is best. "
    "Responsiveness: 1 minus the same where the prediction changes, for then the map should move, "
    "too. Robustness is their product. Each map explains its own prediction. Maps are compared by "
    "the order of their segments. The idea is that of arXiv 2508.18154; formulas, severities and "
    "edge cases are ours."
)


def robustness_page(run: NoiseRun) -> str:
    """Return the whole page."""
    found = run.found
    methods = len(found.plan.methods)
    return report.page(
        f"cfcam robustness: {methods} methods on {found.images} images",
        report.WIDE,
        *robustness_parts(run),
        *_failures(run),
    )


def robustness_parts(run: NoiseRun) -> Iterator[str]:
    """Yield what the page holds, for the page of a comparison, too."""
    yield report.paragraph(described(run))
    for line in headline(run):
        yield report.paragraph(line)
    yield report.heading("Consistency, responsiveness, robustness")
    yield _scores(run)
    yield _plots(run)
    yield report.heading("Robustness by severity and kind")
    yield report.row(_by_severity(run))
    yield _by_kind(run)
    yield from differences("Do the methods differ under noise?", _ranks(run), BLOCKS)
    yield report.heading("What robustness says")
    yield report.paragraph(MEANING)


def described(run: NoiseRun) -> str:
    """Say what was measured, p included, and what the level of chance is."""
    plan, given = run.found.plan, run.settings
    ranked = plan.similarity == "rbo"
    compared = f"rank-biased overlap with p = {plan.p:g}" if ranked else plan.similarity
    counts = run.found.segments or (0,)
    least, most = min(counts), max(counts)
    segments = f"{least}" if least == most else f"{least} to {most}"
    level = run.found.chance
    chance = (
        ""
        if np.isnan(level)
        else f" (by chance: consistency {level:.3f}, responsiveness {1 - level:.3f}, robustness "
        f"{level * (1 - level):.3f})"
    )
    return (
        f"Maps compared by {compared}{chance} over {segments} segments "
        f"({given['segments']}); {', '.join(given['perturbations'])} at severities "
        f"{', '.join(map(str, plan.severities))}; layer {given['layer']}, preprocessing "
        f"{given['preprocess']}, seed {plan.seed}, cfcam {given['cfcam']}. "
        f"{run.found.images} images measured, {len(run.found.dropped)} of them dropped for having "
        f"a single segment, {len(run.failures)} failed."
    )


def headline(run: NoiseRun) -> Iterator[str]:
    """Say what to know first: the best, what it is not clear of, and on how many pairs this rests.

    The predictions, and so the numbers of pairs, are the same for all methods.
    """
    found = run.found
    first = found.scores[0]
    few = f"; fewer than {FEW} of a kind: read these numbers with care" if first.few else ""
    yield f"{first.same} pairs kept the class, {first.changed} changed it{few}."
    if found.pairs.undefined:
        yield f"Note: {found.pairs.undefined}."
        return
    ends = [each.robustness for each in found.bootstrap(seed=found.plan.seed)]
    best = int(np.nanargmax([score.robustness for score in found.scores]))
    near = [
        score.method
        for m, score in enumerate(found.scores)
        if m != best and ends[m].high >= ends[best].low
    ]
    more = f"; intervals that overlap with its own: {', '.join(near)}" if near else ""
    top = found.scores[best]
    yield f"Highest robustness: {top.method} with {top.robustness:.3f}{more}."


def _scores(run: NoiseRun) -> str:
    ends = run.found.bootstrap(seed=run.found.plan.seed)
    rows = [
        (
            s.method,
            *(
                f"{getattr(s, name):.3f}\u00a0[{getattr(e, name).low:.3f},\u00a0"
                f"{getattr(e, name).high:.3f}]"
                if np.isfinite(getattr(s, name))
                else "no value"
                for name in ("consistency", "responsiveness", "robustness")
            ),
            f"{s.degenerate:.0%}",
        )
        for s, e in zip(run.found.scores, ends, strict=True)
    ]
    heads = ("method", "consistency ↑", "responsiveness ↑", "robustness ↑", "flat")
    note = report.paragraph(
        "In brackets: the middle 95 % of 1000 bootstrap draws of images. Flat: share of pairs in "
        "which a map is the same in every segment."
    )
    return report.table(heads, rows) + note


def _plots(run: NoiseRun) -> str:
    scores, ends = run.found.scores, run.found.bootstrap(seed=run.found.plan.seed)
    names = [s.method for s in scores]
    return report.row(
        [
            plots.products(
                "Robustness is constant along the gray lines",
                names,
                [s.responsiveness for s in scores],
                [s.consistency for s in scores],
                labels=("responsiveness", "consistency"),
            ),
            plots.intervals(
                "robustness ↑",
                names,
                [s.robustness for s in scores],
                [(e.robustness.low, e.robustness.high) for e in ends],
                label="value, and the middle 95 % of bootstrap draws",
            ),
        ]
    )


def _by_severity(run: NoiseRun) -> Iterator[str]:
    pairs, plan = run.found.pairs, run.found.plan
    for name in ("consistency", "responsiveness"):
        lines = []
        for method in plan.methods:
            at = [score(method, pairs.where(pairs.severity == s)) for s in plan.severities]
            lines.append(np.array([getattr(each, name) for each in at]))
        if len(plan.severities) > 1 and np.isfinite(lines).any():
            yield plots.curves(
                f"{name} by severity",
                list(plan.methods),
                plan.severities,
                lines,
                labels=("severity", name),
                low=0 if plan.similarity == "rbo" else None,
                high=1 if plan.similarity == "rbo" else None,
            )


def _by_kind(run: NoiseRun) -> str:
    kinds = run.found.by_perturbation()
    rows = [
        (
            method,
            *(_three(scores[m].robustness, scores[m].consistency) for scores in kinds.values()),
        )
        for m, method in enumerate(run.found.plan.methods)
    ]
    note = report.paragraph(
        "Robustness, and in brackets consistency alone, for each kind of noise. Class changed in: "
        + ", ".join(
            f"{scores[0].changed} of {scores[0].same + scores[0].changed} ({name})"
            for name, scores in kinds.items()
        )
        + "."
    )
    return report.table(("method", *kinds), rows) + note


def _three(robustness: float, consistency: float) -> str:
    first = f"{robustness:.3f}" if np.isfinite(robustness) else "no value"
    return f"{first} ({consistency:.3f})" if np.isfinite(consistency) else first


def _ranks(run: NoiseRun) -> dict[str, MethodRanks]:
    found = {}
    for name in ("consistency", "responsiveness"):
        table = run.found.per_image(name)
        if len(run.found.plan.methods) > 1 and np.isfinite(table).all(axis=1).any():
            found[name] = compare_ranks(table, list(run.found.plan.methods))
    return found


def _failures(run: NoiseRun) -> Iterator[str]:
    if run.failures:
        yield report.heading("What failed")
        yield report.table(("image", "reason"), list(run.failures.items()))
