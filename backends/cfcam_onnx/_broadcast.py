"""Undoing broadcasting: what operators repeat, their gradients add up."""

from __future__ import annotations

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._graph import Shape
from cfcam_onnx._tensor import Tensor


def unbroadcast(e: Emitter, g: Tensor, x: Tensor, wide: Shape | None, core: int = 0) -> Tensor:
    """Return `g`, of shape `wide`, added up over the axes along which `x` was repeated.

    The last `core` axes are never repeated.
    """
    if x.shape is not None and wide is not None:
        axes = _repeated(x.shape, wide, core)
        if axes is not None:
            total = e.reduce("ReduceSum", g, axes)
            return e.reshape_like(total, x) if len(wide) > len(x.shape) else total
    return _at_run_time(e, g, x)


def _repeated(small: Shape, large: Shape, core: int) -> list[int] | None:
    """Return the axes of `large` along which `small` was repeated, or None if that is not known."""
    lead = len(large) - len(small)
    axes = list(range(lead))
    for axis in range(lead, len(large) - core):
        mine, theirs = small[axis - lead], large[axis]
        if mine == 1 and theirs != 1:
            axes.append(axis)
        elif not isinstance(mine, int) and (mine is None or mine != theirs):
            return None
    return axes


def _at_run_time(e: Emitter, g: Tensor, x: Tensor) -> Tensor:
    """Sum where the shape of `x`, filled up with ones in front, is 1."""
    shape, wide = e.shape_of(x), e.op("Shape", g, dtype=np.int64)
    missing = e.op("Size", wide, dtype=np.int64) - e.op("Size", shape, dtype=np.int64)
    ones = e.op("Expand", e.ints(1), e.reshape(missing, [1]))
    full = e.op("Concat", ones, shape, axis=0)
    repeated = e.op("Equal", full, e.ints(1), dtype=np.bool_)
    axes = e.op("Squeeze", e.op("NonZero", repeated, dtype=np.int64), e.ints(0))
    total = e.op("ReduceSum", g, axes, keepdims=1, noop_with_empty_axes=1)
    return e.reshape_like(total, x)
