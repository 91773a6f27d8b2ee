"""Which class is explained: every form of ``target=``, resolved alike for every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError


def resolve_targets(
    target: Any, scores: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Resolve a target to class indices and to the cotangent of the logits.

    Parameters
    ----------
    target : None, int, sequence of int, or callable
        None is the arg-max of each row; an int serves all rows; a sequence gives one class a row. A
        callable gets `scores` and returns one of these, or float coefficients of shape (N, K): then
        the explained quantity is ``sum_k coefficients[n, k] * logits[n, k]``, for instance the
        difference of two classes.
    scores : ndarray of shape (N, K)
        Logits.

    Returns
    -------
    targets : ndarray of int, shape (N,)
        Class of each row; -1 where coefficients name no single class.
    cotangents : ndarray of float32, shape (N, K)
        Gradient of the explained quantity with respect to the logits.

    Raises
    ------
    InvalidInputError
        An index out of range, not an integer, or the wrong number of them.
    """
    rows, classes = scores.shape
    if callable(target):
        target = target(scores)
    if target is None:
        target = scores.argmax(axis=1)
    try:
        wanted = np.asarray(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"target {target!r} is not a class index: {error}") from error
    if wanted.dtype.kind in "fiu" and wanted.shape == scores.shape:
        with np.errstate(over="ignore"):
            coefficients = wanted.astype(np.float32)
        if not np.isfinite(coefficients).all():
            raise InvalidInputError("target coefficients contain NaN or infinity; wanted finite")
        return np.full(rows, -1), coefficients
    if wanted.dtype.kind not in "iu" or wanted.shape not in ((), (1,), (rows,)):
        raise InvalidInputError(
            f"target {target!r} does not name classes; allowed are None, one int, {rows} ints "
            f"(one a sample), or a callable giving these or coefficients of shape {scores.shape}"
        )
    indices = np.broadcast_to(wanted.astype(np.intp), (rows,))
    if ((indices < 0) | (indices >= classes)).any():
        raise InvalidInputError(
            f"target {wanted.tolist()} is out of range: this model has {classes} classes, "
            f"0 to {classes - 1}"
        )
    cotangents = np.zeros((rows, classes), np.float32)
    cotangents[np.arange(rows), indices] = 1
    return indices.copy(), cotangents
