import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.evaluation import chance_overlap, rank_biased_overlap, ranking
from cfcam_core.evaluation.rankings import overlaps

orders = st.integers(1, 40).flatmap(lambda m: st.permutations(range(m)))
two_orders = st.integers(1, 40).flatmap(
    lambda m: st.tuples(st.permutations(range(m)), st.permutations(range(m)))
)
ps = st.floats(0.05, 0.98)


def by_sets(a, b, p):
    """Return the sum of the definition, term by term."""
    m = len(a)
    terms = (p ** (d - 1) * len(set(a[:d]) & set(b[:d])) / d for d in range(1, m + 1))
    return (1 - p) * sum(terms) + p**m


@pytest.mark.parametrize(
    ("a", "b", "p", "overlap"),
    [
        ("abcd", "abcd", 0.9, 1),
        ("ab", "ba", 0.5, 0.5),  # .5 (0 + .5 * 1) + .25
        ("abc", "bac", 0.5, 0.5),  # .5 (0 + .5 + .25) + .125
        ("abcd", "dcba", 0.5, 5 / 24),  # .5 (0 + 0 + .25 * 2/3 + .125) + .0625
        ("abc", "acb", 0.2, 0.92),  # .8 (1 + .2 / 2 + .04) + .008
        ("a", "a", 0.3, 1),
    ],
)
def test_by_hand(a, b, p, overlap):
    assert rank_biased_overlap(a, b, p=p) == pytest.approx(overlap, abs=1e-12)


def test_p_is_point_nine_where_nothing_is_said():
    assert rank_biased_overlap("ab", "ba") == pytest.approx(0.9)  # .1 (0 + .9) + .81


@given(two_orders, ps)
def test_equals_the_definition_and_its_form_for_many_pairs(pair, p):
    a, b = pair
    wanted = by_sets(a, b, p)
    assert rank_biased_overlap(a, b, p=p) == pytest.approx(wanted, abs=1e-12)
    several = overlaps(np.array([a, b, a]), np.array([b, a, a]), p=p)
    np.testing.assert_allclose(several, [wanted, wanted, 1], atol=1e-12)


@given(two_orders, ps)
def test_properties(pair, p):
    a, b = pair
    overlap = rank_biased_overlap(a, b, p=p)
    assert 0 < overlap <= 1
    assert (overlap == 1) == (a == b)
    assert rank_biased_overlap(b, a, p=p) == overlap
    names = [f"segment {7 * i}" for i in range(len(a))]
    renamed = rank_biased_overlap([names[i] for i in a], [names[i] for i in b], p=p)
    assert renamed == overlap


def test_other_orders_stay_below_one_where_the_difference_is_lost_in_rounding():
    """The last two of forty at p = .2: 1 - 1e-28."""
    swapped = [*range(38), 39, 38]
    assert rank_biased_overlap(range(40), swapped, p=0.2) < 1
    assert all(rank_biased_overlap(range(m), range(m), p=0.7) == 1 for m in range(1, 60))


@given(orders)
def test_ids_may_be_arrays_and_nothing_is_changed(a):
    given_ids = np.array(a) * 3
    before = given_ids.copy()
    assert rank_biased_overlap(given_ids, given_ids.tolist()) == 1
    np.testing.assert_array_equal(given_ids, before)


@pytest.mark.parametrize(("p", "level"), [(0.2, 0.0313), (0.5, 0.05), (0.8, 0.125), (0.9, 0.2463)])
def test_rankings_drawn_at_random_agree_this_far(p, level):
    rng = np.random.default_rng(0)
    a, b = (np.argsort(rng.random((40_000, 40))) for _ in range(2))
    assert overlaps(a, b, p=p).mean() == pytest.approx(level, abs=0.0025)
    assert chance_overlap(40, p=p) == pytest.approx(level, abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "p", "message"),
    [
        ([0, 1], [0, 2], 0.9, "different items: 2 and 2, of which 1 are in both"),
        ([0, 1], [0, 1, 2], 0.9, "different items: 2 and 3"),
        ([0, 0], [0, 1], 0.9, "ranking a holds 2 items, 1 of them distinct"),
        ([0, 1], [1, 1], 0.9, "ranking b holds"),
        ([], [], 0.9, "ranking a is empty"),
        (np.zeros((2, 2)), [0, 1], 0.9, "cannot be told apart"),
        ([0, 1], [0, 1], 1, "p=1; wanted a number between 0 and 1"),
        ([0, 1], [0, 1], 0.0, "p=0.0"),
        ([0, 1], [0, 1], float("nan"), "p=nan"),
        ([0, 1], [0, 1], "0.9", "p='0.9'"),
    ],
)
def test_bad_rankings_are_refused(a, b, p, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        rank_biased_overlap(a, b, p=p)


def test_ranking_is_descending_and_ties_stay_in_order():
    assert ranking([0.5, 2, 0.5, -1, 2]).tolist() == [1, 4, 0, 2, 3]
    assert ranking([[1, 2], [2, 1], [0, 0]]).tolist() == [[1, 0], [0, 1], [0, 1]]
    with pytest.raises(cfcam.InvalidInputError, match="NaN or infinity"):
        ranking([1, np.nan])
