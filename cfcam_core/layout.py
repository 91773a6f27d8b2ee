"""How a layer's array lies: where its channels are, and which of its tokens are patches.

For backends that watch the layers of a model while it runs. Arithmetic alone; no framework.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.tokens import MOST_PREFIX, Fold, fold_of

Size = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How arrays (N, ...) of a layer become maps (N, C, *s), and the way back.

    Parameters
    ----------
    name : str
        The layer, for people.
    channels : int
        Axis of the channels.
    patches : Fold, optional
        How the tokens (N, T, C) or (N, C, T) lay on a grid when they were seen; None where the
        layer has none.
    size : tuple of int
        Spatial size of the input on which they were seen.
    """

    name: str
    channels: int
    patches: Fold | None = None
    size: Size = ()

    def maps(self, array: NDArray[Any], size: Size | None) -> NDArray[Any]:
        """Return a layer's array as maps; tokens in front of the patches are left out.

        Parameters
        ----------
        array : ndarray of shape (N, ...)
        size : tuple of int, optional
            Spatial size of this input.

        Raises
        ------
        InvalidInputError
            The tokens do not lie on a grid.
        """
        maps = np.moveaxis(array, self.channels, 1)
        if self.patches is None or size is None:
            return maps
        return self._fold(maps.shape[-1], size).maps(maps)

    def array(self, maps: NDArray[Any], own: NDArray[Any]) -> NDArray[Any]:
        """Return maps as the layer's array; what is in front of the patches is that of `own`.

        Parameters
        ----------
        maps : ndarray of shape (N, C, *s)
        own : ndarray of shape (N, ...)
            The layer's own array.
        """
        if self.patches is not None and maps.ndim == 4:
            front = np.moveaxis(own, self.channels, 1)[..., : self.patches.prefix]
            maps = Fold(self.patches.prefix, maps.shape[2:]).tokens(maps, front)
        return np.ascontiguousarray(np.moveaxis(maps, 1, self.channels))

    def _fold(self, tokens: int, size: Size) -> Fold:
        assert self.patches is not None  # noqa: S101 - the caller has asked
        if size == self.size:
            return self.patches
        seen = (self.patches.grid, self.size)
        return fold_of(self.name, tokens, size, self.patches.prefix, seen)


def patches_on(tokens: int, grids: Sequence[Size]) -> Fold | None:
    """Return how tokens lie on one of the grids that a model was seen to make of its input.

    Rows times columns tokens, and up to `MOST_PREFIX` in front. Grids are halved, too, as often as
    they can be: neighbouring patches are merged by some models.

    Parameters
    ----------
    tokens : int
        Number of tokens T.
    grids : sequence of (int, int)
        Rows and columns, in the order in which they were seen; the last that fits wins, and of one
        grid the least halved.
    """
    fits = []
    for age, seen in enumerate(reversed(grids)):
        halved, grid = 1, tuple(seen)
        while min(grid) >= 2:
            prefix = tokens - math.prod(grid)
            if 0 <= prefix <= min(MOST_PREFIX, math.prod(grid) - 1):
                fits.append((prefix, halved, age, Fold(prefix, grid)))
            halved *= 2
            grid = tuple(math.ceil(n / halved) for n in seen)
    return min(fits, key=lambda fit: fit[:3])[-1] if fits else None
