"""A comparison as one HTML page: numbers, maps side by side, curves, tests, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape

import numpy as np

from cfcam_core import png, report
from cfcam_core.evaluation import plots
from cfcam_core.evaluation.comparison import Comparison
from cfcam_core.evaluation.metrics import METRICS
from cfcam_core.evaluation.noise_run import NoiseRun
from cfcam_core.evaluation.statistics import FriedmanTest, MethodRanks
from cfcam_core.evaluation.thumbnails import SIDE, laid_over

WIDE = "<style>body{max-width:88rem}p{max-width:70rem}</style>"
"""Room for many columns."""
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
SIGNS = {"best": "", "tied": "\u00a0≈", "": ""}
BLIND = 0.99
"""Mean correlation of the maps of two classes from which a method is called class-blind (ours)."""


def comparison_page(
    found: Comparison, labels: Mapping[int, str], robustness: NoiseRun | None = None
) -> str:
    """Return the whole page, with the robustness of the same methods if that was measured."""
    from cfcam_core.evaluation.robustness_page import robustness_parts

    noise: Iterable[str] = ()
    if robustness is not None:
        noise = (report.heading("Robustness to noise"), *robustness_parts(robustness))
    return report.page(
        f"cfcam compare: {_count(len(found.methods), 'method')} on "
        f"{_count(len(found.images), 'image')}",
        WIDE,
        report.paragraph(summary(found)),
        *(report.paragraph(each) for each in headline(found)),
        report.heading("Means"),
        means_table(found),
        report.paragraph(LEGEND),
        *(report.paragraph(each) for each in few_images(found)),
        report.heading("Maps side by side"),
        maps_table(found, labels),
        *_curves(found),
        *_intervals(found),
        *_tests(found),
        report.heading("What the numbers say"),
        _meanings(found),
        *noise,
        *_failures(found),
    )


LEGEND = (
    "Bold: the best mean. ≈: not told apart from the best by Wilcoxon's signed-rank test with "
    "Holm's correction at .05, images as blocks. In brackets: the middle 95 % of 1000 bootstrap "
    "draws of images. ↑: more is better, ↓: less is. A small number under a mean says how many "
    "images have a value, where some have none."
)


def summary(found: Comparison) -> str:
    """Say what was compared on what."""
    given = found.settings
    missing = len(found.failures)
    left_out = [name for name in METRICS if name not in found.metrics]
    more = f" Not measured: {', '.join(left_out)}." if left_out else ""
    return (
        f"Layer {given.get('layer') or 'chosen by the model'}, preprocessing "
        f"{given.get('preprocess')}, seed {given.get('seed')}, cfcam {given.get('cfcam')}. "
        f"{_count(len(found.images), 'image')} compared, {missing} failed.{more}"
    )


def headline(found: Comparison) -> Iterator[str]:
    """Say how class-sensitive the methods are, if that was measured."""
    if "class-sensitivity" not in found.metrics:
        return
    means = found.means[:, found.metrics.index("class-sensitivity")]
    known = [m for m in np.argsort(means, kind="stable").tolist() if np.isfinite(means[m])]
    if not known:
        return
    most = known[0]
    yield (
        "Class sensitivity, the correlation of the maps of two classes: most class-sensitive is "
        f"{found.methods[most]} with {means[most]:.3f}."
    )
    blind = [m for m in known if means[m] >= BLIND]
    if blind:
        names = ", ".join(f"{found.methods[m]} ({means[m]:.3f})" for m in blind)
        yield f"Class-blind, the same map whatever class is asked for: {names}."


def few_images(found: Comparison) -> Iterator[str]:
    """Say so where there are too few images for any difference to be shown."""
    least = found.least_images
    if len(found.methods) > 1 and len(found.images) < least:
        yield (
            f"To tell any two of {len(found.methods)} methods apart, the tests need {least} images "
            f"or more: with {len(found.images)} all are tied."
        )


def means_table(found: Comparison) -> str:
    """Return the means with their intervals, the best in bold."""
    heads = [name + ARROWS[found.better(name)] for name in found.metrics]
    timed = found.seconds is not None
    columns = ["method", *heads, *(["ms a map*"] if timed else [])]
    marks = [found.marks(name) for name in found.metrics]
    rows = []
    for m, method in enumerate(found.methods):
        cells = [f"<th scope='row' style='white-space:nowrap'>{escape(method)}</th>"]
        cells += [_mean(found, m, q, marks[q][m]) for q in range(len(found.metrics))]
        if found.seconds is not None:
            cells.append(f"<td class='number'>{1000 * np.median(found.seconds[m]):.0f}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    note = (
        "<p>* the median time, with the pass that gives activations and gradients; it is no part "
        "of what the seed reproduces.</p>"
        if timed
        else ""
    )
    return _table(columns, rows) + note


def _mean(found: Comparison, m: int, q: int, mark: str) -> str:
    mean, interval = found.means[m, q], found.intervals[m][q]
    if not np.isfinite(mean):
        return "<td class='number'>no value</td>"
    shown = f"{mean:.3f}{SIGNS[mark]}"
    strong = f"<b>{shown}</b>" if mark == "best" else shown
    count = int(found.counts[m, q])
    few = f"<br><small>{count} of {len(found.images)}</small>" if count < len(found.images) else ""
    ends = f"<br><small>[{interval.low:.3f},\u00a0{interval.high:.3f}]</small>"
    return f"<td class='number'>{strong}{ends}{few}</td>"


def maps_table(found: Comparison, labels: Mapping[int, str]) -> str:
    """Return the maps: a row an image, a column a method."""
    rows = []
    for name, maps in found.maps.items():
        picture = found.pictures.get(name)
        i = found.images.index(name)
        called = labels.get(int(found.targets[i]), "").split(",")[0]  # without synonyms
        caption = f"{escape(name)}<br>class {found.targets[i]} {escape(called)}"
        cells = [
            f"<th scope='row'>{'' if picture is None else _image(picture, name)}{caption}</th>"
        ]
        for m, small in enumerate(maps):
            status = found.statuses[m][i]
            why = "" if status == "ok" else f"<br>{escape(report.BLANK.get(status, status))}"
            drawn = _image(laid_over(small, picture), f"{found.methods[m]} of {name}")
            cells.append(f"<td>{drawn}{why}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    rest = len(found.images) - len(found.maps)
    more = report.paragraph(f"and {_count(rest, 'more image')}, not shown") if rest else ""
    style = (
        "<style>.maps td,.maps th{padding:2px 4px;vertical-align:top;font-size:.75rem;"
        f"font-weight:400;max-width:{SIDE + 8}px;overflow-wrap:anywhere}}"
        f".maps img{{width:{SIDE}px}}</style>"
    )
    return f"{style}<div class='maps'>{_table(['image', *found.methods], rows)}</div>{more}"


def _image(picture: np.ndarray, text: str) -> str:
    return f"<img alt='{escape(text)}' src='{png.data_uri(picture)}' loading='lazy'>"


def _curves(found: Comparison) -> Iterator[str]:
    if found.curves:
        yield report.heading("Curves")
        yield row(
            plots.curves(
                f"{name}: mean over the images",
                found.methods,
                each.x,
                list(each.means()),
                labels=("share of the picture, hottest first", "probability of the class"),
                low=0,
            )
            for name, each in found.curves.items()
        )


def _intervals(found: Comparison) -> Iterator[str]:
    yield report.heading("How sure the means are")
    yield row(
        plots.intervals(
            name + ARROWS[found.better(name)],
            found.methods,
            found.means[:, q].tolist(),
            [(row[q].low, row[q].high) for row in found.intervals],
            label="mean, and the middle 95 % of bootstrap draws",
        )
        for q, name in enumerate(found.metrics)
    )


def _tests(found: Comparison) -> Iterator[str]:
    if len(found.methods) < 2 or not found.ranks:
        return
    yield report.heading("Do the methods differ?")
    yield report.paragraph(
        "Friedman's test asks whether any method differs; images are the blocks, and those without "
        "a value by every method are left out. Mean ranks: 1 is best; a bar joins methods that "
        "Wilcoxon's test with Holm's correction does not tell apart at .05."
    )
    yield report.table(
        ("metric", "images", "Friedman's chi-squared", "p", "note"),
        [friedman_row(name, ranks.friedman) for name, ranks in found.ranks.items()],
    )
    yield row(
        plots.critical_difference(
            f"{name}: mean ranks", ranks.names, ranks.mean_ranks, ranks.groups
        )
        for name, ranks in found.ranks.items()
        if np.isfinite(ranks.mean_ranks).all()
    )
    for name, ranks in found.ranks.items():
        yield pairs_details(name, ranks)


def friedman_row(name: str, test: FriedmanTest) -> tuple[object, ...]:
    """Return the cells of Friedman's test: name, images, statistic, p, and why there is none."""
    known = np.isfinite(test.statistic)
    statistic = f"{test.statistic:.2f}" if known else "-"
    return (name, test.blocks, statistic, _p(test.p_value), test.reason)


def pairs_details(name: str, ranks: MethodRanks) -> str:
    """Return Wilcoxon's test for every pair, folded away."""
    return f"<details><summary>{escape(name)}: every pair</summary>{pairs_table(ranks)}</details>"


def pairs_table(ranks: MethodRanks) -> str:
    """Return Wilcoxon's test for every pair."""
    rows = [
        (t.first, t.second, _p(t.p_value), _p(t.adjusted), float(t.effect), t.differing)
        for t in ranks.pairs
    ]
    heads = ("first", "second", "p", "p after Holm", "effect (+1: first better)", "images")
    return report.table(heads, rows)


def _meanings(found: Comparison) -> str:
    rows = []
    for name in found.metrics:
        metric = METRICS.get(name)
        better = {"higher": "more", "lower": "less", None: "neither"}[found.better(name)]
        rows.append((name, better, metric.about if metric else "", metric.source if metric else ""))
    return report.table(("metric", "better is", "what it says", "source"), rows)


def _failures(found: Comparison) -> Iterator[str]:
    if found.failures:
        yield report.heading("What failed")
        yield report.table(("image", "reason"), list(found.failures.items()))


def row(drawings: Iterable[str]) -> str:
    """Return drawings side by side, as many as fit."""
    return "<div class='row'>" + "".join(f"<div>{each}</div>" for each in drawings) + "</div>"


def _table(columns: list[str], rows: list[str]) -> str:
    head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in columns)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f"<div style='overflow-x:auto'><table>{body}</table></div>"


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.1e}" if value < 0.0005 else f"{value:.3f}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
