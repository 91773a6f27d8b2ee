"""Neighbours and DBSCAN against exact arithmetic, NumPy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import DBSCAN

from cfcam_core import distances
from cfcam_core.dbscan import dbscan
from cfcam_core.distances import neighbours


def exact_squares(features):
    d = features[:, None].astype(np.float64) - features[None].astype(np.float64)
    return (d * d).sum(axis=2)


def rank_rule(features, percentile):
    """The definition, word for word: adjacent iff d2 is at most the k-th smallest d2."""
    squares = exact_squares(features)
    pairs = np.sort(squares[np.triu_indices(len(features), 1)])
    doubled = np.sort(np.concatenate([pairs, pairs]))
    k = int((len(doubled) - 1) * percentile / 100)
    return squares <= doubled[k]


small_integers = st.integers(2, 40).flatmap(
    lambda n: arrays(np.float32, (n, 3), elements=st.integers(-3, 3).map(float))
)


@given(small_integers, st.sampled_from([0.0, 5.0, 25.0, 50.0, 100.0]))
def test_rank_rule_is_its_definition(features, percentile):
    adjacency, _ = neighbours(features, percentile=percentile, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, percentile))


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(2, 5), (63, 49), (64, 9), (200, 17), (321, 196)])
def test_rank_rule_on_real_numbers(shape, offset):
    features = np.random.default_rng(0).normal(offset, 1, shape).astype(np.float32)
    adjacency, radius = neighbours(features, percentile=25, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, 25))
    wanted = np.percentile(np.concatenate([pdist(features.astype(np.float64))] * 2), 25)
    assert radius == pytest.approx(wanted, rel=1e-12)


def test_a_misleading_sample_changes_nothing(monkeypatch):
    features = np.random.default_rng(1).normal(size=(130, 8)).astype(np.float32)
    wanted = rank_rule(features, 25)
    monkeypatch.setattr(distances, "STRIDE", 5000)  # two values: the bracket cannot hold
    adjacency, _ = neighbours(features, percentile=25, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, wanted)


def test_error_bound_holds_and_is_not_idle():
    rng = np.random.default_rng(2)
    for offset in (0.0, 100.0):
        features = (rng.lognormal(0, 2, (150, 1)) * rng.normal(offset, 1, (150, 60))).astype(
            np.float32
        )
        table = distances._DistanceTable.of(features)
        exact = exact_squares(features)
        worst = 0.0
        for i, block in table.blocks():
            here = np.isfinite(block)
            worst = max(worst, np.abs(block - exact[i : i + len(block), i:])[here].max())
        assert 0 < worst <= table.error < 1e4 * worst


def test_least_radius_applies():
    features = np.array([[0], [1e-3], [2e-3], [1]], np.float32)
    adjacency, radius = neighbours(features, percentile=0, least=0.01, rule="rank")
    assert radius == 0.01
    np.testing.assert_array_equal(adjacency.sum(axis=1), [3, 3, 3, 1])


@given(small_integers, st.integers(1, 6), st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]))
def test_dbscan_equals_scikit_learn(features, min_samples, radius):
    apart = squareform(pdist(features))
    wanted = DBSCAN(eps=radius, min_samples=min_samples, metric="precomputed").fit(apart).labels_
    np.testing.assert_array_equal(dbscan(apart <= radius, min_samples=min_samples), wanted)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 500])
def test_dbscan_equals_scikit_learn_beyond_one_word(count):
    rng = np.random.default_rng(count)
    apart = squareform(pdist(rng.integers(0, 40, (count, 2)).astype(float)))
    for radius, least in [(2.0, 3), (3.0, 4), (4.0, 8), (1.0, 2)]:
        wanted = DBSCAN(eps=radius, min_samples=least, metric="precomputed").fit(apart).labels_
        np.testing.assert_array_equal(dbscan(apart <= radius, min_samples=least), wanted)


@pytest.mark.parametrize("shape", [(40, 4), (40, 15), (40, 16), (300, 49), (90, 300)])
@pytest.mark.parametrize("dead", [0, 20])
def test_float32_rule_gives_scikit_learns_labels(shape, dead):
    """Radius and labels as the public code gets them, from NumPy and scikit-learn themselves."""
    rng = np.random.default_rng(3)
    features = np.maximum(rng.normal(size=shape), 0).astype(np.float32)
    features[:dead] = 0
    full = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(full, np.inf)
    wanted_radius = max(np.percentile(full[full != np.inf], 25), 1e-5)
    adjacency, radius = neighbours(features, percentile=25, least=1e-5, rule="float32")
    assert radius == float(wanted_radius)
    wanted = DBSCAN(eps=wanted_radius, min_samples=4).fit(features).labels_
    np.testing.assert_array_equal(dbscan(adjacency, min_samples=4), wanted)
