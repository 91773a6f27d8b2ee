"""Robustness to noise as one HTML page: numbers, plots by severity and kind, tests, and words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cfcam_core import report
from cfcam_core.evaluation import plots
from cfcam_core.evaluation.comparison_page import WIDE, friedman_row, pairs_details, row
from cfcam_core.evaluation.noise_run import NoiseRun
from cfcam_core.evaluation.pairs import FEW, score
from cfcam_core.evaluation.statistics import MethodRanks, compare_ranks

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
        WIDE,
        *robustness_parts(run),
        *_failures(run),
    )


def robustness_parts(run: NoiseRun) -> Iterator[str]:
    """Yield what the page holds, for the page of a comparison, too."""
    yield report.paragraph(described(run))
    if run.undefined:
        yield report.paragraph(run.undefined)
    yield report.heading("Consistency, responsiveness, robustness")
    yield _scores(run)
    yield _plots(run)
    yield report.heading("Robustness by severity and kind")
    yield row(_by_severity(run))
    yield _by_kind(run)
    yield from _tests(run)
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
    chance = "" if np.isnan(run.found.chance) else f" (by chance {run.found.chance:.3f})"
    return (
        f"Maps compared by {compared}{chance} over {segments} segments "
        f"({given['segments']}); {', '.join(given['perturbations'])} at severities "
        f"{', '.join(map(str, plan.severities))}; layer {given['layer']}, preprocessing "
        f"{given['preprocess']}, seed {plan.seed}, cfcam {given['cfcam']}. "
        f"{run.found.images} images measured, {len(run.found.dropped)} of them dropped for having "
        f"a single segment, {len(run.failures)} failed."
    )


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
            s.same,
            s.changed,
            f"{s.degenerate:.0%}",
            f"fewer than {FEW} pairs of a kind" if s.few else "",
        )
        for s, e in zip(run.found.scores, ends, strict=True)
    ]
    heads = ("method", "consistency ↑", "responsiveness ↑", "robustness ↑", "pairs: class kept")
    note = report.paragraph(
        "In brackets: the middle 95 % of 1000 bootstrap draws of images. Flat: share of pairs in "
        "which a map is the same in every segment."
    )
    return report.table((*heads, "class changed", "flat", "note"), rows) + note


def _plots(run: NoiseRun) -> str:
    scores, ends = run.found.scores, run.found.bootstrap(seed=run.found.plan.seed)
    names = [s.method for s in scores]
    return row(
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


def _tests(run: NoiseRun) -> Iterator[str]:
    ranks = _ranks(run)
    if not ranks:
        return
    yield report.heading("Do the methods differ?")
    yield report.paragraph(
        "Images are the blocks; of each the mean over its pairs counts, and images without a pair "
        "of the kind are left out. Mean ranks: 1 is best; a bar joins methods that Wilcoxon's test "
        "with Holm's correction does not tell apart at .05."
    )
    yield report.table(
        ("measure", "images", "Friedman's chi-squared", "p", "note"),
        [friedman_row(name, each.friedman) for name, each in ranks.items()],
    )
    yield row(
        plots.critical_difference(f"{name}: mean ranks", each.names, each.mean_ranks, each.groups)
        for name, each in ranks.items()
    )
    for name, each in ranks.items():
        yield pairs_details(name, each)


def _failures(run: NoiseRun) -> Iterator[str]:
    if run.failures:
        yield report.heading("What failed")
        yield report.table(("image", "reason"), list(run.failures.items()))
