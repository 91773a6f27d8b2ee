"""The parts that plots are made of: colours and marks, axes with round numbers, text, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#8c6d1f")
DASHES = ("none", "6 3", "2 3")
MARKS = ("circle", "square", "diamond")
LETTER = 7.2
"""Width of a letter at 12 pixels, about."""
WIDTH, HEIGHT = 380, 260
"""Size of the field that a plot draws in, without its labels."""
LEFT, TOP, BOTTOM = 56, 30, 46
"""Room for the labels."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where numbers lie on the drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        """Return the place of an x."""
        return LEFT + WIDTH * (value - self.x[0]) / (self.x[1] - self.x[0])

    def py(self, value: float) -> float:
        """Return the place of a y; up is more."""
        return TOP + HEIGHT * (1 - (value - self.y[0]) / (self.y[1] - self.y[0]))

    def path(self, x: ArrayLike, y: ArrayLike) -> str:
        """Return the points of a line through numbers; NaN is left out."""
        pairs = zip(np.asarray(x, float), np.asarray(y, float), strict=True)
        return " ".join(
            f"{self.px(a):.1f},{self.py(b):.1f}" for a, b in pairs if np.isfinite([a, b]).all()
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, about `count` of them.

    Examples
    --------
    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    scale = 10.0 ** floor(log10(rough))
    step = next(s * scale for s in (1, 2, 5, 10) if s * scale >= rough * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def mark(index: int, x: float, y: float, *, size: float = 4) -> str:
    """Return the mark of the series of that index: its colour, and its shape."""
    colour = f"fill='{colour_of(index)}' stroke='#fff' stroke-width='.8'"
    shape = MARKS[index // len(COLOURS) % len(MARKS)]
    if shape == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{size}' {colour}/>"
    turn = f" transform='rotate(45 {x:.1f} {y:.1f})'" if shape == "diamond" else ""
    corner = f"x='{x - size:.1f}' y='{y - size:.1f}' width='{2 * size}' height='{2 * size}'"
    return f"<rect {corner} {colour}{turn}/>"


def colour_of(index: int) -> str:
    """Return the colour of the series of that index."""
    return COLOURS[index % len(COLOURS)]


def dash_of(index: int) -> str:
    """Return the dashes of its line."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


def round_range(
    ys: Sequence[NDArray[np.floating]], low: float | None, high: float | None
) -> tuple[float, float]:
    """Return round ends around all finite values."""
    values = (
        np.concatenate([np.ravel(np.asarray(y, float)) for y in ys]) if len(ys) else np.zeros(0)
    )
    values = values[np.isfinite(values)]
    least = low if low is not None else float(values.min(initial=np.inf))
    most = high if high is not None else float(values.max(initial=-np.inf))
    if not np.isfinite([least, most]).all():
        return 0.0, 1.0
    if most - least <= 1e-9 * max(abs(most), 1e-12):
        least, most = least - (low is None) * 0.5, most + 0.5
    step = np.diff(ticks(least, most)[:2])[0]
    return (
        least if low is not None else floor(least / step + 1e-9) * step,
        most if high is not None else ceil(most / step - 1e-9) * step,
    )


def axes(field: Field, labels: tuple[str, str]) -> list[str]:
    """Return the frame with its grid, the numbers, and what the axes are."""
    parts = []
    for t in ticks(*field.x):
        x = field.px(t)
        parts.append(stroke(x, TOP, x, TOP + HEIGHT, colour="#e4e4e4"))
        parts.append(label(x, TOP + HEIGHT + 16, number(t), anchor="middle", size=11))
    for t in ticks(*field.y):
        y = field.py(t)
        parts.append(stroke(LEFT, y, LEFT + WIDTH, y, colour="#e4e4e4"))
        parts.append(label(LEFT - 6, y + 4, number(t), anchor="end", size=11))
    frame = f"x='{LEFT}' y='{TOP}' width='{WIDTH}' height='{HEIGHT}'"
    parts.append(f"<rect {frame} fill='none' stroke='#888'/>")
    parts.append(label(LEFT + WIDTH / 2, TOP + HEIGHT + 36, labels[0], anchor="middle"))
    middle = TOP + HEIGHT / 2
    turned = f" transform='rotate(-90 14 {middle})'"
    parts.append(label(14, middle, labels[1], anchor="middle", more=turned))
    return parts


def with_legend(
    title: str, names: Sequence[str], parts: Sequence[str], *, lines: bool = False, gap: float = 12
) -> str:
    """Return a drawing with a legend at its right, in the order of the names."""
    left = LEFT + WIDTH + gap
    legend = []
    for i, name in enumerate(names):
        y = TOP + 10 + 19 * i
        if lines:
            dash = f" stroke-dasharray='{dash_of(i)}'"
            legend.append(stroke(left, y, left + 24, y, width=2, colour=colour_of(i), more=dash))
        else:
            legend.append(mark(i, left + 12, y, size=5))
        legend.append(label(left + 30, y + 4, name))
    width = left + 40 + LETTER * max(map(len, names), default=0)
    height = max(TOP + HEIGHT + BOTTOM, TOP + 20 + 19 * len(names))
    return drawing(title, width, height, [*parts, *legend])


def drawing(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """Return the whole drawing; the title is also what a screen reader says."""
    name = escape(title)
    heading = f"<text x='8' y='16' font-size='13' font-weight='600' fill='#222'>{name}</text>"
    wide = max(width, 24 + 7.6 * len(title))
    return (
        f"<svg role='img' aria-label='{name}' "
        f"width='{wide:.0f}' height='{height:.0f}' viewBox='0 0 {wide:.0f} {height:.0f}' "
        "font-family='system-ui,sans-serif' font-size='12'>"
        f"<title>{name}</title>{heading}{''.join(parts)}</svg>"
    )


def label(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, more: str = ""
) -> str:
    """Return a text; `more` are further attributes."""
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' font-size='{size}'"
    return f"<text {place} fill='#222'{more}>{escape(text)}</text>"


def stroke(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    width: float = 1,
    colour: str = "#222",
    more: str = "",
) -> str:
    """Return a straight line; `more` are further attributes."""
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='{colour}' stroke-width='{width}'{more}/>"


def number(value: float) -> str:
    """Return a number as axes show it."""
    return f"{value:.4g}"
