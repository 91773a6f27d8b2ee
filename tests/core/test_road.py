import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.evaluation import road
from cfcam_core.evaluation.road import _dissected, filled_in
from cfcam_core.pictures import BATCH

RNG = np.random.default_rng(0)


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def test_one_missing_pixel_is_the_weighted_mean_of_its_neighbours():
    picture = np.arange(18, dtype=np.float32).reshape(2, 3, 3) ** 2
    gone = np.zeros((3, 3), bool)
    gone[1, 1] = True
    weights = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12
    expected = (weights * picture).sum(axis=(1, 2))
    np.testing.assert_allclose(filled_in(picture, gone)[:, 1, 1], expected, rtol=1e-6)
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True
    by_hand = (2 * picture[:, 0, 1] + 2 * picture[:, 1, 0] + picture[:, 1, 1]) / 5
    np.testing.assert_allclose(filled_in(picture, corner)[:, 0, 0], by_hand, rtol=1e-6)


def test_a_gap_in_a_signal_is_bridged_by_a_straight_line():
    signal = np.array([[1, 0, 0, 7, 7]], np.float32)
    gone = np.array([False, True, True, False, True])
    np.testing.assert_allclose(filled_in(signal, gone), [[1, 3, 5, 7, 7]], rtol=1e-6)


def test_the_weights_of_a_volume():
    volume = RNG.normal(size=(1, 3, 3, 3)).astype("f")
    gone = np.zeros((3, 3, 3), bool)
    gone[1, 1, 1] = True
    moved = np.abs(np.indices((3, 3, 3)) - 1).sum(axis=0)
    weights = np.array([0, 1 / 14, 1 / 28, 1 / 56])[moved]
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        filled_in(volume, gone)[0, 1, 1, 1], (weights * volume[0]).sum(), 1e-5
    )


@given(arrays(bool, (5, 6)))
def test_known_values_stay_constants_stay_and_nothing_is_exceeded(gone):
    gone[2, 3] = False
    picture = np.random.default_rng(1).normal(size=(2, 5, 6)).astype("f")
    out = filled_in(picture, gone)
    np.testing.assert_array_equal(out[:, ~gone], picture[:, ~gone])
    known = picture[:, ~gone]
    assert (out.max(axis=(1, 2)) <= known.max(axis=1) + 1e-5).all()
    assert (out.min(axis=(1, 2)) >= known.min(axis=1) - 1e-5).all()
    np.testing.assert_allclose(filled_in(np.full((1, 5, 6), 3, "f"), gone), 3, rtol=1e-6)
    np.testing.assert_allclose(filled_in(3 * picture, gone), 3 * out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1,), (9,), (2, 1), (17, 12), (5, 6, 7)])
def test_positions_are_eliminated_each_once_and_lines_after_what_they_part(size):
    order = _dissected(size)
    np.testing.assert_array_equal(np.sort(order), np.arange(np.prod(size)))
    if size == (17, 12):
        np.testing.assert_array_equal(order[-12:], np.arange(8 * 12, 9 * 12))


def test_where_all_is_missing_nothing_can_be_filled_in():
    with pytest.raises(cfcam.InvalidInputError, match="nothing to fill in from"):
        filled_in(np.ones((1, 2, 2), "f"), np.ones((2, 2), bool))


def test_by_hand():
    toy = Linear(np.array([[[4, 2, 1]]]))
    signal = np.array([[[1, 2, 4]]], "f")
    # hottest gone: 2, 2, 4 and so 16 of 12; coldest gone: 1, 2, 2 and so 10
    found = road(toy, signal, [[3, 2, 1]], percentages=[33], noise=0)
    np.testing.assert_allclose(found, (sigmoid(10) - sigmoid(16)) / 2, rtol=1e-3)
    both = road(toy, signal, [[3, 2, 1]], percentages=[33, 67], noise=0)
    late = road(toy, signal, [[3, 2, 1]], percentages=[67], noise=0)
    np.testing.assert_allclose(both, (found + late) / 2)


def test_a_turned_map_scores_the_opposite():
    toy = Linear(RNG.normal(size=(3, 2, 6, 5)))
    x, heat = RNG.normal(size=(4, 2, 6, 5)).astype("f"), RNG.uniform(size=(4, 6, 5))
    there, back = road(toy, x, heat, noise=0), road(toy, x, 1 - heat, noise=0)
    np.testing.assert_allclose(there, -back, atol=1e-12)
    assert (np.abs(there) > 1e-3).all()


def test_pointing_at_a_bump_is_better_than_at_random():
    weights, bump = np.zeros((8, 8)), np.zeros((8, 8))
    weights[2:4, 2:4] = 1
    bump[2:4, 2:4] = 5
    toy = Linear(weights[None, None], -10.0)
    x = RNG.normal(0, 0.1, (1, 1, 8, 8)) + bump
    right = road(toy, x, bump[None] + RNG.uniform(size=(1, 8, 8)))
    assert right > 0.3
    assert right > road(toy, x, RNG.uniform(size=(1, 8, 8)))


def test_noise_is_seeded_and_reaches_only_what_is_filled_in():
    toy = Linear(RNG.normal(size=(3, 2, 6, 5)))
    x, heat = RNG.normal(size=(4, 2, 6, 5)).astype("f"), RNG.uniform(size=(4, 6, 5))
    seen = []
    toy_scores = toy.scores
    toy.scores = lambda inputs: seen.append(np.array(inputs)) or toy_scores(inputs)
    first = road(toy, x, heat, percentages=[40], noise=0.5)
    changed = seen[-1].reshape(4, 2, 2, 6, 5) != x[:, None]
    assert (changed.all(axis=2).sum(axis=(2, 3)) == 12).all()
    assert (changed.any(axis=2).sum(axis=(2, 3)) == 12).all()
    np.testing.assert_array_equal(first, road(toy, x, heat, percentages=[40], noise=0.5))
    assert (first != road(toy, x, heat, percentages=[40], noise=0.5, seed=1)).all()
    assert (first != road(toy, x, heat, percentages=[40], noise=0)).all()


@pytest.mark.parametrize("size", [(7,), (4, 5), (2, 3, 4)])
def test_samples_share_batches_and_do_not_touch_each_other(size):
    toy = Linear(RNG.normal(size=(4, 2, *size)))
    x, heat = RNG.normal(size=(5, 2, *size)).astype("f"), RNG.normal(size=(5, *size))
    heat[2] = 3
    calls = []
    together = road(toy, x, heat, progress=lambda *c: calls.append(c))
    assert np.isnan(together).tolist() == [False, False, True, False, False]
    assert calls == [(32, 72), (64, 72), (72, 72)]
    assert max(toy.batches) <= BATCH
    alone = [road(toy, x[n : n + 1], heat[n : n + 1])[0] for n in range(5)]
    np.testing.assert_array_equal(together, alone)


@given(arrays(np.float32, (1, 3, 3), elements=st.integers(0, 6)))
def test_only_the_order_counts_and_halves_bound_it(heat):
    rng = np.random.default_rng(3)
    toy, x = Linear(rng.normal(size=(3, 1, 3, 3))), rng.normal(size=(1, 1, 3, 3))
    value = road(toy, x, heat)
    np.testing.assert_array_equal(value, road(toy, x, heat**3 - 5))
    assert np.isnan(value) == (np.ptp(heat) == 0)
    assert np.isnan(value) or abs(value) <= 0.5


def test_at_least_one_position_stays():
    toy = Linear(np.array([[[4.0, 1]]]))
    assert np.isfinite(road(toy, np.array([[[1, 2]]], "f"), [[3, 2]], percentages=[99])).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"percentages": [0]}, "percentage 0 is out of range"),
        ({"percentages": 0}, "percentage 0 is out of range"),
        ({"seed": -1}, "seed=-1; wanted a whole number"),
        ({"percentages": [100]}, "both excluded"),
        ({"percentages": []}, "empty"),
        ({"percentages": ["a"]}, "percentage 'a'"),
        ({"noise": -1}, "noise=-1"),
        ({"target": 4}, "out of range"),
    ],
)
def test_bad_arguments_are_refused(how, message):
    toy = Linear(np.ones((2, 1, 2, 2)))
    with pytest.raises(cfcam.InvalidInputError, match=message):
        road(toy, np.ones((1, 1, 2, 2), "f"), [[[1, 2], [3, 4]]], **how)
