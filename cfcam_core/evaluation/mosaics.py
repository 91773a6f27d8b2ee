"""The grid pointing game: pictures of several classes in one, and which of them a map points at.

The ground truth is exact and needs no boxes. Always pointing at the middle, which does well on
photographs, does no better than chance here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.capture import number_array, read_only, real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation.localisation import energy_in_mask, pointing_game
from cfcam_core.explanation import Explanation
from cfcam_core.shuffling import checked_seed


@dataclass(frozen=True, slots=True, eq=False)
class GridPointing:
    """What `grid_pointing_game` returns, sample by sample. Arrays are read-only."""

    energy: NDArray[np.float64]
    """(N,): share of the positive map in the right cell, 0 to 1; NaN for a blank map."""
    hit: NDArray[np.bool_]
    """(N,): whether the maximum lies in the right cell; False for a blank map."""
    chance: float
    """What a map that knows nothing gets: one over the number of cells."""


def mosaic(
    pictures: ArrayLike, *, grid: tuple[int, int] = (2, 2), channels_last: bool = True
) -> NDArray[np.generic]:
    """Put pictures together in a grid, row by row.

    Parameters
    ----------
    pictures : array_like of shape (cells, H, W, C) or (N, cells, H, W, C)
        ``cells = rows * columns`` pictures of one size, for each mosaic; gray ones have C = 1.
    grid : tuple of two int
        Rows and columns.
    channels_last : bool
        False for pictures (C, H, W), as most models take them.

    Returns
    -------
    ndarray of the same dtype, shape (rows * H, columns * W, C), or (N, rows * H, columns * W, C)
        With ``channels_last=False`` the channels stand before the two spatial axes.

    Raises
    ------
    InvalidInputError
        The number of axes or of pictures does not fit.

    Examples
    --------
    >>> mosaic(np.arange(4).reshape(4, 1, 1, 1))[..., 0]
    array([[0, 1],
           [2, 3]])
    """
    rows, columns = _grid(grid)
    array = number_array(pictures, "pictures")
    if array.ndim not in {4, 5} or array.shape[-4] != rows * columns:
        layout = "H, W, C" if channels_last else "C, H, W"
        raise InvalidInputError(
            f"pictures have shape {array.shape}; a mosaic of {rows} x {columns} needs "
            f"({rows * columns}, {layout}) or (N, {rows * columns}, {layout})"
        )
    last = array if channels_last else np.moveaxis(array, -3, -1)
    *several, _, height, width, channels = last.shape
    cells = last.reshape(*several, rows, columns, height, width, channels)
    whole = np.moveaxis(cells, -3, -4).reshape(*several, rows * height, columns * width, channels)
    return np.ascontiguousarray(whole if channels_last else np.moveaxis(whole, -1, -3))


def draw_mosaics(
    classes: ArrayLike, count: int, seed: int, *, grid: tuple[int, int] = (2, 2)
) -> NDArray[np.intp]:
    """Choose which pictures make each mosaic: as many different classes as there are cells.

    Pass only pictures that the model recognises: what it does not see in a picture alone, no map
    can find in a mosaic.

    Parameters
    ----------
    classes : array_like of int, shape (P,)
        Class of each picture there is.
    count : int
        Number of mosaics.
    seed : int
        The first mosaics stay the same whatever the count.
    grid : tuple of two int
        Rows and columns.

    Returns
    -------
    ndarray of int, shape (count, rows * columns)
        Indices into `classes`, in the order that `mosaic` takes them. Every class is as likely as
        any other, however many pictures it has. Mosaics may share pictures.

    Raises
    ------
    InvalidInputError
        There are fewer classes than cells, or an argument is not a whole number.
    """
    known = number_array(classes, "classes")
    if known.ndim != 1 or known.dtype.kind not in "iu":
        raise InvalidInputError(
            f"classes are {known.dtype} of shape {known.shape}; wanted one integer a picture"
        )
    if count < 0 or seed < 0:
        raise InvalidInputError(f"count={count} and seed={seed}; both must be 0 or more")
    cells = prod(_grid(grid))
    members = [np.flatnonzero(known == one) for one in np.unique(known)]
    if len(members) < cells:
        raise InvalidInputError(
            f"there are pictures of {len(members)} classes; a mosaic needs {cells} different ones"
        )
    drawn = np.empty((count, cells), np.intp)
    for n, row in enumerate(drawn):
        rng = np.random.default_rng((checked_seed(seed), n))
        chosen = rng.choice(len(members), cells, replace=False)
        row[:] = [rng.choice(members[one]) for one in chosen]
    return drawn


def grid_pointing_game(
    heatmaps: ArrayLike | Explanation, cells: ArrayLike, *, grid: tuple[int, int] = (2, 2)
) -> GridPointing:
    """Measure whether each heatmap of a mosaic falls on the cell of the explained class.

    Parameters
    ----------
    heatmaps : array_like of shape (N, H, W), or Explanation
        Only positive values count. H and W must divide by the rows and columns of the grid.
    cells : array_like of int, shape (N,)
        Where the explained class stands: row by row, from 0.
    grid : tuple of two int
        Rows and columns.

    Returns
    -------
    GridPointing
        Energy and hit of each heatmap. A blank map has no energy to share out (NaN) and misses; a
        map that is the same everywhere has the energy of chance and misses too.

    Raises
    ------
    InvalidInputError
        Shapes do not fit, a cell is not in the grid, or values are not finite.

    Notes
    -----
    ``energy = sum_{p in cell} max(h_p, 0) / sum_p max(h_p, 0)``, and
    ``hit = all(p in cell for p with h_p = max h) and max h > 0``, as `pointing_game` counts.
    The paper takes grids of 3 x 3 and the pictures with the highest confidence.

    References
    ----------
    M. Böhle, M. Fritz and B. Schiele, "Convolutional Dynamic Alignment Networks for Interpretable
    Classifications", CVPR 2021: its localisation metric is the energy here. S. Rao, M. Böhle and
    B. Schiele, "Towards Better Understanding Attribution Methods", CVPR 2022, name it the grid
    pointing game. The hit is that of J. Zhang et al., "Top-down Neural Attention by Excitation
    Backprop", ECCV 2016, with a cell in place of a box.

    Examples
    --------
    >>> grid_pointing_game([[[3, 1], [0, 0]]], [0]).energy
    array([0.75])
    """
    rows, columns = _grid(grid)
    given = heatmaps.heatmaps if isinstance(heatmaps, Explanation) else heatmaps
    maps = real_array(given, "heatmaps")
    if maps.ndim != 3 or 0 in maps.shape:
        raise InvalidInputError(
            f"heatmaps have shape {maps.shape}; wanted (N, H, W), no axis empty; of one mosaic, "
            "pass heatmaps[None]"
        )
    height, width = maps.shape[1:]
    if height % rows or width % columns:
        nearest = (rows * max(1, round(height / rows)), columns * max(1, round(width / columns)))
        raise InvalidInputError(
            f"heatmaps of {height} x {width} do not divide into {rows} x {columns} equal cells; "
            f"make them at the mosaic's size, or at another that does: explain(..., size={nearest})"
        )
    where = number_array(cells, "cells")
    if where.shape != maps.shape[:1] or where.dtype.kind not in "iu":
        raise InvalidInputError(
            f"cells are {where.dtype} of shape {where.shape}; wanted {len(maps)} integers, one a "
            "heatmap"
        )
    if ((where < 0) | (where >= rows * columns)).any():
        raise InvalidInputError(
            f"cells {where.tolist()} are not all in a grid of {rows} x {columns}; allowed are 0 to "
            f"{rows * columns - 1}, row by row"
        )
    numbers = np.arange(rows * columns).reshape(grid)
    places = numbers.repeat(height // rows, axis=0).repeat(width // columns, axis=1)
    masks = places == where[:, None, None]
    return GridPointing(
        read_only(energy_in_mask(maps, masks)),
        read_only(pointing_game(maps, masks)),
        1 / (rows * columns),
    )


def _grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns, or raise `InvalidInputError`."""
    try:
        rows, columns = (index(n) for n in grid)
    except (TypeError, ValueError):
        rows, columns = 0, 0
    if min(rows, columns) < 1:
        raise InvalidInputError(
            f"grid {grid!r}; wanted rows and columns, two positive integers such as (2, 2)"
        )
    return rows, columns
