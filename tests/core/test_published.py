import numpy as np
import pytest
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.evaluation import published_drop, published_gain, published_noise_stability
from cfcam_core.evaluation.published import GAIN_FILL

WEIGHTS = np.array([[4, 2], [1, -1]])
TOY = Linear(WEIGHTS[None, None])
ONES = np.ones((1, 1, 2, 2), np.float32)
RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 6, 9, 8)).astype("f"), RNG.normal(size=(3, 6, 9, 8)).astype("f") * 1e-3


def sigmoid(logit):
    return 1 / (1 + np.exp(-logit))


def test_the_drop_has_a_hard_mask_and_may_be_negative():
    heat = [[[4, 2], [2.1, 8]]]  # above half of the peak: the last alone; above .2: all
    y, o = sigmoid(6), sigmoid(-1)
    np.testing.assert_allclose(published_drop(TOY, ONES, heat), [(y - o) / y], rtol=1e-6)
    assert published_drop(TOY, ONES, heat, threshold=0.2) == [0]
    rise = published_drop(TOY, ONES, [[[1, 1], [1, 0]]])
    np.testing.assert_allclose(rise, [(y - sigmoid(7)) / y], rtol=1e-6)
    assert rise < 0


def test_the_hidden_part_shows_the_baseline():
    found = published_drop(TOY, ONES, [[[1, 0], [0, 0]]], baseline=-2)
    np.testing.assert_allclose(found, 1 - sigmoid(4 - 4) / sigmoid(6), rtol=1e-6)


def test_the_gain_is_against_the_bare_picture():
    toy = Linear(np.stack([WEIGHTS] * 3)[None])
    x = np.ones((1, 3, 2, 2), "f")
    heat = [[[10, 3], [3.1, 0]]]  # above .3 of the peak: two of four
    fill = sum(GAIN_FILL)
    after, bare = sigmoid(3 * 4 + 3 * 1 + fill * (2 - 1)), sigmoid(6 * fill)
    np.testing.assert_allclose(published_gain(toy, x, heat), [after - bare], rtol=1e-4)
    found = published_gain(toy, x, heat, baseline=0)
    np.testing.assert_allclose(found, [sigmoid(15) - 0.5], rtol=1e-6)


def test_other_than_three_channels_need_a_baseline():
    with pytest.raises(cfcam.InvalidInputError, match="pass baseline="):
        published_gain(TOY, ONES, [WEIGHTS])
    assert published_gain(TOY, ONES, [WEIGHTS], baseline="zero") > 0


@pytest.mark.parametrize("measure", [published_drop, published_gain])
def test_blank_maps_have_no_value_and_samples_do_not_touch(measure):
    toy = Linear(RNG.normal(size=(2, 3, 4, 5)))
    x, heat = RNG.normal(size=(40, 3, 4, 5)).astype("f"), RNG.uniform(size=(40, 4, 5))
    heat[7] = 0
    together = measure(toy, x, heat)
    assert np.flatnonzero(np.isnan(together)).tolist() == [7]
    alone = [measure(toy, x[n : n + 1], heat[n : n + 1])[0] for n in range(40)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("method", ["cf-cam", "grad-cam", "hires-cam"])
def test_noise_reaches_the_map_and_more_of_it_changes_more(method):
    A, G = MAPS
    found = [published_noise_stability(A, G, method=method, level=v) for v in (0.0, 0.3, 30.0)]
    np.testing.assert_allclose(found[0].ssim, 1, rtol=1e-12)
    assert not found[0].mse.any()
    assert (found[1].ssim < 1).all()
    assert (found[1].mse > 0).all()
    assert found[2].ssim.mean() < found[1].ssim.mean()
    assert found[2].mse.mean() > found[1].mse.mean()


def test_the_published_weighting_hardly_notices_noise_for_its_softmax_is_uniform():
    A, G = MAPS
    reference = cfcam.Settings.preset("reference")
    blind = published_noise_stability(A, G, settings=reference, level=1.0)
    seeing = published_noise_stability(A, G, method="hires-cam", level=1.0)
    assert blind.ssim.min() > 0.99 > seeing.ssim.max()


def test_noise_is_relative_seeded_and_the_same_in_any_batch():
    A, G = MAPS
    found = published_noise_stability(A, G, method="hires-cam")
    tiny = published_noise_stability(A, G * 2.0**-20, method="hires-cam")
    np.testing.assert_allclose(tiny.ssim, found.ssim, rtol=1e-4)
    other = published_noise_stability(A, G, method="hires-cam", seed=1)
    assert (other.ssim != found.ssim).all()
    for n in range(3):
        alone = published_noise_stability(A[n : n + 1], G[n : n + 1], method="hires-cam")
        assert (alone.ssim[0], alone.mse[0]) == (found.ssim[n], found.mse[n])


def test_a_blank_map_has_no_stability():
    A, G = MAPS
    blank = G * np.reshape([1, 0, 1], (3, 1, 1, 1))
    with pytest.warns(cfcam.BlankMapWarning, match="sample 1"):
        found = published_noise_stability(A, blank, method="grad-cam")
    assert np.isnan(found.ssim).tolist() == np.isnan(found.mse).tolist() == [False, True, False]


@pytest.mark.parametrize(("size", "dims"), [((7,), 1), ((9, 7), 2), ((7, 8, 7), 3)])
def test_signals_and_volumes(size, dims):
    A, G = RNG.normal(size=(2, 2, 4, *size)).astype("f")
    found = published_noise_stability(A, G, method="hires-cam")
    assert A.ndim == dims + 2
    assert ((found.ssim < 1) & (found.ssim > -1)).all()


@pytest.mark.parametrize(
    ("A", "G", "how", "message"),
    [
        (np.ones((1, 2, 4, 4)), np.ones((1, 2, 4, 4)), {}, "pass size="),
        (np.ones((1, 2, 8, 8)), np.ones((1, 2, 8, 9)), {}, "same shape"),
        (np.ones((2, 8)), np.ones((2, 8)), {}, "same shape"),
        (np.ones((1, 2, 8, 8)), np.ones((1, 2, 8, 8)), {"level": -1}, "level=-1"),
    ],
)
def test_bad_arguments_are_refused(A, G, how, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        published_noise_stability(A * np.arange(1, 1 + A.shape[-1]), G, method="hires-cam", **how)
