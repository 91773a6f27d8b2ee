"""Rules for operators that move, select or repeat elements without computing with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("Identity")
def identity(_: Emitter, __: Node, g: Tensor) -> Cotangents:
    return [g]


@rule("Dropout")
def dropout(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    training = node.optional(2)
    if training is not None and (training.value is None or training.value.any()):
        raise NotImplementedError("training mode")
    return [g, None, None]


@rule("Cast", "CastLike")
def cast(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.cast(g, node.x.dtype), None]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.reshape_like(g, node.x), None]


@rule("Transpose")
def transpose(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    perm = node.attr("perm")
    return [e.op("Transpose", g, perm=None if perm is None else np.argsort(perm).tolist())]


@rule("Expand", broadcasts=0)
def expand(_: Emitter, __: Node, g: Tensor) -> Cotangents:
    return [g, None]


@rule("Concat")
def concat(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axis, start, offset = node.attr("axis"), e.ints(0), 0
    parts = []
    for x in node.given:
        size = x.fixed(axis)
        if size is not None and offset >= 0:
            offset += size[0]
            end = e.ints(offset)
        else:
            offset, end = -1, start + e.op("Gather", e.shape_of(x), e.ints(axis), axis=0)
        parts.append(e.slice(g, start, end, [axis]))
        start = end
    return parts


@rule("Split", every_output=True)
def split(e: Emitter, node: Node, *gs: Tensor | None) -> Cotangents:
    parts = []
    for g, y in zip(gs, node.outputs, strict=True):
        if y is None:
            raise NotImplementedError("an output without a name")
        parts.append(g or e.zeros_like(y))
    return [e.op("Concat", *parts, axis=node.attr("axis", 0)), None]


@rule("Pad")
def pad(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Undo padding with a constant by padding with the negative amount."""
    if node.attr("mode", "constant") != "constant":
        return [e.replay(node, g), None, None, None]
    return [e.op("Pad", g, -node.required(1), None, node.optional(3)), None, None, None]


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
def selection(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.replay(node, g), None]


@rule("DepthToSpace")
def depth_to_space(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    block = node.attr("blocksize")
    back = e.op("SpaceToDepth", g, blocksize=block)
    if node.attr("mode", "DCR") == "DCR":
        return [back]
    by_place = e.reshape(back, [0, block * block, e.channels(node.y), -1])
    return [e.reshape_like(e.transpose(by_place, 0, 2, 1, 3), node.x)]


@rule("SpaceToDepth")
def space_to_depth(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.op("DepthToSpace", g, blocksize=node.attr("blocksize"))]


@rule("Resize")
def resize(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Resizing is a matrix along each axis: an identity, resized. Its transpose goes back.

    Where no size changes, onnxruntime copies, whatever the scales; so that this never happens to
    the identity, an axis of it that is constant is doubled.
    """
    x = node.x
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NotImplementedError("cropping")
    if (
        node.attr("axes") is not None
        or node.attr("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise NotImplementedError("axes or keep_aspect_ratio_policy")
    scales = node.optional(2)
    if x.shape is None or node.y.shape is None or (scales is not None and scales.value is None):
        raise NotImplementedError("a size that is not fixed")
    factors = scales.value if scales is not None and scales.value is not None else np.empty(0)
    by_size = factors.size == 0 or (factors[0] == 1 and x.shape[1:] == node.y.shape[1:])
    for axis, (a, b) in enumerate(zip(x.shape, node.y.shape, strict=True)):
        fixed = isinstance(a, int) and isinstance(b, int)
        same = (a == b and a is not None) or (axis == 0 and not fixed)  # the batch never changes
        if same if by_size else factors[axis] == 1:
            continue
        if not isinstance(a, int) or not isinstance(b, int):
            raise NotImplementedError("a size that is not fixed")
        wanted: list[Tensor | None] = [None, e.ints(a, 1, 2, b)]
        if factors.size:
            wanted = [e.const(np.array([1, 1, 2, factors[axis]], np.float32))]
        basis = e.const(np.eye(a, dtype=x.dtype)[:, None, None])
        twice = e.op("Resize", basis, None, *wanted, **node.attributes)
        matrix = e.transpose(e.reshape(e.slice(twice, e.ints(0), e.ints(1), [2]), [a, b]), 1, 0)
        order = list(range(x.rank))
        order[axis], order[-1] = order[-1], axis
        g = e.transpose(e.op("MatMul", e.transpose(g, *order), matrix), *order)
    return [g, None, None, None]
