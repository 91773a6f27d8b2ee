"""Rules for operators that pick elements, or put some in the place of others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("Slice")
def slice_(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, rest = node.x, (None, None, None, None)
    parts = [node.optional(i) for i in range(1, 5)]
    starts, ends, axes, steps = (t.value if t is not None else None for t in parts)
    unknown = any(t is not None and t.value is None for t in parts)
    backwards = steps is not None and (steps != 1).any()
    if starts is None or ends is None or unknown or backwards or x.shape is None:
        return [e.replay(node, g), *rest]
    along = [int(a) % x.rank for a in (np.arange(len(starts)) if axes is None else axes)]
    sizes = x.fixed(*along)
    if sizes is None:
        return [e.replay(node, g), *rest]
    before, after = [0] * x.rank, [0] * x.rank
    for axis, size, start, end in zip(along, sizes, starts, ends, strict=True):
        first, last, _ = slice(int(start), int(end)).indices(size)
        before[axis], after[axis] = first, size - max(last, first)
    return [e.op("Pad", g, e.ints(*before, *after)), *rest]


@rule("Gather")
def gather(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, index = node.x, node.required(1)
    size = x.fixed(node.attr("axis", 0)) if x.shape else None
    if index.value is None or index.value.shape not in ((), (1,)) or size is None:
        return [e.replay(node, g), None]
    axis, at = node.attr("axis", 0) % x.rank, int(index.value.reshape(())) % size[0]
    before, after = [0] * x.rank, [0] * x.rank
    before[axis], after[axis] = at, size[0] - 1 - at
    row = g if index.value.ndim else e.unsqueeze(g, axis)
    return [e.op("Pad", row, e.ints(*before, *after)), None]


@rule("GatherElements", "GatherND", "Tile", "Compress")
def replayed(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.replay(node, g), None]


@rule("TopK")
def top_k(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Put the cotangent back where the values came from; the indices have none."""
    index = node.outputs[1]
    if index is None:
        index = e.ops(2, "TopK", node.x, node.required(1), **node.attributes)[1]
    zeros, axis = e.zeros_like(node.x, g.dtype), node.attr("axis", -1)
    return [e.op("ScatterElements", zeros, index, g, axis=axis), None]


@rule("ScatterElements")
def scatter_elements(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Take the gradient from what is written over, unless updates are added to it."""
    index, updates, axis = node.required(1), node.required(2), node.attr("axis", 0)
    picked = e.op("GatherElements", g, index, axis=axis)
    if _adds(node):
        return [g, None, picked]
    return [e.op("ScatterElements", g, index, e.zeros_like(updates), axis=axis), None, picked]


@rule("ScatterND")
def scatter_nd(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    index, updates = node.required(1), node.required(2)
    picked = e.op("GatherND", g, index)
    if _adds(node):
        return [g, None, picked]
    return [e.op("ScatterND", g, index, e.zeros_like(updates)), None, picked]


@rule("OneHot")
def one_hot(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Give each of the two values, off and on, the cotangents of the places where it stands."""
    marks, axis = e.const(np.array([0, 1], g.dtype)), node.attr("axis", -1)
    on = e.op("OneHot", node.x, node.required(1), marks, dtype=g.dtype, axis=axis)
    sums = [e.reduce("ReduceSum", g * hot, None, keepdims=False) for hot in (1 - on, on)]
    return [None, None, e.op("Concat", *(e.reshape(t, [1]) for t in sums), axis=0)]


@rule("MaxUnpool")
def max_unpool(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Positions count through the whole output, as those of MaxPool do through its input."""
    return [e.op("Gather", e.reshape(g, [-1]), node.required(1), axis=0), None, None]


def _adds(node: Node) -> bool:
    """Return whether updates are added to what is there, or written over it."""
    how = node.attr("reduction", "none")
    if how not in {"none", "add"}:
        raise NotImplementedError(f"reduction={how}")
    return bool(how == "add")
