"""Which class is explained: every form of ``target=``, resolved alike for every backend."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import CfcamError, InvalidInputError


def resolve_targets(
    target: Any, scores: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Resolve a target to class indices and to the cotangent of the logits.

    Parameters
    ----------
    target : None, int, sequence of int, or callable
        None is the arg-max of each row; an int serves all rows; a sequence gives one class a row. A
        callable gets `scores`, a NumPy array whatever the framework, and returns

        - any of these: integers are classes, also of shape (N,);
        - floats of shape (N,), one value a row, such as ``lambda s: s[:, 281] - s[:, 282]``. A
          value may depend on its own row alone. Floats are values also where they are whole;
        - one float, a function of all rows, such as the sum of these values;
        - numbers of shape (N, K), also where K is 1: coefficients. Then the explained quantity is
          ``sum_k coefficients[n, k] * logits[n, k]``.
    scores : ndarray of shape (N, K)
        Logits.

    Returns
    -------
    targets : ndarray of int, shape (N,)
        Class of each row; -1 where values or coefficients name no single class.
    cotangents : ndarray of float32, shape (N, K)
        Gradient of the explained quantity with respect to the logits.

    Raises
    ------
    InvalidInputError
        An index out of range, not an integer, or the wrong number of them; or the callable fails.

    Notes
    -----
    The gradient of values is ours, by central differences in float64, for NumPy records none: one
    logit after the other is moved in all rows at once, which takes 2 K + 1 more calls, or
    2 N K + 1 where the callable returns a single float. The step is the cube root of the rounding
    error of what it returns, times the logit where that is larger than 1.
    """
    rows, classes = scores.shape
    function = target if callable(target) else None
    if function is not None:
        target = _asked(function, scores)
    if target is None:
        target = scores.argmax(axis=1)
    try:
        wanted = np.asarray(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"target {target!r} is not a class index: {error}") from error
    if function is not None and wanted.dtype.kind == "f" and wanted.shape in ((), (rows,)):
        wanted = _slopes(function, scores)
    if wanted.dtype.kind in "fiu" and wanted.shape == scores.shape:
        with np.errstate(over="ignore"):
            coefficients = wanted.astype(np.float32)
        if not np.isfinite(coefficients).all():
            raise InvalidInputError("target coefficients contain NaN or infinity; wanted finite")
        return np.full(rows, -1), coefficients
    if wanted.dtype.kind not in "iu" or wanted.shape not in ((), (1,), (rows,)):
        raise InvalidInputError(
            f"target {target!r} does not name classes; allowed are None, one int, {rows} ints "
            f"(one a sample), or a callable giving these, floats of shape ({rows},), one value a "
            f"sample, or coefficients of shape {scores.shape}"
        )
    indices = np.broadcast_to(wanted.astype(np.intp), (rows,))
    if ((indices < 0) | (indices >= classes)).any():
        has = (
            f"{classes} classes, 0 to {classes - 1}"
            if classes > 1
            else "one logit; target 0 explains it, and target=lambda s: -s[:, 0] what speaks "
            "against it"
        )
        raise InvalidInputError(f"target {wanted.tolist()} is out of range: this model has {has}")
    cotangents = np.zeros((rows, classes), np.float32)
    cotangents[np.arange(rows), indices] = 1
    return indices.copy(), cotangents


def _asked(function: Callable[[Any], Any], scores: NDArray[np.floating[Any]]) -> Any:
    """Return what the user's callable makes of the scores."""
    try:
        return function(scores)
    except (CfcamError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInputError(
            f"the target fails on the scores, a NumPy array of shape {scores.shape}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _slopes(
    function: Callable[[Any], Any], scores: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return the gradient (N, K) of values, (N,) or their sum, by central differences."""
    exact = scores.astype(np.float64)
    values = np.asarray(_asked(function, exact))
    steps = np.cbrt(np.finfo(values.dtype).eps) * np.maximum(1, np.abs(exact))
    slopes = np.empty_like(exact)
    moved: list[slice | int] = list(range(len(exact))) if values.ndim == 0 else [slice(None)]
    for rows, k in product(moved, range(exact.shape[1])):
        above, below = exact.copy(), exact.copy()
        above[rows, k] += steps[rows, k]
        below[rows, k] -= steps[rows, k]
        up, down = (np.asarray(_asked(function, s), np.float64) for s in (above, below))
        slopes[rows, k] = (up - down) / (above - below)[rows, k]
    return slopes
