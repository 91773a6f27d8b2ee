"""Neighbours and DBSCAN against exact arithmetic, NumPy and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import DBSCAN

import cfcam_core.neighbours
from cfcam_core import distances
from cfcam_core.dbscan import dbscan
from cfcam_core.distances import Distances, blocks_of
from cfcam_core.neighbours import neighbours


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


def found_pairs(features, **how):
    """Return what `neighbours` finds as a symmetric matrix of booleans, and the radius."""
    later, degrees, radius = neighbours(features, **how)
    octets = np.ascontiguousarray(later.T).view(np.uint8)
    adjacency = np.unpackbits(octets, axis=1, bitorder="little").astype(np.bool_)
    assert not adjacency[:, len(features) :].any()
    adjacency = adjacency[:, : len(features)]
    assert not np.tril(adjacency).any()
    adjacency = adjacency | adjacency.T | np.eye(len(features), dtype=np.bool_)
    np.testing.assert_array_equal(degrees, adjacency.sum(axis=1))
    return adjacency, radius


def labels_of(adjacency, min_samples):
    """Return `dbscan`'s labels of a symmetric matrix of booleans."""
    count = len(adjacency)
    rows = np.zeros((count, -(-count // 64) * 64), np.bool_)
    rows[:, :count] = np.triu(adjacency, 1)
    later = np.packbits(rows, axis=1, bitorder="little").view("<u8").T
    return dbscan(later, adjacency.sum(axis=1), min_samples=min_samples)


small_integers = st.integers(2, 40).flatmap(
    lambda n: arrays(np.float32, (n, 3), elements=st.integers(-3, 3).map(float))
)


@given(small_integers, st.sampled_from([0.0, 5.0, 25.0, 50.0, 100.0]))
def test_rank_rule_is_its_definition(features, percentile):
    adjacency, _ = found_pairs(features, percentile=percentile, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, percentile))


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(2, 5), (63, 49), (64, 9), (200, 17), (321, 196)])
def test_rank_rule_on_real_numbers(shape, offset):
    features = np.random.default_rng(0).normal(offset, 1, shape).astype(np.float32)
    adjacency, radius = found_pairs(features, percentile=25, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, 25))
    wanted = np.percentile(np.concatenate([pdist(features.astype(np.float64))] * 2), 25)
    assert radius == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("shape", [(700, 20), (1601, 3)])
@pytest.mark.parametrize("percentile", [0.0, 3.0, 25.0, 99.0, 100.0])
def test_rank_rule_where_a_sample_comes_first(shape, percentile):
    rng = np.random.default_rng(4)
    for features in (rng.normal(size=shape), rng.integers(-3, 4, shape)):
        single = features.astype(np.float32)
        adjacency, _ = found_pairs(single, percentile=percentile, least=0.0, rule="rank")
        np.testing.assert_array_equal(adjacency, rank_rule(single, percentile))


@pytest.mark.parametrize("says", [-1.0, 0.0, 1e-3, 16.0, 1e30, np.inf])
def test_a_misleading_sample_changes_nothing(monkeypatch, says):
    features = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    sample = np.full(500, says, np.float32)
    monkeypatch.setattr(Distances, "sample", lambda self: sample)
    adjacency, _ = found_pairs(features, percentile=25, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, 25))


@pytest.mark.parametrize("side", [-1, 1])
def test_a_rank_in_the_rim_of_its_bracket_is_not_believed(monkeypatch, side):
    rng = np.random.default_rng(7)
    features = rng.normal(size=(2, 6))[rng.integers(0, 2, 300)]
    features = (features + rng.normal(0, 3e-4, features.shape)).astype(np.float32)
    wanted, error = rank_rule(features, 25), Distances.of(features).error
    limit = exact_squares(features)[wanted].max()
    for inside in np.geomspace(1e-3, 1, 30):
        sample = np.full(500, limit + side * (2 - inside) * error, np.float32)
        monkeypatch.setattr(Distances, "sample", lambda self, sample=sample: sample)
        adjacency, _ = found_pairs(features, percentile=25, least=0.0, rule="rank")
        np.testing.assert_array_equal(adjacency, wanted)


def test_working_memory_is_given_back():
    found_pairs(np.eye(70, dtype=np.float32), percentile=25, least=0.0, rule="rank")
    assert vars(distances._memory)
    distances.release_scratch()
    assert not vars(distances._memory)


def test_a_byte_counts_the_rows_of_a_block():
    assert max(block.rows for block in blocks_of(10_000)) < 256


@pytest.mark.parametrize("count", [256, 500, 1600])
def test_a_sample_saves_nearly_all_of_the_work(monkeypatch, count):
    rng = np.random.default_rng(5)
    features = (rng.normal(size=(8, 30))[rng.integers(0, 8, count)] * 2).astype(np.float32)
    features += rng.normal(size=features.shape).astype(np.float32)
    kept, split = [], cfcam_core.neighbours._split

    def counting(*args):
        near, eights, values = split(*args)
        kept.append(len(values) / (count * (count - 1) / 2))
        return near, eights, values

    monkeypatch.setattr(cfcam_core.neighbours, "_split", counting)
    found_pairs(features, percentile=25, least=0.0, rule="rank")
    assert len(kept) == 1
    assert kept[0] < 0.3


def test_error_bound_holds_and_is_not_idle():
    rng = np.random.default_rng(2)
    for offset in (0.0, 100.0):
        features = (rng.lognormal(0, 2, (150, 1)) * rng.normal(offset, 1, (150, 60))).astype(
            np.float32
        )
        table = Distances.of(features)
        exact = exact_squares(features)
        worst = 0.0
        for first, rows, width, _ in blocks_of(150):
            block = table.block(first, rows, width)[:, : 150 - first]
            here = np.isfinite(block)
            error = np.abs(block - exact[first : first + rows, first:])
            worst = max(worst, error[here].max())
        assert 0 < worst <= table.error < 1e4 * worst


@pytest.mark.parametrize("count", [2, 63, 64, 65, 192, 1000, 2049])
def test_blocks_hold_every_pair_once_and_nothing_else_finite(count):
    features = np.random.default_rng(6).normal(size=(count, 4)).astype(np.float32)
    table = Distances.of(features)
    pairs = np.zeros((count, count), np.intp)
    for first, rows, width, _ in blocks_of(count):
        finite = np.isfinite(table.block(first, rows, width))
        assert not finite[:, count - first :].any()
        pairs[first : first + rows, first:] += finite[:, : count - first]
    np.testing.assert_array_equal(pairs, np.triu(np.ones_like(pairs), 1))


def test_least_radius_applies():
    features = np.array([[0], [1e-3], [2e-3], [1]], np.float32)
    adjacency, radius = found_pairs(features, percentile=0, least=0.01, rule="rank")
    assert radius == 0.01
    np.testing.assert_array_equal(adjacency.sum(axis=1), [3, 3, 3, 1])


@given(small_integers, st.integers(1, 6), st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]))
def test_dbscan_equals_scikit_learn(features, min_samples, radius):
    apart = squareform(pdist(features))
    wanted = DBSCAN(eps=radius, min_samples=min_samples, metric="precomputed").fit(apart).labels_
    np.testing.assert_array_equal(labels_of(apart <= radius, min_samples), wanted)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 500])
def test_dbscan_equals_scikit_learn_beyond_one_word(count):
    rng = np.random.default_rng(count)
    apart = squareform(pdist(rng.integers(0, 40, (count, 2)).astype(float)))
    for radius, least in [(2.0, 3), (3.0, 4), (4.0, 8), (1.0, 2)]:
        wanted = DBSCAN(eps=radius, min_samples=least, metric="precomputed").fit(apart).labels_
        np.testing.assert_array_equal(labels_of(apart <= radius, least), wanted)


@pytest.mark.parametrize("shape", [(40, 4), (40, 15), (40, 16), (300, 49), (90, 300)])
@pytest.mark.parametrize("dead", [0, 20])
def test_float32_rule_gives_scikit_learns_labels(shape, dead):
    compare_with_public_steps(np.random.default_rng(3), shape, dead)


@pytest.mark.parametrize("shape", [(5, 4), (5, 15), (8, 4), (11, 9), (12, 9), (12, 16), (3, 16)])
def test_float32_rule_follows_scikit_learns_choice_of_search(shape):
    for seed in range(60):
        compare_with_public_steps(np.random.default_rng(seed), shape, 0, min_samples=2)


@pytest.mark.parametrize("rule", ["rank", "float32"])
def test_near_ties_are_decided_exactly(rule):
    """Values one rounding step apart and nearly equal rows: all that float32 cannot tell apart."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        steps = rng.integers(0, 3, (20, 6)).astype(np.float32) * np.float32(2**-23)
        features = np.float32(1) + steps
        if seed % 2:
            features = np.repeat(rng.normal(size=(7, 6)), 3, axis=0).astype(np.float32)
            features += rng.normal(0, 1e-7, features.shape).astype(np.float32)
        if rule == "rank":
            adjacency, _ = found_pairs(features, percentile=25, least=0.0, rule="rank")
            np.testing.assert_array_equal(adjacency, rank_rule(features, 25))
        else:
            squares = exact_squares(features)
            adjacency, radius = found_pairs(features, percentile=25, least=0.0, rule="float32")
            np.testing.assert_array_equal(adjacency, squares <= radius * radius)


@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_very_long_features(size):
    features = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    adjacency, _ = found_pairs(features, percentile=25, least=0.0, rule="rank")
    np.testing.assert_array_equal(adjacency, rank_rule(features, 25))


def test_a_common_offset_does_not_blur_the_table():
    features = np.random.default_rng(1).normal(1e4, 1, (100, 30)).astype(np.float32)
    table = Distances.of(features)
    assert table.error < 1e-3 * exact_squares(features).max()


def test_dbscan_gives_a_shared_border_point_to_the_first_cluster():
    x = np.array([0, 0.4, 0.8, 1.8, 2.8, 3.2, 3.6])
    near = np.abs(x[:, None] - x) <= 1.0001
    assert labels_of(near, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]


def compare_with_public_steps(rng, shape, dead, min_samples=4):
    """Radius and labels as the public code gets them, from NumPy and scikit-learn themselves."""
    features = np.maximum(rng.normal(size=shape), 0).astype(np.float32)
    features[:dead] = 0
    full = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(full, np.inf)
    wanted_radius = max(np.percentile(full[full != np.inf], 25), 1e-5)
    adjacency, radius = found_pairs(features, percentile=25, least=1e-5, rule="float32")
    assert radius == float(wanted_radius)
    wanted = DBSCAN(eps=wanted_radius, min_samples=min_samples).fit(features).labels_
    np.testing.assert_array_equal(labels_of(adjacency, min_samples), wanted)
