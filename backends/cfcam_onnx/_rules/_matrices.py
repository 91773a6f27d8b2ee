"""Operators that are one matrix along each axis: found by running them on an identity."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._tensor import Tensor

STORED = 1 << 10
"""Positions along an axis up to which an identity is stored, in 4 MiB; others are made in a run."""

LONGEST = 1 << 14
"""Positions along an axis up to which an identity is made at all: it then takes 1 GiB."""


def identity(e: Emitter, x: Tensor, axis: int, dtype: Any) -> Tensor:
    """Return the identity matrix as large as `x` is along an axis, open sizes included.

    Raises
    ------
    NotImplementedError
        It would be larger than `LONGEST`.
    """
    size = x.fixed(axis)
    if size is not None and size[0] > LONGEST:
        raise NotImplementedError(f"{size[0]} positions along axis {axis}; at most {LONGEST}")
    if size is not None and size[0] <= STORED:
        return e.const(np.eye(size[0], dtype=dtype))
    one, zero = e.const(np.int64(1)), e.const(np.int64(0))
    count = e.op("Gather", e.shape_of(x), e.const(np.int64(axis)), axis=0)
    at = e.op("Range", zero, count, one)
    return e.cast(e.op("Equal", e.unsqueeze(at, 1), at, dtype=np.bool_), dtype)


def back_along(e: Emitter, g: Tensor, matrix: Tensor, axis: int, rank: int) -> Tensor:
    """Return the cotangent of x, g being that of x times a matrix (a, b) along an axis."""
    if axis == rank - 2:
        return e.op("MatMul", matrix, g)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], axis
    product = e.op("MatMul", e.transpose(g, *order), e.transpose(matrix, 1, 0))
    return e.transpose(product, *order)
