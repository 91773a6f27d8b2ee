import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import cfcam_core as cfcam
from cfcam_core.evaluation import bootstrap, compare_ranks, friedman, holm, pair_tests
from cfcam_core.evaluation.bootstrap import percentile_interval, resampled

RATINGS = np.array(
    [[9.0, 7, 6], [9.5, 6.5, 8], [5, 7, 4], [8.5, 8.5, 6], [9.5, 5, 7], [7.5, 8, 6], [8, 6, 7]]
)
"""Seven judges, three wines, one tie."""


def test_friedman_by_hand_with_a_tie():
    """Rank sums 10.5, 14, 17.5: 12/(7*3*4) * sum R^2 - 3*7*4 = 3.5, over 1 - 6/168 for the tie."""
    found = friedman(-RATINGS)
    sums = stats.rankdata(RATINGS, axis=1).sum(axis=0)
    plain = 12 / (7 * 3 * 4) * (sums**2).sum() - 3 * 7 * 4
    assert found.statistic == pytest.approx(plain / (1 - 6 / (7 * (27 - 3))))
    assert found.p_value == pytest.approx(stats.chi2(2).sf(found.statistic))
    assert (found.blocks, found.reason) == (7, "")


def test_friedman_is_scipys_and_leaves_out_rows_with_a_gap():
    values = np.random.default_rng(0).normal(size=(12, 4)) + np.array([0, 0, 0.5, 1])
    oracle = stats.friedmanchisquare(*values.T)
    gaps = np.vstack([values[:5], [0, np.nan, 0, 0], values[5:]])
    for found in (friedman(values), friedman(gaps)):
        assert found.statistic == pytest.approx(oracle.statistic)
        assert found.p_value == pytest.approx(oracle.pvalue)
        assert found.blocks == 12


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((5, 2)), "three methods or more, there are 2"),
        (np.ones((1, 3)), "too few pictures with a value for every method: 1"),
        (np.full((4, 3), np.nan), "too few .*: 0"),
        (np.arange(4.0)[:, None] * np.ones(3), "the same value in every row"),
    ],
)
def test_friedman_says_why_it_has_no_value(values, reason):
    found = friedman(values)
    assert np.isnan([found.statistic, found.p_value]).all()
    assert re.search(reason, found.reason)


def test_holm_by_hand():
    """Holm's own steps: times 4, 3, 2, 1 in ascending order, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5, 0.8]) == pytest.approx([1, 1, 1])
    np.testing.assert_allclose(holm([0.03, np.nan, 0.01]), [0.03, np.nan, 0.02])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_rejects_what_its_procedure_rejects(p_values, random):
    """Step down until the first p above alpha / (k - i)."""
    alpha = random.uniform(0.001, 0.3)
    order = np.argsort(p_values, kind="stable")
    rejected = set()
    for i, index in enumerate(order):
        if p_values[index] * (len(order) - i) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(holm(p_values) <= alpha).tolist()) == rejected


def test_pairs_by_hand():
    """Differences 1, 2, -3, 4, 5, 0: W- = 3 of 15, so the effect is 9/15; exact p = 2 * 5/32."""
    second = np.zeros(6)
    first = np.array([1.0, 2, -3, 4, 5, 0])
    (found,) = pair_tests(np.stack([first, second], axis=1), ("a", "b"))
    assert (found.first, found.second, found.differing) == ("a", "b", 5)
    assert found.effect == pytest.approx(0.6)
    assert found.p_value == pytest.approx(10 / 32)
    (mirrored,) = pair_tests(np.stack([second, first], axis=1), ("b", "a"))
    assert mirrored.effect == -found.effect
    assert mirrored.p_value == pytest.approx(found.p_value)


def test_pairs_are_scipys_wilcoxon_with_holm():
    values = np.random.default_rng(3).normal(size=(40, 4)) + np.array([0, 0.2, 0.6, 0.7])
    names = ("a", "b", "c", "d")
    found = pair_tests(values, names)
    chosen = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    raw = [stats.wilcoxon(values[:, i], values[:, j]).pvalue for i, j in chosen]
    assert [(t.first, t.second) for t in found] == [(names[i], names[j]) for i, j in chosen]
    assert [t.p_value for t in found] == pytest.approx(raw)
    assert [t.adjusted for t in found] == pytest.approx(holm(raw))
    assert all(t.effect < 0 for t in found[1:3])


def test_methods_that_never_differ_and_rows_that_are_not_there():
    (same,) = pair_tests(np.ones((4, 2)), ("a", "b"))
    assert (same.p_value, same.adjusted, same.effect, same.differing) == (1, 1, 0, 0)
    (none,) = pair_tests(np.full((4, 2), np.nan), ("a", "b"))
    assert np.isnan([none.p_value, none.adjusted, none.effect]).all()
    found = compare_ranks(np.full((4, 2), np.nan), ("a", "b"))
    assert np.isnan(found.mean_ranks).all()
    assert found.friedman.reason


def test_ranks_and_groups():
    """Two good methods that hardly differ, one in the middle, one that is worse in every row."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(30, 1))
    values = base + [0, 2.0, 2.0, 1.0] + rng.normal(size=(30, 4)) * [0.1, 0.5, 0.5, 0.1]
    found = compare_ranks(values, ("worst", "good", "fine", "middle"))
    assert found.mean_ranks == pytest.approx(stats.rankdata(-values, axis=1).mean(axis=0))
    assert {frozenset(group) for group in found.groups} == {
        frozenset({1, 2}),
        frozenset({3}),
        frozenset({0}),
    }
    assert found.groups[-1] == (0,)
    assert found.friedman.p_value < 1e-6


def test_groups_may_overlap():
    """Neighbours do not differ, the ends do."""
    rng = np.random.default_rng(6)
    values = rng.normal(size=(25, 1)) + [0, 0.6, 1.2] + rng.normal(size=(25, 3)) * 1.4
    found = compare_ranks(values, ("low", "mid", "high"))
    apart = {(t.first, t.second) for t in found.pairs if t.adjusted < 0.05}
    assert apart == {("low", "high")}
    assert found.groups == ((2, 1), (1, 0))


def test_all_are_one_group_where_friedman_sees_nothing():
    """Whatever a pair of them says."""
    rng = np.random.default_rng(9)
    values = rng.normal(size=(25, 1)) + [0, 0.6, 1.2] + rng.normal(size=(25, 3)) * 1.4
    found = compare_ranks(values, ("a", "b", "c"))
    assert found.friedman.p_value > 0.05
    assert min(test.adjusted for test in found.pairs) < 0.05
    assert [set(group) for group in found.groups] == [{0, 1, 2}]
    (alone,) = compare_ranks(values[:, :1], ("a",)).groups
    assert alone == (0,)


def test_two_methods_are_judged_by_their_pair():
    values = np.arange(20.0)[:, None] + [0, 1]
    found = compare_ranks(values, ("low", "high"))
    assert found.groups == ((1,), (0,))
    assert found.mean_ranks == (2, 1)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.ones(3), ("a",)),
        (np.ones((2, 0)), ()),
        (np.ones((2, 2)), ("a",)),
        (np.ones((2, 2)), ("a", "a")),
        (np.full((2, 2), np.inf), ("a", "b")),
    ],
)
def test_bad_tables_are_refused(values, names):
    with pytest.raises(cfcam.InvalidInputError):
        compare_ranks(values, names)


def test_bootstrap_of_a_mean_is_about_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 200)
    found = bootstrap(values, draws=4000)
    error = values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert found == bootstrap(values, draws=4000)
    assert found != bootstrap(values, draws=4000, seed=1)
    narrow = bootstrap(values, draws=4000, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_bootstrap_with_gaps():
    """One value in three pictures: a draw misses it with chance (2/3)^3."""
    found = bootstrap([np.nan, 5, np.nan], draws=4000)
    assert (found.low, found.high) == (5, 5)
    assert found.undefined == pytest.approx(8 / 27, abs=0.02)
    nothing = bootstrap([np.nan, np.nan])
    assert np.isnan([nothing.low, nothing.high]).all()
    assert nothing.undefined == 1


def test_blocks_are_drawn_with_replacement():
    times = resampled(4, 6000, 0)
    assert (times.sum(axis=1) == 4).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(4), abs=0.05)
    assert times.var() == pytest.approx(0.75, abs=0.05)
    for blocks, draws in ((0, 5), (5, 0)):
        with pytest.raises(cfcam.InvalidInputError):
            resampled(blocks, draws, 0)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels(level):
    with pytest.raises(cfcam.InvalidInputError, match=r"such as 0\.95"):
        percentile_interval(np.ones(3), level)
    with pytest.raises(cfcam.InvalidInputError, match="one a picture"):
        bootstrap(np.ones((2, 2)))
