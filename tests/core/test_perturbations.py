import numpy as np
import pytest
from scipy import stats

import cfcam_core as cfcam
from cfcam_core.evaluation import NOISES, PERTURBATIONS, Perturbation, perturb

GRAY = np.full((200, 210, 3), 0.5)
PICTURE = np.random.default_rng(1).random((9, 8, 3)).astype(np.float32)


def slope(picture):
    """Slope of ``sum(w * x)``, w alternating in sign with zeros between."""
    return np.resize([2.0, -3.0, 0.0], picture.shape)


def level(kind, severity):
    return PERTURBATIONS[kind].levels[severity - 1]


def test_severities_are_those_that_are_documented():
    levels = {name: each.levels for name, each in PERTURBATIONS.items()}
    eps = tuple(n / 255 for n in (1, 2, 4, 8, 16))
    assert levels == {
        "gaussian": (0.04, 0.06, 0.08, 0.12, 0.18),
        "salt_and_pepper": (0.01, 0.02, 0.05, 0.10, 0.20),
        "speckle": (0.05, 0.10, 0.20, 0.35, 0.50),
        "poisson": (100, 60, 30, 12, 5),
        "uniform": (0.05, 0.10, 0.15, 0.20, 0.30),
        "gaussian_blur": (0.5, 1.0, 2.0, 3.0, 4.0),
        "fgsm": eps,
        "pgd": eps,
    }
    assert tuple(levels)[:6] == NOISES


@pytest.mark.parametrize("severity", [1, 3])
@pytest.mark.parametrize(
    ("kind", "std"),
    [
        ("gaussian", lambda a: a),
        ("speckle", lambda a: a * 0.5),
        ("poisson", lambda a: np.sqrt(0.5 / a)),
        ("uniform", lambda a: a / np.sqrt(3)),
    ],
)
def test_noise_has_mean_zero_and_its_spread(kind, std, severity):
    noise = perturb(GRAY, kind, severity) - 0.5
    assert noise.mean() == pytest.approx(0, abs=0.002)
    assert noise.std() == pytest.approx(std(level(kind, severity)), rel=0.02)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.02


def test_noise_has_its_shape():
    normal = ((perturb(GRAY, "gaussian", 1) - 0.5) / 0.04).ravel()
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    even = perturb(GRAY, "uniform", 5).ravel()
    assert stats.kstest(even, stats.uniform(0.2, 0.6).cdf).pvalue > 1e-3
    counts = perturb(GRAY, "poisson", 5) * 5
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-5)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_salt_and_pepper_on_its_share_of_positions(severity):
    noisy = perturb(GRAY, "salt_and_pepper", severity)
    share = level("salt_and_pepper", severity)
    black, white = (noisy == 0).all(axis=-1).mean(), (noisy == 1).all(axis=-1).mean()
    assert [black, white] == pytest.approx([share / 2, share / 2], rel=0.15)
    assert (noisy == 0.5).all(axis=-1).mean() == 1 - black - white


def test_blur_is_along_space_alone_and_keeps_the_mean():
    dot = np.zeros((41, 41, 2))
    dot[20, 20, 0] = 1
    blurred = perturb(dot, "gaussian_blur", 3)
    assert not blurred[..., 1].any()
    assert blurred.sum() == pytest.approx(1, abs=1e-5)
    axis = np.arange(41) - 20
    assert (blurred[..., 0].sum(0) * axis**2).sum() == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("kind", PERTURBATIONS)
@pytest.mark.parametrize("size", [(9, 8, 3), (30, 1), (4, 5, 6, 2)])
def test_all_stay_in_range_and_follow_from_their_seed(kind, size):
    picture = np.random.default_rng(2).random(size).astype(np.float32)
    before = picture.copy()
    for severity in (1, 5):
        one = perturb(picture, kind, severity, seed=3, index=4, gradient=slope)
        again = perturb(picture, kind, severity, seed=3, index=4, gradient=slope)
        assert one.dtype == np.float32
        assert one.shape == size
        assert one.min() >= 0
        assert one.max() <= 1
        assert (one != picture).any()
        np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("kind", [*NOISES[:5], "pgd"])
def test_seed_index_kind_and_severity_each_give_other_noise(kind):
    twin = Perturbation("twin", PERTURBATIONS[kind].function, (level(kind, 3),) * 2)
    twin = Perturbation(twin.name, twin.function, twin.levels, PERTURBATIONS[kind].asks_model)
    zero = np.zeros_like
    found = [
        perturb(PICTURE, each, severity, seed=seed, index=index, gradient=zero)
        for each, severity, seed, index in (
            (kind, 3, 0, 0),
            (kind, 3, 1, 0),
            (kind, 3, 0, 1),
            (twin, 1, 0, 0),
            (twin, 2, 0, 0),
        )
    ]
    assert len({each.tobytes() for each in found}) == 5


def test_fgsm_by_hand():
    wanted = PICTURE - np.resize([1, -1, 0], PICTURE.shape) * 4 / 255
    found = perturb(PICTURE, "fgsm", 3, gradient=slope)
    np.testing.assert_allclose(found, np.clip(wanted, 0, 1), atol=1e-6)


def test_pgd_ends_in_the_corner_of_a_linear_model_and_stays_near_otherwise():
    """2.5 eps over all steps is enough from wherever it starts."""
    eps = 8 / 255
    found = perturb(PICTURE, "pgd", 4, gradient=slope)
    corner = np.clip(PICTURE - np.resize([1, -1, 0], PICTURE.shape) * eps, 0, 1)
    moved = np.resize([True, True, False], PICTURE.shape)
    np.testing.assert_allclose(found[moved], corner[moved], atol=1e-6)
    assert np.abs(found - PICTURE).max() <= eps + 1e-6
    calls = []

    def turning(picture):
        calls.append(picture)
        return np.resize([1.0, -1.0], picture.shape) * (-1) ** len(calls)

    found = perturb(PICTURE, "pgd", 4, gradient=turning)
    assert len(calls) == 10
    for each in (*calls, found):
        assert np.abs(each - PICTURE).max() <= eps + 1e-6
        assert (each >= 0).all()
        assert (each <= 1).all()


def test_ones_own():
    def darker(picture, amount, rng):
        return picture - amount

    own = Perturbation("darker", darker, (0.1, 2.0))
    np.testing.assert_allclose(perturb(PICTURE, own, 1), np.clip(PICTURE - 0.1, 0, 1), atol=1e-6)
    assert not perturb(PICTURE, own, 2).any()


@pytest.mark.parametrize(
    ("kind", "severity", "picture", "message"),
    [
        ("fog", 1, PICTURE, "allowed are gaussian, salt_and_pepper, .* of your own"),
        ("gaussian", 6, PICTURE, "whole numbers from 1 to 5"),
        ("gaussian", 0, PICTURE, "severities"),
        ("gaussian", 1.5, PICTURE, "severities"),
        ("gaussian", 1, 255 * PICTURE, "wanted 0 to 1"),
        ("gaussian", 1, PICTURE * np.nan, "wanted 0 to 1"),
        ("fgsm", 1, PICTURE, "pass gradient="),
        (Perturbation("cut", lambda x, level, rng: x[1:], (1,)), 1, PICTURE, "cut made shape"),
        (Perturbation("log", lambda x, level, rng: x * np.inf, (1,)), 1, 1 - PICTURE, "not finite"),
    ],
)
def test_refused(kind, severity, picture, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        perturb(picture, kind, severity)
