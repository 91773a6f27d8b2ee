"""What a comparison comes to in sentences: winners, ties, equals, gaps, too few images."""

import numpy as np
import pytest

from cfcam_core.evaluation import Comparison
from cfcam_core.evaluation.headlines import counted, headline

NOISE = np.random.default_rng(0).normal(0, 1e-2, (12, 3))
NOISE -= NOISE.mean(axis=0)


def said(values, metrics=("class-sensitivity",)):
    """Return the headlines of values (M, I, Q), as one text."""
    values = np.asarray(values, float)
    methods, images, _ = values.shape
    found = Comparison(
        methods=tuple("abcdef"[:methods]),
        metrics=metrics,
        images=tuple(map(str, range(images))),
        values=values,
        targets=np.zeros(images, np.intp),
        statuses=(("ok",) * images,) * methods,
        curves={},
        settings={"seed": 0},
    )
    return " ".join(headline(found)), str(found)


def spread(*means):
    """Return values (M, 12, 1) around means that the tests tell apart."""
    return np.array(means)[:, None, None] + NOISE.T[: len(means), :, None]


def test_a_winner_is_named():
    text, table = said(spread(0.2, 0.6, 0.9))
    assert "most class-sensitive is a with 0.200." in text
    assert "Best, and told apart from all other methods: a at class-sensitivity." in text
    for absent in ("need", "three digits", "some images", "blind"):
        assert absent not in text
    assert [line.split()[:2] for line in table.splitlines()[2:]] == [
        *(["a", "0.200*"], ["b", "0.600"], ["c", "0.900"]),
    ]


def test_who_is_tied_with_the_best_is_named():
    text, _ = said(spread(0.201, 0.2, 0.9))
    assert "is b with 0.200; not told apart from it: a." in text
    assert "At no measure do the tests tell one method from all others." in text


def test_winners_at_some_measures():
    both = np.concatenate([spread(0.2, 0.6, 0.9), spread(0.5, 0.5, 0.1)], axis=2)
    text, _ = said(both, ("class-sensitivity", "road"))
    assert "a at class-sensitivity. At all others two or more are tied." in text


def test_too_few_images_are_said_once_for_all_measures():
    few = np.arange(3.0)[:, None, None] + np.zeros((3, 4, 2))
    text, _ = said(few, ("class-sensitivity", "road"))
    assert "; no other is told apart from it." in text
    assert "the tests need 7 images or more" in text
    assert "with 4 all are tied at all measures." in text
    enough = np.arange(3.0)[:, None, None] + np.zeros((3, 7, 1))
    assert "need" not in said(enough)[0]


def test_images_without_a_value_count_for_their_measure_alone():
    values = np.concatenate([spread(0.2, 0.6, 0.9)] * 2, axis=2)
    values[:, 3:, 1] = np.nan
    text, _ = said(values, ("class-sensitivity", "energy-in-mask"))
    assert "Measured on some images alone: energy-in-mask (3 of 12)." in text
    assert "with 3 all are tied at energy-in-mask." in text


@pytest.mark.parametrize(("off", "same"), [(4e-4, True), (6e-4, False)])
def test_methods_with_the_same_values_are_named(off, same):
    values = spread(0.2, 0.6, 0.9)
    values[2] = values[0]
    values[2, 5] += off
    text, _ = said(values)
    assert ("The same to three digits on every image: a, c." in text) == same


def test_a_single_method_has_no_rivals():
    text, _ = said(spread(0.995))
    assert "Class-blind" in text
    assert "tests" not in text


def test_counting():
    assert (counted(1, "image"), counted(2, "image")) == ("1 image", "2 images")
