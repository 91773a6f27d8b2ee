"""Tokens laid out on a grid, and back: which of T tokens are patches, and in how many rows.

Arithmetic on sizes and arrays alone; nothing is known of graphs here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError

MOST_PREFIX = 16
"""Tokens in front of the patches, at most: a class token, one for distillation, registers (DINOv2
has up to 8)."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How tokens lie on a grid: the patches row by row, behind those that belong to no place."""

    prefix: int
    """Tokens in front: class, distillation, registers."""
    grid: tuple[int, ...]
    """Rows and columns of patches."""

    def maps(self, tokens: NDArray[Any]) -> NDArray[Any]:
        """Return the patches of (N, C, T) as (N, C, *grid); the prefix is left out."""
        return tokens[:, :, self.prefix :].reshape(*tokens.shape[:2], *self.grid)

    def tokens(self, maps: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
        """Return maps (N, C, *grid) as (N, C, T), with the prefix of the model's own tokens."""
        patches = maps.reshape(*maps.shape[:2], -1)
        return np.concatenate([own[:, :, : self.prefix], patches], axis=2)


Seen = tuple[tuple[int, ...], tuple[int, ...]]
"""A grid of patches, and the height and width of the input on which it was seen."""


def find_fold(
    tokens: int, size: tuple[int, int], prefix: int, seen: Seen | None = None
) -> Fold | None:
    """Return how `tokens` lie on an input of this size, or None if they do not.

    On another input, rows and columns grow with its height and width: of all grids with as many
    positions the one next to that wins. Patches that overlap make a row more or less than that.

    Where no grid was seen, patches are as wide as high: of p pixels, an input H x W has H / p rows
    and W / p columns. Where p divides both goes first; then what is rounded down, as by a
    convolution that drops the rest, or up, as by one that pads it.

    Parameters
    ----------
    tokens : int
        Number of tokens T.
    size : tuple of int
        Height and width of the input. Of a video the patches are no cubes, and their number does
        not tell their size.
    prefix : int
        Number of tokens in front.
    seen : tuple of two tuples of int, optional
        A grid, and the size of the input that it belongs to.
    """
    count = tokens - prefix
    if seen is not None:
        return _scaled(count, size, prefix, seen)
    for grids in (_divided(size), _rounded(size)):
        grid = next((grid for grid in grids if math.prod(grid) == count), None)
        if grid is not None:
            return Fold(prefix, grid)
    return None


def fold_of(
    layer: str, tokens: int, size: tuple[int, ...], prefix: int, seen: Seen | None = None
) -> Fold:
    """Return how the tokens of a layer lie on an input of this size.

    Raises
    ------
    InvalidInputError
        They do not lie on a grid.
    """
    height, width = size
    fold = find_fold(tokens, (height, width), prefix, seen)
    if fold is None:
        raise InvalidInputError(
            f"the {tokens} tokens of layer {layer!r}, {prefix} of them in front, are no rows and "
            f"columns of patches of an input of {height} x {width}; resize the input to a multiple "
            "of the model's patches"
        )
    return fold


def _scaled(count: int, size: tuple[int, int], prefix: int, seen: Seen) -> Fold | None:
    wanted = [n * now / then for n, then, now in zip(*seen, size, strict=True)]
    grids = [(n, count // n) for n in range(1, count + 1) if count % n == 0]
    errors = {grid: [abs(n - one) for n, one in zip(grid, wanted, strict=True)] for grid in grids}
    grid = min(grids, key=lambda one: sum(errors[one]), default=None)
    near = grid and all(e <= 1 + one / 8 for e, one in zip(errors[grid], wanted, strict=True))
    return Fold(prefix, grid) if grid and near else None


def _divided(size: tuple[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield the grids of patches that fill the input, at least 2 an axis."""
    whole = math.gcd(*size)
    for patch in range(1, min(size) // 2 + 1):
        if whole % patch == 0:
            yield tuple(n // patch for n in size)


def _rounded(size: tuple[int, int]) -> Iterator[tuple[int, ...]]:
    """Yield the grids of patches that do not, the rest padded, and then those that drop it."""
    for how in (math.ceil, math.floor):
        for patch in range(1, min(size)):
            grid = tuple(how(n / patch) for n in size)
            if min(grid) > 1:
                yield grid
