import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import cfcam_core as cfcam
from cfcam_core.evaluation import complexity, effective_complexity, sparseness

MEASURES = [sparseness, complexity, effective_complexity]


@pytest.mark.parametrize(
    ("heat", "gini", "entropy", "number"),
    [
        ([[1, 1], [1, 1]], 0, np.log(4), 4),
        ([[0, 0], [0, 3]], 0.75, 0, 1),
        ([[2, 0], [2, 0]], 0.5, np.log(2), 2),
        ([[3, -1], [0, 0]], 0.625, -0.75 * np.log(0.75) - 0.25 * np.log(0.25), 2),
        ([[0, 1], [2, 3]], 10 / 24, np.log(6) - (2 * np.log(2) + 3 * np.log(3)) / 6, 3),
    ],
)
def test_by_hand(heat, gini, entropy, number):
    assert sparseness([heat]) == pytest.approx([gini])
    assert complexity([heat]) == pytest.approx([entropy])
    assert effective_complexity([heat]) == pytest.approx([number])


def test_the_threshold_is_a_share_of_the_peak_and_must_be_passed():
    heat = [[[10, 5, 1, 0]]]
    assert effective_complexity(heat, threshold=0.1) == [2]
    assert effective_complexity(heat, threshold=0.09) == [3]
    assert effective_complexity(heat, threshold=0.5) == [1]
    assert effective_complexity(heat, threshold=1) == [0]
    with pytest.raises(cfcam.InvalidInputError, match=r"threshold=1.5"):
        effective_complexity(heat, threshold=1.5)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_blank_map_has_no_value(measure):
    values = measure(np.stack([np.zeros((3, 3)), np.eye(3)]))
    assert np.isnan(values).tolist() == [True, False]


@given(arrays(np.float32, (3, 4, 5), elements=st.integers(0, 6)), st.sampled_from(MEASURES))
def test_scale_and_place_do_not_matter_and_samples_do_not_touch(heat, measure):
    values = measure(heat)
    moved = np.random.default_rng(0).permuted(heat.reshape(3, 20), axis=1).reshape(3, 5, 4)
    np.testing.assert_allclose(measure(8 * heat), values, rtol=1e-12)
    np.testing.assert_allclose(measure(-moved), values, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(
        values, np.concatenate([measure(heat[n : n + 1]) for n in (0, 1, 2)])
    )


@given(arrays(np.float32, (2, 4, 5), elements=st.integers(0, 6)))
def test_bounds(heat):
    heat[:, 0, 0] += 1
    assert (sparseness(heat) >= -1e-12).all()
    assert (sparseness(heat) <= 1 - 1 / 20 + 1e-12).all()
    assert (complexity(heat) >= -1e-12).all()
    assert (complexity(heat) <= np.log(20) + 1e-12).all()
    assert (effective_complexity(heat, threshold=0) == (heat > 0).sum(axis=(1, 2))).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_signals_of_an_explanation_and_volumes(measure):
    A = np.random.default_rng(0).normal(size=(2, 3, 8)).astype("f")
    found = cfcam.explain_arrays(A, np.ones_like(A), spatial_dims=1, method="hires-cam")
    np.testing.assert_array_equal(measure(found), measure(found.heatmaps[:, None]))
    volumes = np.random.default_rng(1).uniform(size=(2, 3, 4, 5))
    np.testing.assert_allclose(measure(volumes), measure(volumes.reshape(2, 3, 20)))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("heat", "message"),
    [
        (np.ones((4, 4)), r"of one picture, pass heatmaps\[None\]"),
        (np.ones((0, 4, 4)), "no axis empty"),
        (np.ones((1, 1, 2, 2, 2)), "wanted"),
        (np.full((1, 2, 2), np.inf), "not finite"),
    ],
)
def test_bad_arrays_are_refused(measure, heat, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        measure(heat)
