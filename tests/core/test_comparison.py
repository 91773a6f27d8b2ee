"""What a comparison says: means, marks, ranks, and its files, byte for byte."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from compared_toys import HEADS, MASKS, METHODS, QUICK, compared, same
from toy_backend import Toy

from cfcam_core import InvalidInputError
from cfcam_core.evaluation.comparison import Comparison


@pytest.fixture
def toy():
    return Toy(HEADS, shortcut=0.01)


def test_means_and_counts_leave_out_what_has_no_value(toy):
    found = compared(toy, masks={"0": MASKS[0], "3": MASKS[3]})
    assert found.counts[:, 0].tolist() == [2] * 4
    assert found.counts[:, 1].tolist() == [5] * 4
    for m in range(4):
        energies = found.values[m, :, 0]
        assert np.isnan(energies[[1, 2, 4]]).all()
        assert found.means[m, 0] == pytest.approx(energies[[0, 3]].mean())
        low, high = found.intervals[m][0].low, found.intervals[m][0].high
        assert energies[[0, 3]].min() - 1e-12 <= low <= found.means[m, 0] <= high + 1e-12


def _table(values, better="higher"):
    """A comparison of given numbers (M, I) under a metric of that direction."""
    name = {"higher": "road", "lower": "deletion", None: "sparseness"}[better]
    values = np.asarray(values, float)
    return Comparison(
        methods=tuple("abcdef"[: len(values)]),
        metrics=(name,),
        images=tuple(map(str, range(values.shape[1]))),
        values=values[:, :, None],
        targets=np.zeros(values.shape[1], np.intp),
        statuses=(("ok",) * values.shape[1],) * len(values),
        curves={},
        settings={"seed": 0},
    )


def test_the_best_is_marked_and_what_the_tests_do_not_tell_from_it():
    noise = np.random.default_rng(1).normal(0, 1e-3, (3, 20))
    values = np.array([[0.5], [0.5], [0.1]]) + noise
    values[0] += 1e-4
    assert _table(values).marks("road") == ("best", "tied", "")
    assert _table(values, "lower").marks("deletion") == ("", "", "best")
    assert _table(values, None).marks("sparseness") == ("", "", "")
    assert _table(values).ranks["road"].mean_ranks[2] == 3
    assert _table(values, "lower").ranks["deletion"].mean_ranks[2] == 1
    assert not _table(values, None).ranks


def test_what_differs_by_rounding_alone_is_best_together():
    assert _table(np.array([[0.3] * 4, [0.1 + 0.2] * 4, [0.2] * 4])).marks("road") == (
        *("best", "best", "tied"),
    )


def test_what_differs_by_rounding_alone_has_the_same_rank():
    values = np.random.default_rng(0).random(20).round(3) + np.array([[0], [1e-8], [-0.5]])
    ranks = _table(values).ranks["road"]
    assert ranks.mean_ranks == (1.5, 1.5, 3)
    assert [pair.differing for pair in ranks.pairs] == [0, 20, 20]


def test_few_images_tie_everything():
    values = np.arange(3)[:, None] + np.zeros((3, 4))
    found = _table(values)
    assert found.marks("road") == ("tied", "tied", "best")
    assert found.least_images == 7  # 3 pairs: 3 * 2 / 2^7 = .047
    wide = _table(np.arange(3)[:, None] + np.zeros((3, 7)))
    assert wide.marks("road") == ("", "", "best")


def test_a_method_without_any_value_is_neither_best_nor_tied():
    values = np.array([[1.0, 2, 3], [np.nan] * 3])
    found = _table(values)
    assert found.marks("road") == ("best", "")
    assert not found.ranks
    assert "no value" in found.to_html()
    assert Comparison.from_json(found.to_json()).to_json() == found.to_json()


def test_csv_has_a_row_for_every_map_with_all_digits(toy, tmp_path):
    found = compared(toy, masks={"1": MASKS[1]})
    text = found.to_csv(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 4 * 5
    for k, row in enumerate(rows):
        i, m = divmod(k, 4)
        assert (row["image"], row["method"]) == (str(i), METHODS[m])
        for q, name in enumerate(QUICK):
            value = float(row[name]) if row[name] else float("nan")
            np.testing.assert_array_equal(value, found.values[m, i, q])


def test_json_comes_back_as_it_went(toy):
    found = compared(toy, metrics=[*QUICK, "insertion"], masks={"1": MASKS[1]})
    text = found.to_json()
    json.loads(text, parse_constant=pytest.fail)  # no NaN, which is not JSON
    back = Comparison.from_json(text)
    np.testing.assert_array_equal(back.values, found.values)
    same(back, found)


def test_the_order_in_memory_changes_no_byte():
    values = np.random.default_rng(0).random((3, 300))
    turned = np.asfortranarray(values)
    assert _table(turned).to_json() == _table(values).to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cfcam comparison": 99}', "null"])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"not what Comparison\.to_json writes"):
        Comparison.from_json(text)


def test_the_same_seed_gives_the_same_bytes(toy):
    metrics = ["road", "keep-minus-delete"]
    first, again = (compared(toy, metrics=metrics, seed=4) for _ in range(2))
    same(first, again)
    other = compared(toy, metrics=metrics, seed=5)
    assert other.to_csv() != first.to_csv()
