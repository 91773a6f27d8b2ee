"""The long tables of ``docs/default.md``."""

from __future__ import annotations

import numpy as np
from contest import DEFAULT, FAMILY, FAST, SWEEP
from quality import PLACES
from truth import DATASETS
from verdicts import (
    MEASURES,
    Records,
    Values,
    Verdict,
    blanks,
    cell,
    label,
    means,
    robustness,
    targets,
    with_measure,
)

NETWORKS = ("digits", "MobileNetV2", "SqueezeNet")
RANKED = ("energy", "rank", "pointing")
SWEPT = {"energy": "energy", "rank": "rank", "pointing": "pointing", "kept": "kept", "class": "r"}


def robust_table(records: Records, place: str) -> str:
    """Return C, R and RM of every method at one layer."""
    found = {net: robustness(records, net, place) for net in NETWORKS}
    rows = []
    for name in FAMILY:
        numbers = []
        for each in found.values():
            score = each and {s.method: s for s in each.scores}.get(name)
            if not each or not score:
                numbers.append("")
                continue
            ends = {i.method: i.robustness for i in each.bootstrap()}[name]
            numbers.append(
                f"{score.consistency:.3f} x {score.responsiveness:.3f} = "
                f"{score.robustness:.3f} [{ends.low:.2f}, {ends.high:.2f}]"
            )
        rows.append(f"| {shown(name)} | {' | '.join(numbers)} |")
    heads = [
        f"{net} ({each.scores[0].same} pairs stay, {each.scores[0].changed} change)"
        for net, each in found.items()
        if each
    ]
    return f"| {place} layer | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}\n" + "\n".join(
        rows
    )


def full_table(
    records: Records,
    measure: str,
    place: str,
    together: dict[str, Values],
    verdict: Verdict,
) -> str:
    """Return one measure of every method on every data set, at one layer."""
    sets = with_measure(measure)
    values = [cell(records, each, place, measure) for each in sets]
    rows = []
    for name in FAMILY:
        columns = [each.get(name, np.zeros(0)) for each in [*values, together]]
        numbers = [number(column, len(column)) for column in columns[:-1]]
        numbers.append(number(columns[-1], verdict.blocks))
        rows.append(f"| {shown(name)} | {' | '.join(numbers)} |")
    heads = " | ".join([*map(label, sets), "all"])
    return (
        f"**{titled(measure)}, {place} layer**\n\n"
        f"| | {heads} |\n|---|{'---|' * (len(sets) + 1)}\n" + "\n".join(rows)
    )


def titled(measure: str) -> str:
    """Return a measure's name as a title."""
    name = MEASURES[measure]
    return name[0].upper() + name[1:]


def number(column: Values, full: int) -> str:
    """Return a mean, with the number of blocks where it is of a few only."""
    known = column[np.isfinite(column)]
    if not known.size:
        return ""
    return f"{known.mean():.3f}" + (f" ({known.size})" if known.size < 0.8 * full else "")


def shown(name: str) -> str:
    """Return a method's name, the default in bold."""
    return f"**{name} default**" if name == DEFAULT else name


def blank_words(records: Records) -> str:
    """Say which methods made blank maps."""
    found = {name: each for name, each in blanks(records, list(FAMILY)).items() if each[0]}
    return "; ".join(f"{name} {n} of {of}" for name, (n, of) in found.items()) or "none"


def secondary_table(records: Records) -> str:
    """Return energy, rank accuracy and pointing where they only accompany."""
    sets = [(each, place) for each in DATASETS if each.secondary for place in PLACES]
    rows = []
    for name in FAST:
        numbers = []
        for each, place in sets:
            means_of = [cell(records, each, place, m)[name] for m in RANKED]
            numbers.append(" / ".join(f"{np.nanmean(each):.2f}" for each in means_of))
        rows.append(f"| {shown(name)} | {' | '.join(numbers)} |")
    counts = {
        each: int(np.isfinite(cell(records, each, "last", "energy")[DEFAULT]).sum())
        for each, _ in sets
    }
    heads = " | ".join(f"{label(each)} ({counts[each]}), {place}" for each, place in sets)
    return f"| | {heads} |\n|---|{'---|' * len(sets)}\n" + "\n".join(rows)


def swept(records: Records) -> dict[str, list[float]]:
    """Return the means of every setting that was tried, in the order of the table's columns."""
    return {
        name: [
            float(
                np.mean(
                    [
                        np.nanmean(means(targets(records, "sweep", each, place, name, measure=m)))
                        for each in with_measure(m)
                        if "noisy" not in each.name
                    ]
                )
            )
            for place in PLACES
            for m in SWEPT
        ]
        for name in SWEEP
    }


def sweep(records: Records) -> dict[str, list[str]]:
    """Return the same as text."""
    return {
        f"`{name}`" if "=" in name else f"**{name}**": [f"{n:.3f}" for n in row]
        for name, row in swept(records).items()
    }


def sweep_words(records: Records) -> str:
    """Say what single changes cost, and what is best in each column."""
    found = swept(records)
    default = found["the default"]
    columns = [f"{m}, {place}" for place in PLACES for m in SWEPT.values()]
    ranks = [k for k, column in enumerate(columns) if column.startswith("rank")]
    costs = {
        name: sum(row[k] - default[k] for k in ranks) / len(ranks)
        for name, row in found.items()
        if name.count("=") == 1
    }
    ordered = sorted(costs, key=lambda name: costs[name])
    signs = [-1 if column.startswith("r,") else 1 for column in columns]
    nowhere_worse = [
        name
        for name, row in found.items()
        if name != "the default"
        and all(s * round(a - b, 3) >= 0 for s, a, b in zip(signs, row, default, strict=True))
    ]
    parts = []
    for k, (column, sign) in enumerate(zip(columns, signs, strict=True)):
        best = max(found, key=lambda name: sign * found[name][k])
        ahead = sum(sign * row[k] > sign * default[k] for row in found.values())
        parts.append(
            f"- {column}: `{best}` {found[best][k]:.3f}, the default {default[k]:.3f}; "
            f"{ahead} of {len(found) - 1} are better than the default"
        )
    return (
        "Single changes by what they do to rank accuracy, mean of both layers: "
        + ", ".join(f"`{name}` {costs[name]:+.3f}" for name in ordered)
        + ".\nIn no column worse than the default, by three decimals: "
        + (", ".join(f"`{name}`" for name in nowhere_worse) or "no other row")
        + ".\n\nThe best of each column (no test; differences of 0.01 mean little):\n\n"
        + "\n".join(parts)
    )
