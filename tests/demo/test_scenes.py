import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cfcam_core.demo.shipped import load_scenes

PATH = Path(__file__).parents[2] / "examples" / "digit_scenes" / "scenes.py"


@pytest.fixture(scope="module")
def scenes():
    spec = importlib.util.spec_from_file_location("digit_scenes_scenes", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def drawn(scenes):
    return scenes.make_scenes(60, scenes.split_digits()[1], seed=11)


def test_digits_are_split_without_overlap(scenes):
    training, held_out = scenes.split_digits()
    assert not set(training) & set(held_out)
    assert sorted({*training, *held_out}) == list(range(1797))
    assert len(held_out) == round(1797 * scenes.HELD_OUT)
    assert set(load_digits().target[held_out]) == set(range(10))


def test_scenes_use_only_the_digits_they_were_given(scenes, drawn):
    training, held_out = scenes.split_digits()
    assert set(drawn.sources.ravel()) <= set(held_out)
    assert not set(drawn.sources.ravel()) & set(training)
    two = np.flatnonzero(np.isin(load_digits().target, (3, 7)))[:40]
    assert set(scenes.make_scenes(20, two, seed=0).labels.ravel()) == {3, 7}


def test_a_seed_decides_everything(scenes, drawn):
    held_out = scenes.split_digits()[1]
    again, other = (scenes.make_scenes(20, held_out, seed) for seed in (11, 12))
    for field in ("images", "labels", "masks", "sources"):
        np.testing.assert_array_equal(getattr(again, field), getattr(drawn, field)[:20])
        assert (getattr(other, field) != getattr(again, field)).any()


def test_two_different_digits_named_by_their_source(drawn):
    assert (drawn.labels[:, 0] != drawn.labels[:, 1]).all()
    np.testing.assert_array_equal(drawn.labels, load_digits().target[drawn.sources])


def test_masks_are_disjoint_and_where_the_ink_is(scenes, drawn):
    assert drawn.images.shape == (60, 64, 64)
    assert drawn.images.dtype == np.uint8
    assert set(np.unique(drawn.masks)) == {0, 1}
    assert drawn.masks.sum(axis=1).max() == 1
    for image, pair in zip(drawn.images, drawn.masks, strict=True):
        for mask in pair:
            rows, columns = np.nonzero(mask)
            assert 12 <= np.ptp(rows) + 1 <= scenes.DIGIT[1]
            assert np.ptp(columns) + 1 <= scenes.DIGIT[1]
            assert image[mask == 1].mean() > image[pair.sum(axis=0) == 0].mean() + 50


def test_digits_stand_anywhere(drawn):
    covered = drawn.masks.any(axis=(0, 1))
    quarters = covered.reshape(2, 32, 2, 32).mean(axis=(1, 3))
    assert quarters.min() > 0.6


def test_multi_hot(scenes):
    answers = scenes.multi_hot(np.array([[3, 0], [9, 1]]))
    assert answers.dtype == np.float32
    assert [np.flatnonzero(row).tolist() for row in answers] == [[0, 3], [1, 9]]


def test_the_shipped_scenes_are_those_of_the_script(scenes):
    shipped, made = load_scenes(), scenes.shipped_scenes()
    np.testing.assert_array_equal(shipped.labels, made.labels)
    np.testing.assert_array_equal(shipped.masks, made.masks)
    difference = np.abs(shipped.images.astype(int) - made.images)
    assert difference.max() <= 1  # rounding may differ between versions of NumPy and SciPy
    assert set(made.sources.ravel()) <= set(scenes.split_digits()[1])
