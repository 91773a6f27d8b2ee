"""What a user feeds a model: checked against what the model takes, or refused with advice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError

Sizes = tuple[int | None, ...]
"""Batch first; None where any size is taken."""


def as_batch(
    array: NDArray[Any], shape: Sizes, called: str, *, channels: int | None = None
) -> NDArray[Any]:
    """Return an array as a batch of the shape that a model takes; one sample becomes one.

    Parameters
    ----------
    array : ndarray
    shape : tuple of int or None
        The batch, in front, is not compared.
    called : str
        What the array is called in an error.
    channels : int, optional
        Axis of the channels, for advice.

    Raises
    ------
    InvalidInputError
        The shape differs, or the array is empty.
    """
    if array.ndim == len(shape) - 1:
        array = array[None]
    if array.size and _fits(array.shape, shape):
        return array
    advice = "resize or reshape it"
    if array.ndim == len(shape) == 4:
        if channels is not None and shape[channels] not in (None, array.shape[channels]):
            wanted, there = shape[channels], array.shape[channels]
            advice = f"give it {wanted} channels on axis {channels}, not {there}"
        for axes in ((0, 2, 3, 1), (0, 3, 1, 2)):
            if _fits(tuple(array.shape[axis] for axis in axes), shape):
                advice = f"transpose it with axes {axes}"
    raise InvalidInputError(
        f"{called} has shape {array.shape}; the model takes {shown(shape)}, or one sample without "
        f"the first axis; {advice}"
    )


def as_dtype(array: NDArray[Any], dtype: np.dtype[Any], called: str) -> NDArray[Any]:
    """Return an array in the dtype that a model takes, in C order.

    Raises
    ------
    InvalidInputError
        A value is NaN or infinite in it, or no value of it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.asarray(array, dtype, order="C")
    if dtype.kind == "f" and not np.isfinite(converted).all():
        bad = int((~np.isfinite(converted)).sum())
        raise InvalidInputError(
            f"{called} holds {bad} values that are NaN or infinite in {dtype}; clean the array"
        )
    if dtype.kind in "iu" and not np.array_equal(converted, array):
        raise InvalidInputError(
            f"{called} has values that {dtype} cannot hold; the model takes whole numbers, unscaled"
        )
    return converted


def shown(shape: Sizes) -> str:
    """Return a shape for people: N for an open batch, ? for another open size."""
    sizes = [str(s) if s is not None else "?" for s in shape]
    if shape and shape[0] is None:
        sizes[0] = "N"
    return f"({', '.join(sizes)})"


def _fits(sizes: tuple[int, ...], wanted: Sizes) -> bool:
    return len(sizes) == len(wanted) and all(
        w in (None, s) for w, s in zip(wanted[1:], sizes[1:], strict=True)
    )
