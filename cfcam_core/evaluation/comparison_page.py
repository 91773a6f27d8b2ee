"""A comparison as one HTML page: numbers, maps side by side, curves, tests, and what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape

import numpy as np

from cfcam_core import png, report
from cfcam_core.evaluation import plots
from cfcam_core.evaluation.comparison import Comparison
from cfcam_core.evaluation.differences import differences
from cfcam_core.evaluation.headlines import counted, headline, summary
from cfcam_core.evaluation.metrics import METRICS
from cfcam_core.evaluation.noise_run import NoiseRun
from cfcam_core.evaluation.robustness_page import robustness_parts
from cfcam_core.evaluation.thumbnails import SIDE, laid_over

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
SIGNS = {"best": "", "tied": "\u00a0≈", "": ""}


def comparison_page(
    found: Comparison, labels: Mapping[int, str], robustness: NoiseRun | None = None
) -> str:
    """Return the whole page, with the robustness of the same methods if that was measured."""
    noise: Iterable[str] = ()
    if robustness is not None:
        noise = (report.heading("Robustness to noise"), *robustness_parts(robustness))
    return report.page(
        f"cfcam compare: {counted(len(found.methods), 'method')} on "
        f"{counted(len(found.images), 'image')}",
        report.WIDE,
        *(report.paragraph(each) for each in headline(found)),
        report.paragraph(summary(found)),
        report.heading("Means"),
        means_table(found),
        report.paragraph(LEGEND),
        report.heading("Maps side by side"),
        maps_table(found, labels),
        *_curves(found),
        *_intervals(found),
        *differences("Do the methods differ?", found.ranks, BLOCKS),
        report.heading("What the numbers say"),
        _meanings(found),
        *noise,
        *_failures(found),
    )


BLOCKS = (
    "Friedman's test asks whether any method differs; images are the blocks, and those without a "
    "value by every method are left out."
)
LEGEND = (
    "Bold: the best mean. ≈: not told apart from the best by Wilcoxon's signed-rank test with "
    "Holm's correction at .05, images as blocks. In brackets: the middle 95 % of 1000 bootstrap "
    "draws of images. ↑: more is better, ↓: less is. A small number under a mean says how many "
    "images have a value, where other methods have one for more."
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
        rows.append(cells)
    note = (
        "<p>* the median time, with the pass that gives activations and gradients; it is no part "
        "of what the seed reproduces.</p>"
        if timed
        else ""
    )
    return report.table_of(columns, rows) + note


def _mean(found: Comparison, m: int, q: int, mark: str) -> str:
    mean, interval = found.means[m, q], found.intervals[m][q]
    if not np.isfinite(mean):
        return "<td class='number'>no value</td>"
    shown = f"{mean:.3f}{SIGNS[mark]}"
    strong = f"<b>{shown}</b>" if mark == "best" else shown
    count = int(found.counts[m, q])
    fewer = count < found.counts[:, q].max()
    few = f"<br><small>{count} of {len(found.images)}</small>" if fewer else ""
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
        rows.append(cells)
    rest = len(found.images) - len(found.maps)
    more = report.paragraph(f"and {counted(rest, 'more image')}, not shown") if rest else ""
    style = (
        "<style>.maps td,.maps th{padding:2px 4px;vertical-align:top;font-size:.75rem;"
        f"font-weight:400;max-width:{SIDE + 8}px;overflow-wrap:anywhere}}"
        f".maps img{{width:{SIDE}px}}</style>"
    )
    table = report.table_of(["image", *found.methods], rows)
    return f"{style}<div class='maps'>{table}</div>{more}"


def _image(picture: np.ndarray, text: str) -> str:
    return f"<img alt='{escape(text)}' src='{png.data_uri(picture)}' loading='lazy'>"


def _curves(found: Comparison) -> Iterator[str]:
    if found.curves:
        yield report.heading("Curves")
        yield report.row(
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
    yield report.row(
        plots.intervals(
            name + ARROWS[found.better(name)],
            found.methods,
            found.means[:, q].tolist(),
            [(row[q].low, row[q].high) for row in found.intervals],
            label="mean, and the middle 95 % of bootstrap draws",
        )
        for q, name in enumerate(found.metrics)
    )


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
