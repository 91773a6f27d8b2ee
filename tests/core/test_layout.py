"""Layers' arrays turned to maps and back; tokens on grids that were seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.layout import Layout, patches_on
from cfcam_core.tokens import MOST_PREFIX, Fold

SIZES = st.integers(2, 9)


def numbered(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("shape", [(2, 7, 5), (2, 5, 7, 3), (1, 4, 3, 2, 6)])
def test_channels_come_first_and_go_back(shape):
    for axis in range(1, len(shape)):
        layout, array = Layout("a", axis), numbered(*shape)
        maps = layout.maps(array, None)
        assert maps.shape[1] == shape[axis]
        np.testing.assert_array_equal(layout.array(maps, array * 0), array)


@given(rows=SIZES, columns=SIZES, prefix=st.integers(0, 3), last=st.booleans())
def test_tokens_come_as_rows_and_columns_and_go_back(rows, columns, prefix, last):
    tokens = numbered(2, 5, prefix + rows * columns)
    array = tokens.swapaxes(1, 2) if last else tokens
    layout = Layout("a", 2 if last else 1, Fold(prefix, (rows, columns)), (4 * rows, 4 * columns))
    maps = layout.maps(array, (4 * rows, 4 * columns))
    assert maps.shape == (2, 5, rows, columns)
    np.testing.assert_array_equal(maps[:, :, 1, 0], tokens[:, :, prefix + columns])
    changed = layout.array(2 * maps, array)
    np.testing.assert_array_equal(layout.maps(changed, layout.size), 2 * maps)
    fronts = [np.moveaxis(one, layout.channels, 1)[:, :, :prefix] for one in (changed, array)]
    np.testing.assert_array_equal(*fronts)


def test_tokens_of_an_input_of_another_size():
    layout = Layout("blocks.2", 2, Fold(1, (4, 6)), (16, 24))
    assert layout.maps(numbered(1, 1 + 3 * 8, 5), (12, 32)).shape == (1, 5, 3, 8)
    with pytest.raises(cfcam.InvalidInputError, match=r"tokens of layer 'blocks.2'"):
        layout.maps(numbered(1, 1 + 23, 5), (12, 32))


@given(rows=SIZES, columns=SIZES, prefix=st.integers(0, 3))
def test_a_grid_that_was_seen_is_found_again(rows, columns, prefix):
    fold = patches_on(prefix + rows * columns, [(31, 37), (rows, columns)])
    assert fold == Fold(prefix, (rows, columns)) or (fold and fold.prefix < prefix)


@pytest.mark.parametrize(
    ("tokens", "grids", "wanted"),
    [
        (197, [(14, 14)], Fold(1, (14, 14))),
        (49, [(56, 56)], Fold(0, (7, 7))),  # merged three times, as Swin does
        (201, [(14, 14)], Fold(5, (14, 14))),  # four registers
        (6, [(3, 5)], Fold(0, (2, 3))),  # 1.5 and 2.5, rounded up
        (100, [(7, 7)], None),
        (MOST_PREFIX + 1 + 49, [(7, 7)], None),
        (7, [(2, 2)], Fold(3, (2, 2))),
        (8, [(2, 2)], None),  # no more in front than there are patches
        (50, [], None),
    ],
)
def test_tokens_on_grids(tokens, grids, wanted):
    assert patches_on(tokens, grids) == wanted
