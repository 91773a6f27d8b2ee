"""Rules for operators that move or repeat whole tensors without computing with them."""

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


@rule("Cast")
def cast(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Keep the cotangent's dtype where integers were cast: they are quantised floats."""
    return [e.cast(g, node.x.dtype) if node.x.dtype.kind == "f" else g]


@rule("CastLike")
def cast_like(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [*cast(e, node, g), e.zeros_like(node.required(1))]


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
    parts, given = [], next(filter(None, gs))
    for g, y in zip(gs, node.outputs, strict=True):
        if y is None:
            raise NotImplementedError("an output without a name")
        parts.append(g or e.zeros_like(y, given.dtype))
    return [e.op("Concat", *parts, axis=node.attr("axis", 0)), None]


@rule("Pad")
def pad(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Undo padding with a constant by padding with the negative amount."""
    if node.attr("mode", "constant") != "constant":
        return [e.replay(node, g), None, None, None]
    return [e.op("Pad", g, -node.required(1), None, node.optional(3)), None, None, None]


@rule("Trilu")
def trilu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.op("Trilu", g, node.optional(1), **node.attributes), None]


@rule("ReverseSequence")
def reverse_sequence(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.op("ReverseSequence", g, node.required(1), **node.attributes), None]


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
