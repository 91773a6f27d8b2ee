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


def find_fold(tokens: int, size: tuple[int, int], prefix: int | None = None) -> Fold | None:
    """Return how `tokens` lie on an input of this size, or None if they do not.

    Patches are as wide as high: of p pixels, an input H x W has H / p rows and W / p columns.
    Where p divides both goes first; then what is rounded down, as by a convolution that drops the
    rest, or up, as by one that pads it. Each time the smallest prefix wins.

    Parameters
    ----------
    tokens : int
        Number of tokens T.
    size : tuple of int
        Height and width of the input. Of a video the patches are no cubes, and their number does
        not tell their size.
    prefix : int, optional
        Number of tokens in front, if it is known.
    """
    allowed = range(MOST_PREFIX + 1) if prefix is None else [prefix]
    for grids in (_divided(size), _rounded(size)):
        found = {tokens - math.prod(grid): grid for grid in grids}
        for count in allowed:
            if count in found:
                return Fold(count, found[count])
    return None


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
