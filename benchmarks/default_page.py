"""The page ``docs/default.md``: every number in it comes from what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from contest import DEFAULT, FAMILY, FAST, NOISES, OVERLAP, SHARE
from default_tables import (
    SWEPT,
    blank_words,
    full_table,
    robust_table,
    secondary_table,
    shown,
    sweep,
    sweep_words,
)
from quality import NOISY, PLACES, SLOW_MOSAICS, SWEPT_MOSAICS
from truth import CROPS, DATASETS, MOSAIC_MAPS
from verdicts import (
    LEAST,
    LOWER_IS_BETTER,
    MEASURES,
    Records,
    Verdict,
    cell,
    label,
    on_cell,
    pooled,
    with_measure,
)

from cfcam_core.settings import Settings

SHOWN = 5e-4
"""Difference that three decimals show."""

TEMPLATE = Path(__file__).with_suffix(".md")


def page(records: Records) -> str:
    """Return the whole page."""
    decided = {(m, place): pooled(records, place, m) for m in MEASURES for place in PLACES}
    verdicts = [verdict for _, verdict in decided.values()]
    primary = [each for each in DATASETS if not each.secondary]
    alone = {
        (m, place, each): on_cell(records, each, place, m)
        for m in MEASURES
        for place in PLACES
        for each in with_measure(m)
    }
    class_sets = with_measure("class")
    behind = [each for each in alone.values() if each is not None and each.ahead]
    count = {each.name: each.count for each in primary}
    return TEMPLATE.read_text().format(
        sigma=Settings().sigma_agreement,
        dominant=Settings().dominant_percentile,
        summary=summary(verdicts),
        verdicts="\n".join(map(verdict_line, verdicts)),
        cell_heads=" | ".join(map(label, primary)),
        cell_rule="---|" * len(primary),
        cells="\n".join(
            f"| {MEASURES[m]} | {place} | "
            + " | ".join(short(alone.get((m, place, each))) for each in primary)
            + " |"
            for m in MEASURES
            for place in PLACES
        ),
        trailing="\n".join(map(trailing, behind)),
        lower=lower([each for each in alone.values() if each is not None]),
        trade_offs=trade_offs(alone.values()),
        public=f"{public_correlation(records):.3f}",
        class_words=against([decided["class", place][1] for place in PLACES], "grad-cam"),
        robust_words=against([decided["robust", place][1] for place in PLACES], "grad-cam++"),
        class_heads=" | ".join(f"{label(e)}, {place}" for place in PLACES for e in class_sets),
        class_rule="---|" * 2 * len(class_sets),
        classes="\n".join(class_line(records, name) for name in FAST),
        overlap=OVERLAP,
        noises=", ".join(name.replace("_", " ") for name in NOISES),
        robust_counts=" and ".join(
            f"{n} {'digit scenes' if net == 'digits' else f'photographs for {net}'}"
            for net, n in NOISY.items()
        ),
        robust="\n\n".join(robust_table(records, place) for place in PLACES),
        tables="\n\n".join(
            full_table(records, m, place, *decided[m, place])
            for m in MEASURES
            if m != "robust"
            for place in PLACES
        ),
        blanks=blank_words(records),
        crops=11,
        secondary=secondary_table(records),
        sweep_heads=" | ".join(f"{m}, {place}" for place in PLACES for m in SWEPT.values()),
        sweep_rule="---|" * 2 * len(SWEPT),
        sweep="\n".join(f"| {name} | {' | '.join(row)} |" for name, row in sweep(records).items()),
        sweep_words=sweep_words(records),
        scenes=count["digit scenes"],
        mosaics=count["mosaics"],
        photographs=count["photographs"],
        maps=" x ".join(map(str, MOSAIC_MAPS)),
        crops_each=CROPS,
        share=f"{SHARE:.0%}",
        swept_mosaics=SWEPT_MOSAICS,
        slow_mosaics=SLOW_MOSAICS,
        least=LEAST,
        versions=f"onnxruntime {version('onnxruntime')}, NumPy {version('numpy')}",
        minutes=sum(record["seconds"] for record in records.values()) / 60,
    )


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count the verdicts in words."""
    words = [verdict.word for verdict in verdicts]
    parts = [f"{word} in {words.count(word)}" for word in ("first", "tied for first", "behind")]
    return f"Over all data sets, of {len(words)} pairs of measure and layer: {', '.join(parts)}."


def verdict_line(verdict: Verdict) -> str:
    """Return one line of the table of verdicts."""
    best = verdict.best
    return (
        f"| {MEASURES[verdict.measure]} | {verdict.place} | {verdict.mine:.3f} | "
        f"{best.theirs:.3f} ({best.other}) | **{verdict.word}** | {deciding(verdict)} | "
        f"{verdict.blocks} |"
    )


def deciding(verdict: Verdict) -> str:
    """Name the methods that decide a verdict."""
    if verdict.ahead:
        return "; ".join(
            f"{p.other} {p.theirs:.3f}, p {p_value(p.adjusted)}" for p in verdict.ahead
        )
    if verdict.level:
        return "; ".join(
            f"{p.other} {p.theirs:.3f}, p {p_value(p.adjusted)}"
            + (f", {p.blocks} blocks" if p.blocks < verdict.blocks else "")
            for p in verdict.level
        )
    nearest = max(verdict.pairs, key=lambda pair: pair.adjusted)
    return f"all others, p {p_value(nearest.adjusted)}".replace("p =", "p at most")


def against(verdicts: Sequence[Verdict], other: str) -> str:
    """Say how the default stands against one method at either layer."""
    parts = []
    for verdict in verdicts:
        pair = next(pair for pair in verdict.pairs if pair.other == other)
        how = (
            "not told apart" if pair.adjusted >= 0.05 else "better" if pair.effect > 0 else "worse"
        )
        parts.append(
            f"{verdict.place} layer {pair.mine:.3f} against {pair.theirs:.3f}, {how} "
            f"(p {p_value(pair.adjusted)}, {pair.blocks} blocks)"
        )
    return f"Against {other}, the three networks together: {'; '.join(parts)}."


def p_value(p: float) -> str:
    """Return p with a sign before it."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def short(verdict: Verdict | None) -> str:
    """Return a verdict as a cell of a table."""
    if verdict is None:
        return ""
    ahead = f" ({verdict.ahead[0].other} {verdict.ahead[0].theirs:.3f})" if verdict.ahead else ""
    word = {"tied for first": "tied"}.get(verdict.word, verdict.word)
    return f"{verdict.mine:.3f} {word}{ahead}"


def trailing(verdict: Verdict) -> str:
    """Say what is ahead of the default on one data set."""
    others = "; ".join(
        f"{pair.other} {pair.theirs:.3f}"
        + (f" against {pair.mine:.3f} on {pair.blocks} blocks" if pair.other not in FAST else "")
        + f" (p {p_value(pair.adjusted)})"
        for pair in verdict.ahead
    )
    return (
        f"- {MEASURES[verdict.measure]}, {verdict.where}, {verdict.place} layer, default "
        f"{verdict.mine:.3f}: {others}."
    )


def lower(verdicts: Sequence[Verdict]) -> str:
    """List where another method has the better mean, though no test puts it ahead."""
    parts = []
    for each in verdicts:
        sign = -1 if each.measure in LOWER_IS_BETTER else 1
        if not each.ahead and sign * each.best.theirs > sign * each.mine + SHOWN:
            parts.append(
                f"{MEASURES[each.measure]}, {each.where}, {each.place} layer ({each.mine:.3f}; "
                f"{each.best.other} {each.best.theirs:.3f})"
            )
    return "; ".join(parts) or "nowhere"


def trade_offs(verdicts: Sequence[Verdict | None]) -> str:
    """Say how often each method is ahead of the default, and behind it."""
    known = [each for each in verdicts if each is not None]
    lines = []
    for name in FAMILY:
        pairs = [pair for each in known for pair in each.pairs if pair.other == name]
        better = sum(pair.adjusted < 0.05 and pair.effect < 0 for pair in pairs)
        worse = sum(pair.adjusted < 0.05 and pair.effect > 0 for pair in pairs)
        if name != DEFAULT:
            lines.append(f"| {name} | {better} | {worse} | {len(pairs) - better - worse} |")
    head = "| method | ahead of the default | behind it | not told apart |\n|---|---|---|---|\n"
    return (
        f"Of all {len(known)} comparisons, a measure at a layer on a data set:\n\n{head}"
        + "\n".join(lines)
    )


def public_correlation(records: Records) -> float:
    """Return the least correlation of two classes' maps under the public code's settings."""
    return min(
        float(np.nanmin(cell(records, each, place, "class")[f"{DEFAULT} reference"]))
        for each in with_measure("class")
        for place in PLACES
    )


def class_line(records: Records, name: str) -> str:
    """Return a method's correlations of two classes."""
    numbers = [
        np.nanmean(cell(records, each, place, "class")[name])
        for place in PLACES
        for each in with_measure("class")
    ]
    return f"| {shown(name)} | {' | '.join(f'{n:.3f}' for n in numbers)} |"
