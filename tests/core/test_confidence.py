import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.evaluation import (
    average_drop,
    average_gain,
    average_increase,
    deletion,
    insertion,
    keep_minus_delete,
    masked_confidence,
)

WEIGHTS = np.array([[4, 2], [1, -1]])
TOY = Linear(WEIGHTS[None, None])
ONES = np.ones((1, 1, 2, 2), np.float32)
MEASURES = [average_drop, average_increase, average_gain, keep_minus_delete]


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def test_a_fall_by_hand():
    heat = [[[1, 0], [0, 2]]]  # half of 4, and all of -1: 1 instead of 6
    y, o = sigmoid(6), sigmoid(1)
    found = masked_confidence(TOY, ONES, heat)
    np.testing.assert_allclose([found.before, found.after], [[y], [o]], rtol=1e-6)
    np.testing.assert_allclose(average_drop(TOY, ONES, heat), [(y - o) / y], rtol=1e-6)
    assert average_increase(TOY, ONES, heat) == [0]
    assert average_gain(TOY, ONES, heat) == [0]


def test_a_rise_by_hand():
    heat = [[[1, 1], [1, 0]]]
    y, o = sigmoid(6), sigmoid(7)
    assert average_drop(TOY, ONES, heat) == [0]
    assert average_increase(TOY, ONES, heat) == [1]
    np.testing.assert_allclose(average_gain(TOY, ONES, heat), [(o - y) / (1 - y)], rtol=1e-4)


def test_the_baseline_is_what_is_seen_where_the_map_is_zero():
    heat = [[[2, 1], [0, 0]]]  # 4, half of 2, and of the baseline 3: half of 2, 1 and -1
    found = masked_confidence(TOY, ONES, heat, baseline=3)
    np.testing.assert_allclose(found.after, sigmoid(4 + 1 + 3), rtol=1e-6)


def test_no_rise_and_no_fall_is_neither():
    assert average_increase(TOY, ONES, [[[1, 1], [1, 1]]]) == [0]
    assert average_drop(TOY, ONES, [[[1, 1], [1, 1]]]) == [0]


def test_keep_minus_delete_by_hand():
    heat = [[[4, 3], [2, 1]]]
    found = keep_minus_delete(TOY, ONES, heat, share=0.25, baseline="zero")
    np.testing.assert_allclose(found, sigmoid(4) - sigmoid(2), rtol=1e-6)
    assert keep_minus_delete(TOY, ONES, heat, share=1, baseline=0)[0] == pytest.approx(
        sigmoid(6) - 0.5
    )


def test_keep_minus_delete_leaves_cold_positions_alone():
    heat = [[[0, 0], [0, 2]]]  # kept: -1 alone; deleted: the other three, not 4 by its index
    found = keep_minus_delete(TOY, ONES, heat, share=0.5, baseline=0)
    np.testing.assert_allclose(found, sigmoid(-1) - sigmoid(7), rtol=1e-6)


def test_keep_minus_delete_is_a_point_of_both_curves():
    rng = np.random.default_rng(0)
    toy = Linear(rng.normal(size=(3, 2, 6, 5)))
    x, heat = rng.normal(size=(4, 2, 6, 5)).astype("f"), rng.uniform(size=(4, 6, 5))
    kept = insertion(toy, x, heat, steps=5, baseline="blur").probabilities[:, 1]
    left = deletion(toy, x, heat, steps=5, baseline="blur").probabilities[:, 1]
    np.testing.assert_allclose(keep_minus_delete(toy, x, heat), kept - left, rtol=1e-12)


def test_blank_maps_have_no_value_and_cost_nothing():
    toy = Linear(WEIGHTS[None, None])
    heat = np.array([np.zeros((2, 2)), WEIGHTS, np.full((2, 2), -1), np.ones((2, 2))])
    x = np.repeat(ONES, 4, axis=0)
    for measure in MEASURES[:3]:
        toy.batches.clear()
        values = measure(toy, x, heat)
        assert np.isnan(values).tolist() == [True, False, True, False]
        assert sum(toy.batches) == 4 + 2
    values = keep_minus_delete(toy, x, heat)
    assert np.isnan(values).tolist() == [True, False, True, True]


def test_certainty_leaves_nothing_to_gain_and_impossibility_nothing_to_lose():
    toy = Linear(np.array([[[2000.0]], [[0.0]]]))
    x, heat = np.ones((1, 1, 1)), np.ones((1, 1))
    assert np.isnan(average_gain(toy, x, heat, target=0))
    assert np.isnan(average_drop(toy, x, heat, target=1))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
def test_samples_do_not_touch_each_other(measure, size):
    rng = np.random.default_rng(1)
    toy = Linear(rng.normal(size=(4, 2, *size)))
    x, heat = rng.normal(size=(40, 2, *size)).astype("f"), rng.normal(size=(40, *size))
    calls = []
    together = measure(toy, x, heat, progress=lambda *c: calls.append(c))
    assert together.shape == (40,)
    assert calls[-1][0] == calls[-1][1]
    alone = [measure(toy, x[n : n + 1], heat[n : n + 1])[0] for n in range(40)]
    np.testing.assert_array_equal(together, alone)


@given(arrays(np.float32, (2, 3, 3), elements=st.integers(-2, 6)))
def test_ranges_and_scale(heat):
    rng = np.random.default_rng(2)
    toy, x = Linear(rng.normal(size=(3, 1, 3, 3))), rng.normal(size=(2, 1, 3, 3))
    found = masked_confidence(toy, x, heat)
    np.testing.assert_array_equal(found.after, masked_confidence(toy, x, heat * 4).after)
    np.testing.assert_array_equal(np.isnan(found.drop), heat.max(axis=(1, 2)) <= 0)
    valued = heat.max(axis=(1, 2)) > 0
    assert ((found.drop >= 0) & (found.drop <= 1))[valued].all()
    assert ((found.gain >= 0) & (found.gain <= 1))[valued].all()
    np.testing.assert_array_equal(found.increase[valued] == 1, (found.gain > 0)[valued])
    assert not ((found.drop > 0) & (found.gain > 0)).any()


@pytest.mark.parametrize("measure", MEASURES)
def test_bad_arguments_are_refused(measure):
    with pytest.raises(cfcam.InvalidInputError, match="at its size"):
        measure(TOY, ONES, np.ones((1, 3, 3)))
    with pytest.raises(cfcam.InvalidInputError, match="no baseline 'grey'"):
        measure(TOY, ONES, [WEIGHTS], baseline="grey")
    with pytest.raises(cfcam.InvalidInputError, match="out of range"):
        measure(TOY, ONES, [WEIGHTS], target=1)
