"""What a method makes of one sample, and the arithmetic that methods share."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Cam:
    """The class activation map of one sample."""

    map: NDArray[np.floating[Any]]
    """(*s), signed."""
    weights: NDArray[np.floating[Any]]
    """(C,): see `cfcam_core.Explanation.weights`."""
    labels: NDArray[np.intp] | None = None
    """(C,), for methods that cluster."""


def projection(terms: FloatArray, activations: FloatArray) -> FloatArray:
    """Return ``<E_c, A_c> / <A_c, A_c>`` for each channel, 0 where the channel is zero everywhere.

    The one number by which a channel's activations A_c were multiplied, if its term in the map is
    E_c (ours). Both have shape (C, *s).
    """
    A = rows(activations)
    return np.asarray(np.vecdot(rows(terms), A) / energy(A), np.float32)


def energy(channels: FloatArray) -> FloatArray:
    """Return the squared length of each row, 1 for a row of zeros, to divide by."""
    squared = np.vecdot(channels, channels)
    return np.where(squared > 0, squared, 1)


def near_one(array: FloatArray) -> tuple[FloatArray, int]:
    """Return ``array * 2**-k`` and k, with k = 0 unless magnitudes are extreme. Nothing is rounded.

    Squares and products of what comes back neither overflow nor vanish in float32.
    """
    largest = max(float(array.max()), -float(array.min()))
    exponent = int(np.frexp(largest)[1])
    return (array, 0) if abs(exponent) <= 20 else (np.ldexp(array, -exponent), exponent)


def rows(maps: FloatArray) -> FloatArray:
    """Return maps of shape (C, *s) as rows of a matrix, one a channel."""
    return maps.reshape(len(maps), prod(maps.shape[1:]))
