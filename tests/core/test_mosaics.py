import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.evaluation import draw_mosaics, energy_in_mask, grid_pointing_game, mosaic

grids = st.tuples(st.integers(1, 4), st.integers(1, 4))


def test_pictures_stand_row_by_row():
    pictures = np.arange(6, dtype=np.uint8).repeat(2 * 3 * 3).reshape(6, 2, 3, 3)
    whole = mosaic(pictures, grid=(2, 3))
    assert whole.dtype == np.uint8
    assert whole.shape == (4, 9, 3)
    cells = [[whole[2 * i : 2 * i + 2, 3 * j : 3 * j + 3] for j in range(3)] for i in range(2)]
    assert [[set(cell.flat) for cell in row] for row in cells] == [[{0}, {1}, {2}], [{3}, {4}, {5}]]


@given(grids, st.integers(0, 99))
def test_every_picture_is_found_again_whatever_the_layout(grid, seed):
    rows, columns = grid
    pictures = np.random.default_rng(seed).normal(size=(2, rows * columns, 3, 5, 2))
    several = mosaic(pictures, grid=grid)
    first = mosaic(np.moveaxis(pictures, -1, 2), grid=grid, channels_last=False)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), several)
    for n, cell in np.ndindex(2, rows * columns):
        y, x = 3 * (cell // columns), 5 * (cell % columns)
        np.testing.assert_array_equal(several[n, y : y + 3, x : x + 5], pictures[n, cell])
        np.testing.assert_array_equal(several[n], mosaic(pictures[n], grid=grid))


@pytest.mark.parametrize("cell", range(4))
def test_a_mosaic_and_its_game_count_cells_alike(cell):
    pictures = np.zeros((4, 2, 3, 1))
    pictures[cell] = 1
    game = grid_pointing_game([mosaic(pictures)[..., 0]] * 4, range(4))
    assert game.energy.tolist() == [float(cell == n) for n in range(4)]
    assert game.hit.tolist() == [cell == n for n in range(4)]
    assert game.chance == 0.25


@pytest.mark.parametrize(
    ("heatmap", "energy", "hit"),
    [
        ([[6, 2], [1, 1]], 0.6, True),
        ([[2, 6], [1, 1]], 0.2, False),
        ([[3, 3], [0, 0]], 0.5, False),
        ([[1, 1], [1, 1]], 0.25, False),
        ([[3, 1], [-5, 0]], 0.75, True),
        ([[0, 0], [0, 0]], np.nan, False),
        ([[-1, -2], [-2, -2]], np.nan, False),
    ],
)
def test_energy_and_hit_by_hand(heatmap, energy, hit):
    game = grid_pointing_game([heatmap], [0])
    np.testing.assert_allclose(game.energy, [energy])
    assert game.hit.tolist() == [hit]


@given(grids, st.integers(0, 99))
def test_the_cells_share_out_the_energy_and_at_most_one_is_hit(grid, seed):
    cells = np.arange(grid[0] * grid[1])
    heatmap = np.random.default_rng(seed).normal(size=(2 * grid[0], 3 * grid[1]))
    heatmap[0, 0] = 9
    game = grid_pointing_game([heatmap] * len(cells), cells, grid=grid)
    assert game.energy.sum() == pytest.approx(1)
    assert game.hit.tolist() == [True] + [False] * (len(cells) - 1)
    assert game.chance == 1 / len(cells)


def test_an_explanation_is_measured_by_its_heatmaps():
    A = np.random.default_rng(0).uniform(0.1, 1, (4, 3, 6, 8))
    e = cfcam.explain_arrays(A, A, method="grad-cam")
    mask = np.zeros((4, 6, 8))
    mask[:, 3:, :4] = 1
    game = grid_pointing_game(e, [2, 2, 2, 2])
    np.testing.assert_array_equal(game.energy, energy_in_mask(e.heatmaps, mask))
    assert not game.energy.flags.writeable


@pytest.mark.parametrize(
    ("heatmaps", "cells", "grid", "message"),
    [
        (np.ones((1, 5, 4)), [0], (2, 2), r"5 x 4 do not divide .* size=\(4, 4\)"),
        (np.ones((1, 4, 1)), [0], (2, 2), r"size=\(4, 2\)"),
        (np.ones((4, 4)), [0], (2, 2), r"heatmaps\[None\]"),
        (np.ones((0, 4, 4)), [], (2, 2), "no axis empty"),
        (np.ones((1, 4, 4)), [4], (2, 2), "allowed are 0 to 3"),
        (np.ones((1, 4, 4)), [-1], (2, 2), "allowed are 0 to 3"),
        (np.ones((1, 4, 4)), [0, 1], (2, 2), "wanted 1 integers"),
        (np.ones((1, 4, 4)), [0.0], (2, 2), "float64"),
        (np.ones((1, 4, 4)), [0], (2, 0), "two positive integers"),
        (np.ones((1, 4, 4)), [0], 2, "two positive integers"),
        (np.full((1, 4, 4), np.inf), [0], (2, 2), "not finite"),
    ],
)
def test_games_that_cannot_be_played_are_refused(heatmaps, cells, grid, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        grid_pointing_game(heatmaps, cells, grid=grid)


@pytest.mark.parametrize("shape", [(4, 2, 3), (3, 2, 3, 1), (2, 3, 2, 3, 1), (4, 4, 4, 4, 4, 4)])
def test_pictures_that_make_no_mosaic_are_refused(shape):
    with pytest.raises(cfcam.InvalidInputError, match=r"needs \(4, H, W, C\) or \(N, 4, H, W, C\)"):
        mosaic(np.ones(shape))


@given(st.lists(st.integers(0, 5), min_size=4, max_size=30), st.integers(0, 99), grids)
def test_drawn_pictures_differ_in_class_and_repeat_with_the_seed(classes, seed, grid):
    cells = grid[0] * grid[1]
    if len(set(classes)) < cells:
        with pytest.raises(cfcam.InvalidInputError, match=f"needs {cells} different"):
            draw_mosaics(classes, 3, seed, grid=grid)
        return
    drawn = draw_mosaics(classes, 5, seed, grid=grid)
    assert drawn.shape == (5, cells)
    assert all(len(set(row)) == cells for row in np.asarray(classes)[drawn].tolist())
    np.testing.assert_array_equal(drawn[:3], draw_mosaics(classes, 3, seed, grid=grid))


def test_draws_reach_every_picture_and_every_order_and_differ_between_seeds():
    classes = [0, 1, 2, 3, 4, 4, 4]
    drawn = draw_mosaics(classes, 400, 0)
    assert all(set(column) == set(range(7)) for column in drawn.T.tolist())
    assert not np.array_equal(drawn, draw_mosaics(classes, 400, 1))
    share = np.bincount(np.asarray(classes)[drawn].ravel()) / 1600  # classes, not pictures
    np.testing.assert_allclose(share, 0.2, atol=0.02)


@pytest.mark.parametrize(
    ("classes", "count", "seed", "message"),
    [
        ([0.0, 1, 2, 3], 1, 0, "float64"),
        ([[0, 1, 2, 3]], 1, 0, "one integer a picture"),
        ([0, 1, 2, 3], -1, 0, "0 or more"),
        ([0, 1, 2, 3], 1, -1, "0 or more"),
    ],
)
def test_draws_that_mean_nothing_are_refused(classes, count, seed, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        draw_mosaics(classes, count, seed)
