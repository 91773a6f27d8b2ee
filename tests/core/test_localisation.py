import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core.evaluation import energy_in_mask, pointing_game, rank_accuracy

CORNER = np.array([[1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("heatmap", "share"),
    [
        ([[1, 1], [1, 1]], 0.25),
        ([[1, 0], [0, 0]], 1.0),
        ([[0, 1], [0, 0]], 0.0),
        ([[3, 1], [-5, 0]], 0.75),
        ([[-3, 1], [0, 0]], 0.0),
        ([[3e-30, 1e-30], [0, 0]], 0.75),
    ],
)
def test_energy_is_the_share_of_the_positive_map_inside(heatmap, share):
    assert energy_in_mask([heatmap], [CORNER]) == pytest.approx([share])


@pytest.mark.parametrize("blank", [0.0, -1.0])
def test_a_blank_map_has_no_energy_and_points_nowhere(blank):
    heatmaps = np.array([np.full((2, 2), blank), CORNER])
    energy = energy_in_mask(heatmaps, [CORNER, CORNER])
    assert np.isnan(energy[0])
    assert energy[1] == 1
    assert pointing_game(heatmaps, [CORNER, CORNER]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("heatmap", "hit"),
    [
        ([[3, 1], [2, 0]], True),
        ([[1, 3], [2, 0]], False),
        ([[3, 3], [0, 0]], False),
        ([[1, 1], [1, 1]], False),
        ([[-1, -2], [-2, -2]], False),
    ],
)
def test_pointing_asks_for_every_highest_point(heatmap, hit):
    assert pointing_game([heatmap], [CORNER]).tolist() == [hit]


def test_two_highest_points_inside_are_a_hit():
    assert pointing_game([[[3, 3], [0, 0]]], [[[1, 1], [0, 0]]]).all()


@pytest.mark.parametrize(
    ("heatmap", "share"),
    [
        ([[4, 3], [2, 1]], 0.5),  # 4 is inside, 3 is not, 2 is third
        ([[3, 1], [2, 0]], 1.0),
        ([[0, 3], [0, 2]], 0.0),
        ([[1, 1], [1, 1]], 0.5),  # chance
        ([[5, 1], [1, 1]], (1 + 1 / 3) / 2),  # one of three equal ones, of which one is inside
        ([[5, 0], [-1, -9]], (1 + 1 / 3) / 2),  # what is negative is as cold as 0
        ([[0, 5], [0, 0]], (0 + 2 / 3) / 2),
    ],
)
def test_rank_accuracy_by_hand(heatmap, share):
    assert rank_accuracy([heatmap], [[[1, 0], [1, 0]]]) == pytest.approx([share])


def test_rank_accuracy_is_the_mean_over_ties_broken_at_random():
    rng = np.random.default_rng(3)
    heat = rng.integers(0, 4, (1, 5, 6)) - 1
    mask = rng.random((1, 5, 6)) < 0.4
    level, inside, k = np.maximum(heat, 0).ravel(), mask.ravel(), mask.sum()
    draws = [inside[np.lexsort((rng.random(30), -level))[:k]].mean() for _ in range(4000)]
    assert rank_accuracy(heat, mask)[0] == pytest.approx(np.mean(draws), abs=0.01)


def test_contrast_moves_the_energy_and_not_the_rank_accuracy():
    heat = np.random.default_rng(4).random((3, 6, 6))
    masks = heat + np.random.default_rng(5).random((3, 6, 6)) > 1
    np.testing.assert_array_equal(rank_accuracy(heat, masks), rank_accuracy(heat**3, masks))
    assert (energy_in_mask(heat**3, masks) > energy_in_mask(heat, masks)).all()


def test_rank_accuracy_has_no_value_without_heat_or_object():
    heat = np.array([[[0, -1]], [[1, 0]], [[1, 0]]])
    found = rank_accuracy(heat, [[[1, 0]], [[0, 0]], [[1, 0]]])
    np.testing.assert_array_equal(found, [np.nan, np.nan, 1])


def test_masks_may_be_bool_or_uint8_and_nothing_is_changed():
    heatmaps = np.random.default_rng(0).uniform(0.1, 1, (3, 4, 5)).astype(np.float32)
    masks = np.random.default_rng(1).integers(0, 2, (3, 4, 5), np.uint8)
    before = heatmaps.copy(), masks.copy()
    as_bytes = energy_in_mask(heatmaps, 255 * masks)
    assert as_bytes.shape == (3,)
    np.testing.assert_array_equal(as_bytes, energy_in_mask(heatmaps, masks.astype(bool)))
    np.testing.assert_allclose(as_bytes + energy_in_mask(heatmaps, masks == 0), 1)
    np.testing.assert_array_equal(heatmaps, before[0])
    np.testing.assert_array_equal(masks, before[1])


@pytest.mark.parametrize("measure", [energy_in_mask, pointing_game, rank_accuracy])
@pytest.mark.parametrize(
    ("heatmaps", "masks", "message"),
    [
        (np.ones((2, 4, 4)), np.ones((4, 4)), r"\(2, 4, 4\) and masks \(4, 4\)"),
        (np.ones((2, 4, 4)), np.ones((2, 4, 5)), "same shape"),
        (np.ones(4), np.ones(4), "same shape"),
        (np.ones((2, 4, 4)), np.ones((2, 8, 6)), r"resize\(heatmaps, \(8, 6\)\)"),
        (np.ones((4, 4)), np.ones((4, 4)), r"of one picture, pass heatmaps\[None\]"),
        (np.ones((0, 4, 4)), np.ones((0, 4, 4)), "no axis empty"),
        (np.full((1, 2, 2), np.nan), np.ones((1, 2, 2)), "heatmaps contain 4 values"),
    ],
)
def test_bad_arrays_are_refused(measure, heatmaps, masks, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        measure(heatmaps, masks)


def test_an_explanation_is_measured_by_its_heatmaps():
    A = np.random.default_rng(0).normal(size=(2, 4, 3, 3))
    picture = cfcam.explain_arrays(A, A, method="grad-cam", size=(6, 8))
    masks = np.arange(96).reshape(2, 6, 8) % 3
    np.testing.assert_array_equal(
        energy_in_mask(picture, masks), energy_in_mask(picture.heatmaps, masks)
    )
    assert pointing_game(picture, picture.heatmaps == 1).all()
    signal = cfcam.explain_arrays(A[..., 0], A[..., 0], method="grad-cam", spatial_dims=1)
    assert pointing_game(signal, signal.heatmaps == 1).shape == (2,)


def test_help_names_the_measures():
    assert "`energy_in_mask`" in cfcam.evaluation.__doc__
    assert "`pointing_game`" in cfcam.evaluation.__doc__
    assert "`rank_accuracy`" in cfcam.evaluation.__doc__
