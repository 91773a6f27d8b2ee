"""Plots as SVG by hand: no script, no font, no other file. Every function returns a string.

Colours are those of Okabe and Ito, which colour-blind people tell apart; where they run out, dashes
and the shape of the marks go on. Names are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.evaluation.svg import (
    COLOURS,
    LETTER,
    TOP,
    Field,
    axes,
    colour_of,
    dash_of,
    drawing,
    mark,
    number,
    round_range,
    stroke,
    ticks,
    with_legend,
)
from cfcam_core.evaluation.svg import (
    label as text,
)


def curves(
    title: str,
    names: Sequence[str],
    x: ArrayLike,
    ys: Sequence[NDArray[np.floating]],
    *,
    labels: tuple[str, str],
    low: float | None = None,
    high: float | None = None,
) -> str:
    """Return one line a name over a shared x, with a legend.

    Parameters
    ----------
    title : str
    names : sequence of str
    x : array_like of shape (P,)
    ys : sequence of ndarray of shape (P,)
        One for each name; NaN is left out.
    labels : (str, str)
        What x and y are.
    low, high : float, optional
        Ends of the y axis. Default: round numbers around the values.
    """
    places = np.asarray(x, float)
    field = Field((float(places.min()), float(places.max())), round_range(ys, low, high))
    drawn = [
        f"<polyline points='{field.path(places, y)}' fill='none' stroke='{colour_of(i)}' "
        f"stroke-width='2' stroke-dasharray='{dash_of(i)}'/>"
        for i, y in enumerate(ys)
    ]
    if len(places) <= 10:
        drawn += [
            mark(i, field.px(a), field.py(b))
            for i, y in enumerate(ys)
            for a, b in zip(places, y, strict=True)
            if np.isfinite(b)
        ]
    return with_legend(title, names, [*axes(field, labels), *drawn], lines=True)


def products(
    title: str,
    names: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    *,
    labels: tuple[str, str],
) -> str:
    """Return points in the unit square over contours on which ``x * y`` is the same.

    Where x or y is NaN there is no point; the legend keeps the name and says so.
    """
    field = Field((0, 1), (0, 1))
    drawn = []
    for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        along = np.linspace(level, 1, 40)
        drawn.append(
            f"<polyline points='{field.path(along, level / along)}' fill='none' stroke='#ccc'/>"
        )
        drawn.append(text(field.px(1) + 3, field.py(level) + 4, f".{level * 10:.0f}", size=10))
    known = np.isfinite(x) & np.isfinite(y)
    drawn += [
        mark(i, field.px(x[i]), field.py(y[i]), size=6) for i in np.flatnonzero(known).tolist()
    ]
    legend = [
        name if there else f"{name} (no value)" for name, there in zip(names, known, strict=True)
    ]
    return with_legend(title, legend, [*axes(field, labels), *drawn], gap=24)


def intervals(
    title: str,
    names: Sequence[str],
    centres: Sequence[float],
    ends: Sequence[tuple[float, float]],
    *,
    label: str,
) -> str:
    """Return a dot and its interval for each name, one below the other."""
    low, high = round_range([np.asarray(centres), np.asarray(ends)], None, None)
    left = 16 + LETTER * max(map(len, names))
    step, width = 22, 260
    bottom = TOP + step * len(names)

    def px(value: float) -> float:
        return left + width * (value - low) / (high - low)

    parts = [
        f"<line x1='{px(t):.1f}' y1='{TOP}' x2='{px(t):.1f}' y2='{bottom}' stroke='#e4e4e4'/>"
        + text(px(t), bottom + 16, number(t), anchor="middle", size=11)
        for t in ticks(low, high, 5)
    ]
    for i, (name, centre, (start, end)) in enumerate(zip(names, centres, ends, strict=True)):
        y = TOP + step * (i + 0.5)
        parts.append(text(left - 8, y + 4, name, anchor="end"))
        if not np.isfinite(centre):
            parts.append(text(left + 4, y + 4, "no value", size=11))
            continue
        if np.isfinite([start, end]).all():
            parts.append(
                f"<line x1='{px(start):.1f}' y1='{y}' x2='{px(end):.1f}' y2='{y}' "
                f"stroke='{colour_of(i)}' stroke-width='2'/>"
            )
        parts.append(mark(i, px(centre), y))
    parts.append(text(left + width / 2, bottom + 34, label, anchor="middle", size=11))
    return drawing(title, left + width + 24, bottom + 42, parts)


def critical_difference(
    title: str, names: Sequence[str], ranks: Sequence[float], tied: Sequence[Sequence[int]]
) -> str:
    """Return mean ranks on an axis, the best at the left, a bar below those that are tied.

    Parameters
    ----------
    title : str
    names : sequence of str
    ranks : sequence of float
        Mean rank of each name; 1 is best.
    tied : sequence of sequence of int
        Groups of indices between which no difference was found; those of one are passed over.
    """
    count = len(names)
    side = 28 + LETTER * max(map(len, names)) + 40
    width, top, step = 320.0, TOP + 26, 20
    order = sorted(range(count), key=lambda i: ranks[i])
    bars = [sorted(group, key=lambda i: ranks[i]) for group in tied if len(group) > 1]
    half = (count + 1) // 2
    below = top + 10 + 9 * len(bars)

    def px(rank: float) -> float:
        return side + width * (rank - 1) / max(count - 1, 1)

    parts = [f"<line x1='{px(1)}' y1='{top}' x2='{px(count)}' y2='{top}' stroke='#222'/>"]
    for rank in range(1, count + 1):
        parts.append(stroke(px(rank), top - 5, px(rank), top))
        parts.append(text(px(rank), top - 9, str(rank), anchor="middle", size=11))
    for place, i in enumerate(order):
        on_left = place < half
        row = place if on_left else count - 1 - place
        x, y = px(ranks[i]), below + step * (row + 0.7)
        edge = side - 14 if on_left else side + width + 14
        parts.append(
            f"<polyline points='{x:.1f},{top} {x:.1f},{y:.1f} {edge:.1f},{y:.1f}' fill='none' "
            "stroke='#888'/>"
        )
        label = f"{names[i]} ({ranks[i]:.2f})"
        anchor = "end" if on_left else "start"
        parts.append(text(edge + (-4 if on_left else 4), y + 4, label, anchor=anchor))
    for row, bar in enumerate(bars):
        y = top + 9 * (row + 1)
        start, end = px(ranks[bar[0]]) - 4, px(ranks[bar[-1]]) + 4
        parts.append(stroke(start, y, end, y, width=5, colour=COLOURS[0]))
    return drawing(title, 2 * side + width, below + step * half + 14, parts)
