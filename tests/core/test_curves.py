import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.evaluation import deletion, insertion
from cfcam_core.pictures import BATCH

WEIGHTS = np.array([[4, 2], [1, -1]])
TOY = Linear(WEIGHTS[None, None])
ONES = np.ones((1, 1, 2, 2), np.float32)
HEAT = st.integers(0, 6)


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, float)))


def test_deletion_by_hand():
    curve = deletion(TOY, ONES, [[[4, 3], [2, 1]]], steps=4)
    expected = sigmoid([6, 2, 0, -1, 0])
    np.testing.assert_allclose(curve.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.probabilities, [expected], rtol=1e-6)
    area = (expected[1:-1].sum() + (expected[0] + expected[-1]) / 2) / 4
    np.testing.assert_allclose(curve.auc, [area], rtol=1e-6)


def test_insertion_by_hand():
    curve = insertion(TOY, ONES, [[[4, 3], [2, 1]]], steps=4, baseline=-1)
    np.testing.assert_allclose(curve.probabilities, [sigmoid([-6, 2, 6, 8, 6])], rtol=1e-6)


def test_equal_heat_goes_in_the_order_of_the_positions():
    curve = deletion(TOY, ONES, [[[1, 2], [2, 2]]], steps=4)
    np.testing.assert_allclose(curve.probabilities, [sigmoid([6, 4, 3, 4, 0])], rtol=1e-6)


def test_steps_round_to_whole_positions_and_are_not_more_than_these():
    curve = deletion(TOY, ONES, [[[4, 3], [2, 1]]], steps=3)
    np.testing.assert_allclose(curve.shares, [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(curve.probabilities, [sigmoid([6, 2, -1, 0])], rtol=1e-6)
    assert deletion(TOY, ONES, [[[4, 3], [2, 1]]]).shares.shape == (5,)


def test_defaults_delete_to_zero_and_insert_from_blur():
    rng = np.random.default_rng(0)
    toy = Linear(rng.normal(size=(3, 2, 6, 5)))
    x, heat = rng.normal(size=(2, 2, 6, 5)).astype("f"), rng.uniform(size=(2, 6, 5))
    for measure, name in ((deletion, "zero"), (insertion, "blur")):
        default = measure(toy, x, heat).auc
        np.testing.assert_array_equal(default, measure(toy, x, heat, baseline=name).auc)
        assert (default != measure(toy, x, heat, baseline="mean").auc).all()


@pytest.mark.parametrize("measure", [deletion, insertion])
def test_a_flat_map_has_no_curve_and_costs_nothing(measure):
    toy = Linear(WEIGHTS[None, None])
    heat = np.array([np.full((2, 2), 0.5), WEIGHTS, np.zeros((2, 2))])
    curve = measure(toy, np.repeat(ONES, 3, axis=0), heat, steps=4)
    assert np.isnan(curve.auc).tolist() == [True, False, True]
    assert np.isnan(curve.probabilities[0]).all()
    assert sum(toy.batches) == 3 + 5


@pytest.mark.parametrize("measure", [deletion, insertion])
@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
def test_samples_share_batches_and_do_not_touch_each_other(measure, size):
    rng = np.random.default_rng(1)
    toy = Linear(rng.normal(size=(4, 2, *size)))
    x, heat = rng.normal(size=(9, 2, *size)).astype("f"), rng.normal(size=(9, *size))
    calls = []
    together = measure(toy, x, heat, progress=lambda *c: calls.append(c))
    per_sample = len(together.shares)
    assert max(toy.batches) <= BATCH
    assert len(calls) == -(-9 * per_sample // BATCH)
    assert calls[-1] == (9 * per_sample, 9 * per_sample)
    for n in range(9):
        alone = measure(toy, x[n : n + 1], heat[n : n + 1])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[n])


def test_an_explanation_brings_its_targets():
    rng = np.random.default_rng(2)
    toy = Linear(rng.normal(size=(4, 2, 3, 4)))
    x = rng.normal(size=(3, 2, 3, 4)).astype("f")
    found = cfcam.explain(toy, x, target=[3, 0, 1], method="hires-cam")
    own = deletion(toy, x, found).auc
    np.testing.assert_array_equal(own, deletion(toy, x, found.heatmaps, target=[3, 0, 1]).auc)
    np.testing.assert_array_equal(
        deletion(toy, x, found, target=2).auc, deletion(toy, x, found.heatmaps, target=2).auc
    )
    assert (own != deletion(toy, x, found.heatmaps, target=2).auc).all()


@given(arrays(np.float32, (2, 3, 3), elements=HEAT), st.sampled_from([deletion, insertion]))
def test_only_the_order_counts_and_areas_are_shares(heat, measure):
    rng = np.random.default_rng(3)
    toy, x = Linear(rng.normal(size=(3, 1, 3, 3))), rng.normal(size=(2, 1, 3, 3))
    area = measure(toy, x, heat).auc
    np.testing.assert_array_equal(area, measure(toy, x, heat**3 - 5).auc)
    valued = area[~np.isnan(area)]
    assert ((valued >= 0) & (valued <= 1)).all()


@given(st.permutations(range(6)))
def test_the_true_order_is_the_best_where_every_position_speaks_for_the_class(order):
    weights = np.array([[6, 5, 4], [3, 2, 1]])
    toy, x = Linear(weights[None, None] / 4, -2.0), np.ones((1, 1, 2, 3))
    other = np.reshape(order, (1, 2, 3))
    assert deletion(toy, x, weights[None]).auc <= deletion(toy, x, other).auc + 1e-12
    best = insertion(toy, x, weights[None], baseline="zero").auc
    assert best >= insertion(toy, x, other, baseline="zero").auc - 1e-12


@pytest.mark.parametrize("measure", [deletion, insertion])
@pytest.mark.parametrize(
    ("heat", "how", "message"),
    [
        (np.ones((1, 1, 1)), {}, r"heatmaps have shape \(1, 1, 1\); wanted \(1, 2, 2\)"),
        (WEIGHTS, {}, r"pass heatmaps\[None\]"),
        (WEIGHTS[None], {"steps": 0}, "steps=0"),
        (WEIGHTS[None], {"steps": 2.5}, "steps=2.5"),
        (WEIGHTS[None], {"steps": True}, "steps=True"),
        (WEIGHTS[None], {"baseline": "noise"}, "no baseline 'noise'"),
        (WEIGHTS[None], {"target": 5}, "out of range"),
        (WEIGHTS[None], {"target": lambda s: 2.0 * s[:, 0]}, "probabilities belong to classes"),
    ],
)
def test_bad_arguments_are_refused(measure, heat, how, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        measure(TOY, ONES, heat, **how)


def test_an_explanation_of_no_class_asks_for_a_target():
    found = cfcam.explain_arrays(ONES, WEIGHTS[None, None], method="hires-cam")
    with pytest.raises(cfcam.InvalidInputError, match="pass target="):
        deletion(TOY, ONES, found)
    assert deletion(TOY, ONES, found, target=0).auc.shape == (1,)


@pytest.mark.parametrize("measure", [deletion, insertion])
def test_a_model_that_takes_channels_last_gives_the_same(measure):
    rng = np.random.default_rng(4)
    heads, x = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(3, 2, 4, 5)).astype("f")
    heat = rng.uniform(size=(3, 4, 5))
    last = Linear(heads, input_layout="channels_last")
    np.testing.assert_allclose(
        measure(last, np.moveaxis(x, 1, -1), heat).auc, measure(Linear(heads), x, heat).auc
    )
