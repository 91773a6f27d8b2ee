import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import cfcam_core as cfcam
from cfcam_core.evaluation import baseline_pictures, delete_top, keep_top, soft_mask
from cfcam_core.evaluation.masking import count, flat, ranks

RNG = np.random.default_rng(0)
PICTURE = np.array([[[[5, 6], [7, 8]]]], np.float32)
PICTURES = RNG.normal(size=(2, 3, 6, 5)).astype(np.float32)


def test_the_hottest_positions_are_kept_or_deleted_in_all_channels():
    picture = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    heat = [[[0.1, 0.9], [0.8, -5]]]
    np.testing.assert_array_equal(keep_top(picture, heat, 0.5, -1)[0, 0], [[-1, 1], [2, -1]])
    np.testing.assert_array_equal(keep_top(picture, heat, 0.5, -1)[0, 1], [[-1, 5], [6, -1]])
    np.testing.assert_array_equal(delete_top(picture, heat, 0.5, -1)[0, 0], [[0, -1], [-1, 3]])


def test_of_equally_hot_positions_the_first_goes_first():
    assert ranks(np.array([[[1, 2], [2, 1]]])).tolist() == [[[2, 0], [1, 3]]]
    assert ranks(np.zeros((1, 2, 2))).tolist() == [[[0, 1], [2, 3]]]
    np.testing.assert_array_equal(delete_top([[[5, 6, 7]]], [[1, 1, 1]], 0.3, 0), [[[0, 6, 7]]])


def test_a_position_without_heat_is_never_among_the_hottest():
    heat = [[[0, -1], [3, 0]]]
    np.testing.assert_array_equal(keep_top(PICTURE, heat, 0.75, 0), [[[[0, 0], [7, 0]]]])
    np.testing.assert_array_equal(delete_top(PICTURE, heat, 0.75, 0), [[[[5, 6], [0, 8]]]])
    np.testing.assert_array_equal(keep_top(PICTURE, np.zeros((1, 2, 2)), 1, 0), 0 * PICTURE)


@pytest.mark.parametrize(
    ("share", "positions", "number"),
    [(0, 10, 0), (1, 10, 10), (0.25, 10, 3), (0.24, 10, 2), (0.05, 10, 1), (0.04, 10, 0)],
)
def test_a_share_is_the_nearest_whole_number_halves_up(share, positions, number):
    assert count(share, positions) == number


@given(arrays(np.float32, (3, 4, 5), elements=st.integers(0, 4)), st.floats(0, 1))
def test_kept_and_deleted_make_up_the_picture(heat, share):
    pictures = np.broadcast_to(np.float32(1), (3, 2, 4, 5))
    kept, left = keep_top(pictures, heat, share, 0), delete_top(pictures, heat, share, 0)
    np.testing.assert_array_equal(kept + left, pictures)
    hot = np.minimum(count(share, 20), (heat > 0).sum(axis=(1, 2)))
    np.testing.assert_array_equal(kept[:, 0].sum(axis=(1, 2)), hot)
    shown, hidden = np.where(kept[:, 0] > 0, heat, 9), np.where(kept[:, 0] > 0, -9, heat)
    assert (shown.min(axis=(1, 2)) >= hidden.max(axis=(1, 2))).all()


def test_a_soft_mask_fades_to_the_baseline_and_ignores_what_is_negative():
    faded = soft_mask([[[10, 10, 10, 10]]], [[-3, 0, 1, 4]], 2)
    np.testing.assert_allclose(faded, [[[2, 2, 4, 10]]])
    np.testing.assert_array_equal(soft_mask([[[10, 10]]], [[-1, 0]], 2), [[[2, 2]]])


def test_baselines_by_name():
    mean = baseline_pictures(PICTURES, "mean")
    np.testing.assert_allclose(mean[1, 2], PICTURES[1, 2].mean(), rtol=1e-5)
    assert mean.shape == PICTURES.shape
    assert not baseline_pictures(PICTURES, "zero").any()
    colour = np.reshape([1, 2, 3], (3, 1, 1))
    assert (baseline_pictures(PICTURES, colour)[:, 2] == 3).all()
    np.testing.assert_array_equal(baseline_pictures(PICTURES, PICTURES + 1), PICTURES + 1)


@pytest.mark.parametrize(("side", "radius"), [(224, 5), (112, 2), (448, 10), (32, 1), (9, 1)])
def test_the_blur_is_a_gaussian_in_proportion_to_the_picture(side, radius):
    dot = np.zeros((1, 1, side, side), np.float32)
    dot[0, 0, side // 2, side // 2] = 1
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / radius) ** 2)
    line /= line.sum()
    around = slice(side // 2 - radius, side // 2 + radius + 1)
    blurred = baseline_pictures(dot, "blur")
    np.testing.assert_allclose(blurred[0, 0, around, around], np.outer(line, line), atol=1e-7)
    assert blurred.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [(4,), (3, 3), (1, 1), (40, 60), (4, 3, 5)])
def test_the_blur_takes_signals_and_volumes_and_keeps_constants(size):
    np.testing.assert_allclose(baseline_pictures(np.full((2, 3, *size), 7.0, "f"), "blur"), 7)
    noise = RNG.normal(size=(1, 1, *size)).astype(np.float32)
    assert np.ptp(baseline_pictures(noise, "blur")) <= np.ptp(noise)


def test_a_map_is_flat_if_it_differs_by_rounding_only():
    maps = np.array([[[5, 5]], [[1, 1 + 5e-6]], [[1, 1.01]], [[0, 1e-20]], [[0, 0]]], np.float32)
    assert flat(maps).tolist() == [True, True, False, False, True]


def test_nothing_is_written_to():
    heat = RNG.uniform(size=(2, 6, 5)).astype(np.float32)
    before = PICTURES.copy(), heat.copy()
    for change in (keep_top, delete_top):
        for name in ("blur", "mean", "zero"):
            change(PICTURES, heat, 0.5, name)[...] = 9
    np.testing.assert_array_equal(PICTURES, before[0])
    np.testing.assert_array_equal(heat, before[1])


@pytest.mark.parametrize(
    ("pictures", "heat", "share", "baseline", "message"),
    [
        (np.ones((2, 3, 4, 4)), np.ones((2, 2, 2)), 0.5, 0, r"resize\(heatmaps, \(4, 4\)\)"),
        (np.ones((1, 3, 4, 4)), np.ones((4, 4)), 0.5, 0, r"pass heatmaps\[None\]"),
        (np.ones((2, 3, 4, 4)), np.ones((3, 4, 4)), 0.5, 0, r"wanted \(2, 4, 4\)"),
        (np.ones((4, 4)), np.ones((4, 4)), 0.5, 0, "pictures have shape"),
        (np.ones((1, 3, 4, 4)), np.full((1, 4, 4), np.nan), 0.5, 0, "not finite"),
        (np.ones((1, 3, 4, 4)), np.ones((1, 4, 4)), 1.5, 0, "share=1.5; allowed is 0 to 1"),
        (np.ones((1, 3, 4, 4)), np.ones((1, 4, 4)), "a", 0, "share='a'"),
        (np.ones((1, 3, 4, 4)), np.ones((1, 4, 4)), 0.5, "grey", "allowed are blur, mean, zero"),
        (np.ones((1, 3, 4, 4)), np.ones((1, 4, 4)), 0.5, [1, 2, 3], r"such as \(3, 1, 1\)"),
    ],
)
def test_bad_arguments_are_refused(pictures, heat, share, baseline, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        keep_top(pictures, heat, share, baseline)
