"""Comparisons: the numbers of the measures themselves, for the methods and classes asked for."""

from __future__ import annotations

import numpy as np
import pytest
from compared_toys import HEADS, INPUTS, MASKS, METHODS, compared
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, Settings, evaluation
from cfcam_core.evaluation import choices
from cfcam_core.evaluation.compare import compare
from cfcam_core.evaluation.metrics import METRICS
from cfcam_core.methods import METHODS as METHODS_BY_NAME


@pytest.fixture
def toy():
    return Toy(HEADS, shortcut=0.01)


def test_numbers_are_those_of_the_measures(toy):
    found = compared(toy)
    for m, method in enumerate(METHODS):
        for i in range(len(INPUTS)):
            one = INPUTS[i : i + 1]
            e = cfcam.explain(toy, one, method=method)
            wanted = (
                evaluation.energy_in_mask(e, MASKS[i : i + 1])[0],
                evaluation.class_sensitivity(toy, one, method=method).correlations[0],
                evaluation.keep_minus_delete(toy, one, e)[0],
                evaluation.sparseness(e)[0],
            )
            np.testing.assert_array_equal(found.values[m, i], wanted)
            assert found.statuses[m][i] == e.status[0]
            assert found.targets[i] == e.targets[0]


def test_curves_are_kept_for_every_map(toy):
    found = compared(toy, metrics=["deletion", "sparseness"])
    assert set(found.curves) == {"deletion"}
    e = cfcam.explain(toy, INPUTS[2:3], method="grad-cam")
    wanted = evaluation.deletion(toy, INPUTS[2:3], e)
    curves = found.curves["deletion"]
    np.testing.assert_array_equal(curves.x, wanted.shares)
    np.testing.assert_array_equal(curves.y[1, 2], wanted.probabilities[0])
    np.testing.assert_allclose(curves.means()[1], curves.y[1].mean(axis=0))


def test_gradient_methods_share_one_capture(toy, monkeypatch):
    captured = []
    whole = Toy.capture

    def counted(self, inputs, **more):
        captured.append(more.get("target"))
        return whole(self, inputs, **more)

    monkeypatch.setattr(Toy, "capture", counted)
    compare(toy, INPUTS[:1], methods=["grad-cam", "hires-cam", "layer-cam"], metrics=["sparseness"])
    assert len(captured) == 1 + 1  # the journal's look at the model, and the work itself


@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_methods_are_names_presets_or_settings(toy):
    mine = ("mine", "cf-cam", Settings(filter="none"))
    found = compare(
        toy, INPUTS, methods=["cf-cam", "cf-cam:paper", mine], metrics=["sparseness"], seed=3
    )
    assert found.methods == ("cf-cam", "cf-cam:paper", "mine")
    for m, settings in enumerate((Settings(), Settings.preset("paper"), mine[2])):
        for i in range(len(INPUTS)):
            e = cfcam.explain(toy, INPUTS[i : i + 1], settings=settings)
            np.testing.assert_array_equal(found.values[m, i, 0], evaluation.sparseness(e)[0])
    assert found.settings["methods"]["mine"]["settings"]["filter"] == "none"


def test_targets_are_one_for_all_or_one_each(toy):
    assert compared(toy, target=1).targets.tolist() == [1] * 5
    assert compared(toy, target=[0, 1, 2, 1, 0]).targets.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"methods": ["nope"]}, "no method 'nope'"),
        ({"methods": ["grad-cam:paper"]}, "only cf-cam has presets"),
        ({"methods": ["cf-cam:nope"]}, "no preset 'nope'"),
        ({"methods": ["grad-cam", "grad-cam"]}, "two methods are called 'grad-cam'"),
        ({"methods": []}, "no methods"),
        ({"methods": [("a", "b")]}, "is not understood"),
        ({"methods": [("a", "cf-cam", 3)]}, "settings of 'a' is a int"),
        ({"metrics": ["nope"]}, "no metric 'nope'"),
        ({"metrics": []}, "no metrics"),
        ({"masks": None}, "energy-in-mask: masks are needed"),
        ({"masks": MASKS[:2]}, "2 masks for 5 images"),
        ({"masks": {"9": MASKS[0]}}, "a mask for '9'"),
        ({"masks": MASKS[:, 0] | True}, "does not fit maps"),
        ({"target": [1, 2]}, "does not name classes"),
        ({"target": lambda s: s}, "does not name classes"),
        ({"target": 1.5}, "does not name classes"),
        ({"layer": ["maps"]}, "one layer"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.0}, "seed=1.0"),
        ({"preprocess": "nope"}, "no preprocessing"),
    ],
)
def test_what_is_not_understood_is_refused(toy, more, says):
    with pytest.raises(InvalidInputError, match=says):
        compared(toy, **more)


def test_the_defaults_ask_for_little():
    assert not any(METHODS_BY_NAME[n.partition(":")[0]].asks_model for n in _default())
    assert "cf-cam:reference" in _default()
    assert choices.default_metrics(masks=True) != choices.default_metrics(masks=False)
    assert set(choices.all_methods()) > set(_default())
    assert set(choices.all_metrics(masks=True)) == set(METRICS)


def _default():
    return choices.default_methods()
