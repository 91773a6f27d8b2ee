"""The table of metrics: each gives what its own function gives, and users can add their own."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, evaluation
from cfcam_core.evaluation.metrics import (
    METRICS,
    Case,
    Metric,
    Reading,
    find_metric,
    register_metric,
)

PICTURE = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) / 8
HEADS = np.array([[1.0, -0.5, 0.2], [-0.4, 0.3, 0.1], [0.2, 0.1, 0.3]]) / 8


def _case(method="grad-cam", mask=None, heads=HEADS, target=None, seed=0):
    model = Toy(heads)

    def of_class(k):
        return cfcam.explain(model, PICTURE, method=method, target=k)

    scores = model.scores(PICTURE)[0]
    target = int(scores.argmax()) if target is None else target
    return Case(model, PICTURE, scores, of_class(target), of_class, mask, seed)


@pytest.fixture
def table(monkeypatch):
    """A table that a test may add to."""
    own = dict(evaluation.metrics._TABLE)
    monkeypatch.setattr(evaluation.metrics, "_TABLE", own)
    monkeypatch.setattr(evaluation.metrics, "METRICS", MappingProxyType(own))


def test_each_is_its_own_function():
    mask = np.eye(4, dtype=bool)
    case = _case("hires-cam", mask)
    model, e = case.backend, case.explanation
    twins = {
        "energy-in-mask": evaluation.energy_in_mask(e, mask[None]),
        "rank-accuracy": evaluation.rank_accuracy(e, mask[None]),
        "pointing-game": evaluation.pointing_game(e, mask[None]),
        "class-sensitivity": evaluation.class_sensitivity(
            model, PICTURE, method="hires-cam"
        ).correlations,
        "keep-minus-delete": evaluation.keep_minus_delete(model, PICTURE, e),
        "insertion": evaluation.insertion(model, PICTURE, e).auc,
        "deletion": evaluation.deletion(model, PICTURE, e).auc,
        "road": evaluation.road(model, PICTURE, e),
        "average-drop": evaluation.average_drop(model, PICTURE, e),
        "average-increase": evaluation.average_increase(model, PICTURE, e),
        "average-gain": evaluation.average_gain(model, PICTURE, e),
        "sparseness": evaluation.sparseness(e),
        "complexity": evaluation.complexity(e),
        "published-drop": evaluation.published_drop(model, PICTURE, e),
        "published-gain": [np.nan],  # the pictures are gray
    }
    assert set(twins) == set(METRICS)
    for name, metric in METRICS.items():
        found = metric.function(case)
        value = found.value if isinstance(found, Reading) else found
        assert isinstance(value, float), name
        np.testing.assert_array_equal(value, twins[name][0], err_msg=name)
        if name != "published-gain":
            assert np.isfinite(value), name


def test_curves_come_with_their_areas():
    case = _case()
    for name in ("insertion", "deletion"):
        found = METRICS[name].function(case)
        assert found.value == np.trapezoid(found.y, found.x)
        assert (found.x[0], found.x[-1]) == (0, 1)


def test_the_picture_is_asked_about_once_for_three_metrics():
    case = _case()
    METRICS["average-drop"].function(case)
    asked = len(case.backend.asked)
    METRICS["average-increase"].function(case)
    METRICS["average-gain"].function(case)
    assert len(case.backend.asked) == asked


def test_without_a_mask_there_is_no_value():
    case = _case()
    for name, metric in METRICS.items():
        if metric.needs_mask:
            assert np.isnan(metric.function(case)), name


@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_a_blank_map_has_no_value_and_points_at_nothing():
    heads = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])  # both classes: nowhere positive
    case = _case(mask=np.ones((4, 4), bool), heads=heads, target=0)
    assert case.explanation.status == ("all_negative",)
    for name, metric in METRICS.items():
        found = metric.function(case)
        value = found.value if isinstance(found, Reading) else found
        np.testing.assert_array_equal(value, 0 if name == "pointing-game" else np.nan, name)


def test_sensitivity_compares_with_another_class_whatever_is_explained():
    """The other class is the sixth, or the last, or the best if that is the one explained."""
    for target in range(3):
        case = _case(target=target)
        order = np.argsort(-case.scores, kind="stable")
        other = order[2] if order[2] != target else order[0]
        wanted = evaluation.map_correlation(case.explanation, case.of_class(int(other)))[0]
        assert METRICS["class-sensitivity"].function(case) == wanted
    assert np.isnan(METRICS["class-sensitivity"].function(_case(heads=HEADS[:1])))


def test_a_map_that_ignores_the_class_correlates_fully():
    assert METRICS["class-sensitivity"].function(_case("eigen-cam")) == pytest.approx(1)
    assert METRICS["class-sensitivity"].function(_case("random")) == pytest.approx(1)


def test_every_metric_says_what_it_says():
    for metric in METRICS.values():
        assert metric.about.endswith(".")
        assert metric.source
        assert metric.better in {"higher", "lower", None}


@pytest.mark.usefixtures("table")
def test_users_add_their_own():
    register_metric("peak", lambda case: float(case.explanation.heatmaps.max()), better=None)
    assert isinstance(find_metric("peak"), Metric)
    assert find_metric("peak").function(_case()) == 1
    with pytest.raises(InvalidInputError, match="there is a metric 'peak' already"):
        register_metric("peak", lambda case: 0.0, better=None)
    with pytest.raises(InvalidInputError, match="there is a metric 'road' already"):
        register_metric("road", lambda case: 0.0, better=None)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", len), "no name"),
        (("a", 3), "function is a int"),
        (("a", len, "up"), "better='up'"),
    ],
)
def test_what_is_no_metric_is_refused(arguments, says):
    name, function, better = (*arguments, None)[:3]
    with pytest.raises(InvalidInputError, match=says):
        register_metric(name, function, better=better)


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(InvalidInputError, match=r"no metric 'auc'; allowed are energy-in-mask"):
        find_metric("auc")


@pytest.mark.usefixtures("table")
def test_what_is_no_number_is_refused():
    register_metric("words", lambda _: "many", better=None)
    with pytest.raises(
        InvalidInputError, match="the metric 'words' returned a str; wanted a float"
    ):
        evaluation.compare(Toy(HEADS), PICTURE, methods="grad-cam", metrics="words")
