"""Weights in random order: what backends share that can make a model forget what it has learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import index

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError


def is_weight(shape: Sequence[int]) -> bool:
    """Return whether an array is a kernel or a matrix: two or more axes longer than 1.

    Biases, and the scales, shifts and statistics of norms, have one. They keep their values: in
    random order they would blow up or silence channels, and what is then tested is that.
    """
    return sum(size > 1 for size in shape) >= 2


def checked_seed(seed: int) -> int:
    """Return a seed, or raise `InvalidInputError` where it is no whole number from 0 on."""
    try:
        number = index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise InvalidInputError(f"seed={seed!r}; wanted a whole number, 0 or more")
    return number


def shuffles(
    sizes: Mapping[str, int], seed: int, last: int | None
) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield which weights get their values in another order, the last one first, and in which.

    Parameters
    ----------
    sizes : mapping of str to int
        Number of values of each weight, in the order of the model, the output's last.
    seed : int
        A weight's order depends on it and on the weight's place from the end, not on `last`.
    last : int or None
        How many weights from the end; None for all.

    Raises
    ------
    InvalidInputError
        There is no weight, or an argument is out of range.
    """
    if not sizes:
        raise InvalidInputError(
            "the model has no weights in floating point that can be found, so none can be put in "
            "random order; pass models of your own with randomised="
        )
    count = len(sizes) if last is None else index(last)
    if not 1 <= count <= len(sizes):
        raise InvalidInputError(
            f"last={last}; the model has {len(sizes)} weights, so allowed are 1 to {len(sizes)}, "
            "or None for all"
        )
    seed = checked_seed(seed)
    for place, name in enumerate(reversed(list(sizes))):
        if place < count:
            yield name, np.random.default_rng((seed, place)).permutation(sizes[name])
