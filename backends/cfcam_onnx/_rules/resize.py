"""The rule for resizing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._matrices import back_along, identity
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("Resize")
def resize(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Resizing is a matrix along each axis: an identity, resized. Its transpose goes back.

    Where no size changes, onnxruntime copies, whatever the scales. So that this never happens to
    the identity, an axis of it that is constant is doubled; where it may happen to the model's own
    tensor, all scales are taken to be one.
    """
    x, y = node.x, node.y
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NotImplementedError("cropping")
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError("keep_aspect_ratio_policy other than stretch")
    how = {name: value for name, value in node.attributes.items() if name != "axes"}
    chosen = [axis % x.rank for axis in node.attr("axes") or range(x.rank)]
    kept = [_keeps_size(node, axis, i) for i, axis in enumerate(chosen)]
    if all(kept):
        return [g, None, None, None]
    scales = _scales(e, node, changed=False in kept)
    if scales is not None:  # onnx may round the sizes otherwise: say what they are
        known = [y.fixed(axis) for axis in range(x.rank)]
        g = e.reshape(g, [size[0] if size else 0 for size in known])
    for i, axis in enumerate(chosen):
        if _keeps_place(node, axis, i, kept=bool(kept[i])):
            continue
        a, b = (_size(e, t, axis) for t in (x, y))
        wanted: list[Tensor | None] = [None, e.op("Concat", a, e.ints(1, 2), b, axis=0)]
        if scales is not None:
            factor = e.op("Gather", scales, e.ints(i), axis=0)
            wanted = [e.op("Concat", e.const(np.array([1, 1, 2], np.float32)), factor, axis=0)]
        basis = e.unsqueeze(identity(e, x, axis, g.dtype), 1, 2)
        twice = e.op("Resize", basis, None, *wanted, **how)
        once = e.op("Squeeze", e.slice(twice, e.ints(0), e.ints(1), [2]), e.ints(1, 2))
        g = back_along(e, g, once, axis, x.rank)
    return [g, None, None, None]


def _scales(e: Emitter, node: Node, *, changed: bool) -> Tensor | None:
    """Return the scales that count, None where sizes were given; see `resize` about copying."""
    scales = None if _given(node) == [] else node.optional(2)
    if scales is None or changed:
        return scales
    same = e.op("Equal", e.shape_of(node.x), e.shape_of(node.y), dtype=np.bool_)
    copied = e.cast(e.op("ReduceMin", e.cast(same, np.int64), keepdims=0), np.bool_)
    return e.where(copied, e.const(np.array([1], np.float32)), scales)


def _keeps_size(node: Node, axis: int, i: int) -> bool | None:
    """Return whether an axis, the i-th of those chosen, keeps its size; None if open."""
    a, b = (None if t.shape is None else t.shape[axis] for t in (node.x, node.y))
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    given = _given(node)
    if given and given[i] == 1:
        return True
    if axis == 0 and (given == [] or (a is not None and a == b)):
        return True  # the batch is never resized by its size
    return None  # open sizes that were equal in the trial run need not be so in others


def _keeps_place(node: Node, axis: int, i: int, *, kept: bool) -> bool:
    """Return whether an axis stays as it is: 5 x 1.1 is 5 again, but not the same 5."""
    given = _given(node)
    if given is None:
        return kept and axis == 0
    return given[i] == 1 if given else kept


def _given(node: Node) -> list[float] | None:
    """Return the scales; none where sizes were given, and None where they are computed."""
    scales = node.optional(2)
    if scales is None:
        return []
    return None if scales.value is None else [float(factor) for factor in scales.value]


def _size(e: Emitter, x: Tensor, axis: int) -> Tensor:
    fixed = x.fixed(axis)
    return e.ints(*fixed) if fixed else e.op("Gather", e.shape_of(x), e.ints(axis), axis=0)
