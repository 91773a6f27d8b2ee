"""Settings refuse what no stage understands; targets in every form."""

from dataclasses import fields, replace

import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core import Settings
from cfcam_core.targets import resolve_targets

SCORES = np.array([[0.1, 0.9, 0.5], [2.0, 1.0, 0.0]], np.float32)


def test_presets():
    assert Settings.preset("default") == Settings()
    reference, paper = Settings.preset("reference"), Settings.preset("paper")
    assert replace(reference, filter="gaussian") == paper
    assert (reference.weighting, reference.sigma_range, reference.eps_floor) == (
        "softmax",
        0.1,
        1e-5,
    )
    assert (reference.dominant_percentile, reference.min_samples_least) == (75.0, 2)
    with pytest.raises(cfcam.InvalidInputError, match="there is no preset"):
        Settings.preset([])
    with pytest.raises(cfcam.InvalidInputError, match="allowed are reference, paper, default"):
        Settings.preset("best")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster_on", "pixels"),
        ("eps_rule", "auto"),
        ("noise", "maybe"),
        ("average", ""),
        ("filter", "median"),
        ("weighting", None),
        ("eps_percentile", 101),
        ("eps_percentile", float("nan")),
        ("dominant_percentile", -1),
        ("min_samples_share", 2),
        ("min_samples_least", 0),
        ("eps_floor", -1.0),
        ("sigma_spatial", 0),
        ("sigma_range", float("inf")),
        ("clusterer", "dbscan"),
        ("clusterer", dict),
        ("eps_percentile", "25"),
        ("eps_percentile", None),
        ("sigma_spatial", True),
        ("unit_norm", "no"),
        ("drop_dead", None),
        ("min_samples_least", 2.5),
        ("eps_floor", float("inf")),
    ],
)
def test_settings_refuse(name, value):
    with pytest.raises(cfcam.InvalidInputError, match=name):
        Settings(**{name: value})


def test_numpy_scalars_become_plain_numbers():
    settings = Settings(
        sigma_range=np.float32(0.5), min_samples_least=np.int64(3), unit_norm=np.True_
    )
    kinds = type(settings.sigma_range), type(settings.min_samples_least), type(settings.unit_norm)
    assert kinds == (float, int, bool)
    assert '"sigma_range": 0.5' in settings.to_json()


def test_every_setting_is_documented():
    text = __import__("inspect").getsource(Settings)
    for field in fields(Settings):
        assert f"    {field.name}: " in text
        after = text.split(f"    {field.name}: ")[1].split("\n")[1]
        assert after.strip().startswith('"""'), field.name


def test_targets():
    assert resolve_targets(None, SCORES)[0].tolist() == [1, 0]
    assert resolve_targets(2, SCORES)[0].tolist() == [2, 2]
    assert resolve_targets(np.int64(2), SCORES)[0].tolist() == [2, 2]
    assert resolve_targets([2], SCORES)[0].tolist() == [2, 2]
    targets, cotangents = resolve_targets((2, 0), SCORES)
    assert targets.tolist() == [2, 0]
    assert cotangents.tolist() == [[0, 0, 1], [1, 0, 0]]
    second = resolve_targets(lambda s: s.argsort(axis=1)[:, -2], SCORES)[0]
    assert second.tolist() == [2, 1]
    difference = np.tile(np.array([1.0, -1.0, 0.0]), (2, 1))
    targets, cotangents = resolve_targets(lambda s: difference, SCORES)
    assert targets.tolist() == [-1, -1]
    np.testing.assert_array_equal(cotangents, difference)
    one_hot = np.eye(3, dtype=int)[[2, 0]]
    np.testing.assert_array_equal(resolve_targets(one_hot, SCORES)[1], one_hot)


LOG_SOFTMAX = np.eye(3)[[2, 2]] - np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("function", "gradient"),
    [
        (lambda s: s[:, 1] - s[:, 2], [[0, 1, -1], [0, 1, -1]]),
        (lambda s: s[:, 1].sum(), [[0, 1, 0], [0, 1, 0]]),
        (lambda s: float(s[1, 0] * s[0, 2]), [[0, 0, 2.0], [0.5, 0, 0]]),
        (lambda s: s[:, 2] - np.log(np.exp(s).sum(axis=1)), LOG_SOFTMAX),
        (lambda s: np.log(np.exp(s[:, 2]) / np.exp(s).sum(axis=1)).astype("f"), LOG_SOFTMAX),
        (lambda s: (s[:, :2] ** 2).sum(axis=1).tolist(), [[0.2, 1.8, 0], [4, 2, 0]]),
        (lambda s: s[:, 0].round(), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_values_are_differentiated(function, gradient):
    targets, cotangents = resolve_targets(function, SCORES)
    assert targets.tolist() == [-1, -1]
    assert cotangents.dtype == np.float32
    np.testing.assert_allclose(cotangents, gradient, atol=1e-4)


def test_values_cost_two_calls_a_class():
    seen = []
    kept = SCORES.copy()
    resolve_targets(lambda s: seen.append(s) or s.max(axis=1), SCORES)
    assert len(seen) == 2 * SCORES.shape[1] + 2
    np.testing.assert_array_equal(SCORES, kept)


def test_equal_counts_of_samples_and_classes():
    square = np.eye(3, dtype=np.float32)
    _, cotangents = resolve_targets(lambda s: 2 * s[:, 1], square)
    np.testing.assert_allclose(cotangents, [[0, 2, 0]] * 3, atol=1e-6)
    np.testing.assert_array_equal(resolve_targets(lambda s: square, square)[1], square)
    assert resolve_targets(lambda s: s.argmin(axis=1), square)[0].tolist() == [1, 0, 0]


def test_one_logit():
    one = np.array([[0.5], [-2.0]], np.float32)
    np.testing.assert_allclose(resolve_targets(lambda s: -s[:, 0], one)[1], [[-1], [-1]])
    np.testing.assert_array_equal(resolve_targets(lambda s: 3 * s, one)[1], 3 * one)
    with pytest.raises(cfcam.InvalidInputError, match=r"one logit; target 0 .*=lambda s: -s\[:, 0"):
        resolve_targets(1, one)


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda s: s.logits, AttributeError),
        (lambda s: s[:, 9], IndexError),
        (lambda s, more: s, TypeError),
        (lambda s: 1 / 0, ZeroDivisionError),
    ],
)
def test_a_callable_that_fails(function, cause):
    message = rf"the target fails on the scores, a NumPy array of shape \(2, 3\): {cause.__name__}"
    with pytest.raises(cfcam.InvalidInputError, match=message) as caught:
        resolve_targets(function, SCORES)
    assert isinstance(caught.value.__cause__, cause)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda s: s[:, 0] * np.nan, "NaN"),
        (lambda s: s[:1, 0], "one value a sample"),
        ([0.0, 1.0], "does not name classes"),
        (3, "3 classes, 0 to 2"),
        (-1, "out of range"),
        ([0, 1, 2], "2 ints"),
        ("cat", "does not name classes"),
        (1.5, "does not name classes"),
        ([[0, 1]], "does not name classes"),
        ([[0], [1, 2]], "not a class index"),
        (lambda s: np.full(s.shape, np.nan), "NaN"),
        (lambda s: 7, "out of range"),
        (True, "does not name classes"),
        (np.full((2, 3), 1e300), "infinity"),
    ],
)
def test_bad_targets(target, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        resolve_targets(target, SCORES)
