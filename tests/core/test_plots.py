"""Plots by hand: numbers land where they belong, text is escaped, nothing comes from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from cfcam_core.evaluation import plots, svg

NAN = float("nan")


def _parsed(drawn: str) -> ET.Element:
    assert "http" not in drawn
    return ET.fromstring(drawn)  # noqa: S314 - ours


def _texts(drawn: str) -> list[str]:
    return ["".join(each.itertext()) for each in _parsed(drawn).iter("text")]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (-0.3, 0.3, [-0.2, 0, 0.2]),
        (0.012, 0.019, [0.012, 0.014, 0.016, 0.018]),
        (3, 4, [3, 3.2, 3.4, 3.6, 3.8, 4]),
    ],
)
def test_ticks_are_round(low, high, wanted):
    assert svg.ticks(low, high) == pytest.approx(wanted)


def test_numbers_lie_where_the_axes_say():
    field = svg.Field((0, 2), (10, 20))
    assert field.px(0) == svg.LEFT
    assert field.px(2) == svg.LEFT + svg.WIDTH
    assert field.py(10) == svg.TOP + svg.HEIGHT
    assert field.py(15) == svg.TOP + svg.HEIGHT / 2
    assert field.path([0, 1, 2], [10, NAN, 20]).count(",") == 2


def test_curves_have_a_line_and_a_legend_a_name():
    x = np.linspace(0, 1, 21)
    drawn = plots.curves("a < b", ["one & two", "three"], x, [x, x**2], labels=("x", "y"))
    tree = _parsed(drawn)
    lines = [each.get("points").split() for each in tree.iter("polyline")]
    assert [len(points) for points in lines] == [21, 21]
    assert {"one & two", "three", "a < b", "x", "y"} <= set(_texts(drawn))
    assert tree.get("aria-label") == "a < b"
    ends = {each.get("stroke") for each in tree.iter("polyline")}
    assert len(ends) == 2


def test_every_series_looks_different():
    names = [f"method {i}" for i in range(24)]
    looks = {re.sub(r"(x|y|cx|cy)='[^']*'", "", svg.mark(i, 0, 0)) for i in range(24)}
    assert len(looks) == 24
    drawn = plots.curves("t", names, [0, 1], [np.array([0, i]) for i in range(24)], labels=("", ""))
    pairs = [(e.get("stroke"), e.get("stroke-dasharray")) for e in _parsed(drawn).iter("polyline")]
    assert len(set(pairs)) == 24


def test_a_product_without_a_value_keeps_its_name():
    drawn = plots.products("t", ["a", "b"], [0.5, NAN], [0.5, 0.2], labels=("x", "y"))
    assert "b (no value)" in _texts(drawn)
    assert sum(1 for _ in _parsed(drawn).iter("circle")) == 2 + 1  # the legend, and one point


def test_contours_are_where_the_product_is_the_level():
    drawn = plots.products("t", ["a"], [1.0], [1.0], labels=("x", "y"))
    field = svg.Field((0, 1), (0, 1))
    first = next(_parsed(drawn).iter("polyline")).get("points").split()
    for point in first:
        px, py = map(float, point.split(","))
        x = (px - field.px(0)) / svg.WIDTH
        y = (field.py(0) - py) / svg.HEIGHT
        assert x * y == pytest.approx(0.1, abs=2e-3)


def test_intervals_draw_what_there_is():
    drawn = plots.intervals(
        "t", ["a", "b", "c"], [0.5, 0.7, NAN], [(0.4, 0.6), (NAN, NAN), (NAN, NAN)], label="mean"
    )
    assert "no value" in _texts(drawn)
    assert sum(1 for _ in _parsed(drawn).iter("circle")) == 2


def test_critical_difference_orders_by_rank_and_joins_the_tied():
    drawn = plots.critical_difference("t", ["a", "b", "c"], [2.5, 1.0, 2.4], [[2, 0], [1]])
    texts = _texts(drawn)
    assert {"a (2.50)", "b (1.00)", "c (2.40)"} <= set(texts)
    bars = [e for e in _parsed(drawn).iter("line") if e.get("stroke-width") == "5"]
    assert len(bars) == 1
    assert float(bars[0].get("x1")) < float(bars[0].get("x2"))


@pytest.mark.parametrize("values", [[], [NAN, NAN], [0.3, 0.3], [0.0, 0.0], [-5e6, 1e-9]])
def test_odd_ranges_are_drawn(values):
    x = np.arange(len(values)) if values else np.arange(2)
    y = np.asarray(values) if values else np.full(2, NAN)
    _parsed(plots.curves("t", ["a"], x, [y], labels=("x", "y")))
