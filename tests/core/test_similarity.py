import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import cfcam_core as cfcam
from cfcam_core.evaluation import SIMILARITIES, rank_biased_overlap, ranking, ssim
from cfcam_core.evaluation.similarity import similarities

rng = np.random.default_rng(5)
MEANS = np.concatenate([rng.random((4, 12)), rng.integers(0, 3, (3, 12)).astype(float)])
MAPS = rng.random((7, 13, 16))

ORACLES = {
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "cosine": lambda a, b: a @ b / np.sqrt((a @ a) * (b @ b)),
    "rbo": lambda a, b: rank_biased_overlap(ranking(a), ranking(b), p=0.7),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("first", [0, 5])
def test_on_means(name, first):
    means = np.roll(MEANS, -first, axis=0)
    found, flat = similarities(name, means, MAPS, p=0.7)
    assert not flat.any()
    np.testing.assert_allclose(found, [ORACLES[name](means[0], b) for b in means[1:]], atol=1e-12)


def test_ssim_looks_at_the_maps():
    found, _ = similarities("ssim", MEANS, MAPS)
    np.testing.assert_allclose(found, [ssim(MAPS[0], b) for b in MAPS[1:]])


def test_all_are_named_and_no_others():
    assert set(SIMILARITIES) == {*ORACLES, "ssim"}
    with pytest.raises(cfcam.InvalidInputError, match="allowed are rbo, spearman"):
        similarities("rob", MEANS, MAPS)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_flat_maps_are_alike_and_unlike_all_others(name):
    means = np.stack([np.full(4, 0.5), np.zeros(4), np.arange(4.0), np.full(4, 1 + 1e-7)])
    maps = means[:, :, None] * np.ones((4, 4, 12))
    found, flat = similarities(name, means, maps)
    assert flat.tolist() == [True, True, False, True]
    assert found.tolist() == [1, 0, 1]
    found, _ = similarities(name, means[[2, 0, 2]], maps[[2, 0, 2]])
    assert found == pytest.approx([0, 1], abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    means = MEANS.copy()
    means[3, 2] = bad
    with pytest.raises(cfcam.InvalidInputError, match="NaN or infinity"):
        similarities("cosine", means, MAPS)


def test_ssim_by_hand_for_constant_maps():
    """Variances are zero, so the luminance term remains: (2 a b + c) / (a^2 + b^2 + c)."""
    wanted = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    for size in ((5,), (4, 30), (12, 12, 3)):
        assert ssim(np.full(size, 0.2), np.full(size, 0.6)) == pytest.approx(wanted, rel=1e-6)


def test_ssim_by_hand_where_one_window_fits():
    a, b = np.random.default_rng(0).random((2, 11))
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    mean_a, mean_b = window @ a, window @ b
    var_a, var_b = window @ (a - mean_a) ** 2, window @ (b - mean_b) ** 2
    both = window @ ((a - mean_a) * (b - mean_b))
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    assert ssim(a, b) == pytest.approx(
        luminance * (2 * both + 0.03**2) / (var_a + var_b + 0.03**2), abs=1e-6
    )


@given(st.lists(st.integers(1, 14), min_size=1, max_size=3), st.integers(0, 99))
def test_ssim_is_symmetric_and_one_for_equal_maps_alone(size, seed):
    a, b = np.random.default_rng(seed).random((2, *size))
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b) == ssim(b, a)
    assert ssim(a, b) < 1
    assert ssim(255 * a, 255 * b, data_range=255) == pytest.approx(ssim(a, b), abs=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "data_range"),
    [
        (np.ones((3, 4)), np.ones((4, 3)), 1),
        (1.0, 1.0, 1),
        (np.ones((0, 3)), np.ones((0, 3)), 1),
        ([np.nan], [1], 1),
        ([1], [1], 0),
    ],
)
def test_ssim_refuses(a, b, data_range):
    with pytest.raises(cfcam.InvalidInputError):
        ssim(a, b, data_range=data_range)
