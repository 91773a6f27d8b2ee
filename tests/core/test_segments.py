import builtins

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.evaluation import grid_segments, quickshift_segments, segment_means
from cfcam_core.evaluation.segments import checked_segments

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)


def test_grid_by_hand():
    assert grid_segments((4, 3), 2).tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3], [2, 2, 3]]
    assert grid_segments((5,), 2).tolist() == [0, 0, 0, 1, 1]
    assert grid_segments((2, 3), 7).tolist() == [[0, 1, 2], [3, 4, 5]]


@given(sizes, st.integers(1, 9))
def test_every_cell_is_there_and_about_as_large_as_the_others(size, cells):
    labels = grid_segments(size, cells)
    assert labels.shape == size
    counts = np.bincount(labels.ravel())
    assert len(counts) == np.prod([min(n, cells) for n in size])
    edges = [np.unique(np.arange(n) * min(n, cells) // n, return_counts=True)[1] for n in size]
    assert all(np.ptp(edge) <= 1 for edge in edges)
    assert counts.min() == np.prod([edge.min() for edge in edges])


@pytest.mark.parametrize(("size", "cells"), [((4, 4), 0), ((0, 4), 2), ((), 2), ((4, 4), 1.5)])
def test_a_grid_of_nothing_is_refused(size, cells):
    with pytest.raises(cfcam.InvalidInputError, match="wanted 1 or more"):
        grid_segments(size, cells)


def test_means_by_hand_and_of_one_segment():
    maps = np.array([[[1, 2, 9], [3, 4, 5]]], np.float32)
    assert segment_means(maps, np.array([[0, 0, 1], [0, 0, 2]])).tolist() == [[2.5, 9, 5]]
    assert segment_means(maps, np.zeros((2, 3), int)).tolist() == [[4]]


def test_quickshift_keeps_to_edges_and_numbers_from_zero():
    picture = np.zeros((40, 40, 3))
    picture[:, 20:] = (1, 0.2, 0)
    labels = quickshift_segments(picture)
    assert labels.shape == (40, 40)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert not set(labels[:, :18].ravel()) & set(labels[:, 22:].ravel())
    np.testing.assert_array_equal(labels, quickshift_segments(picture))
    gray = np.random.default_rng(0).random((24, 30))
    np.testing.assert_array_equal(quickshift_segments(gray), quickshift_segments(gray[..., None]))


def test_quickshift_refuses_what_is_no_picture():
    with pytest.raises(cfcam.InvalidInputError, match=r'segments="grid"'):
        quickshift_segments(np.zeros((4, 4, 2)))


def test_without_scikit_image_the_command_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("skimage"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(cfcam.BackendUnavailableError, match=r"cfcam\[evaluation\]"):
        quickshift_segments(np.zeros((8, 8, 3)))


def test_labels_of_ones_own_are_numbered_anew():
    assert checked_segments([[7, 7], [-1, 9]], (2, 2)).tolist() == [[1, 1], [0, 2]]
    for labels in ([[0.5, 1.0]], [[1, 2, 3]]):
        with pytest.raises(cfcam.InvalidInputError, match=r"wanted integers of shape \(1, 2\)"):
            checked_segments(labels, (1, 2))
