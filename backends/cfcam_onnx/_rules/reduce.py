"""Rules for reductions, and for running sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._rules.pool import share
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("ReduceSum")
def reduce_sum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.expand_like(_kept(e, node, g), node.x), None]


@rule("ReduceMean")
def reduce_mean(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axes = _axes(node)
    count = e.count(node.x, range(node.x.rank) if axes is None else axes)
    return [e.expand_like(_kept(e, node, g) / count, node.x), None]


@rule("ReduceMax", "ReduceMin")
def reduce_extremum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [share(e, node.x, _kept(e, node, node.y), _kept(e, node, g), _axes(node)), None]


@rule("ReduceL1")
def reduce_l1(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.op("Sign", node.x) * _kept(e, node, g), None]


@rule("ReduceL2")
def reduce_l2(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    norm = _kept(e, node, node.y)
    return [e.where(norm > 0, node.x / norm, 0) * _kept(e, node, g), None]


@rule("ReduceSumSquare")
def reduce_sum_square(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [node.x * 2 * _kept(e, node, g), None]


@rule("ReduceProd")
def reduce_prod(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Multiply by the product of the others, also where one element is zero."""
    x, axes = node.x, _axes(node)
    zero = e.op("Equal", x, e.scalar(0, x.dtype), dtype=np.bool_)
    rest = e.where(zero, 1, x)
    product, is_zero = e.reduce("ReduceProd", rest, axes), e.cast(zero, x.dtype)
    others = e.reduce("ReduceSum", is_zero, axes) - is_zero
    return [e.where(others > 0, 0, product / rest) * _kept(e, node, g), None]


@rule("CumSum")
def cum_sum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Sum up from the other end."""
    how = {"exclusive": node.attr("exclusive", 0), "reverse": 1 - node.attr("reverse", 0)}
    return [e.op("CumSum", g, node.required(1), **how), None]


@rule("ReduceLogSum")
def reduce_log_sum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.expand_like(_kept(e, node, g / e.op("Exp", node.y)), node.x), None]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.op("Exp", node.x - _kept(e, node, node.y)) * _kept(e, node, g), None]


def _axes(node: Node) -> Sequence[int] | None:
    """Axes that are reduced, None for all: an attribute once, an input since 13 or 18."""
    given = node.optional(1)
    if given is None:
        axes = node.attr("axes")
    elif given.value is None:
        raise NotImplementedError("axes that are computed")
    else:
        axes = given.value.reshape(-1).tolist()
    if axes:
        return list(axes)
    return [] if node.attr("noop_with_empty_axes", 0) else None


def _kept(e: Emitter, node: Node, t: Tensor) -> Tensor:
    """Return `t`, of the output's shape, with the reduced axes put back in."""
    axes = _axes(node)
    return e.unsqueeze(t, *axes) if axes and not node.attr("keepdims", 1) else t
