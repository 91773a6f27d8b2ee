"""Rules for normalisations and for Softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]

EPSILON = 1e-5
"""What ONNX adds to a variance unless told otherwise."""


@rule("BatchNormalization")
def batch_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    if node.attr("training_mode", 0):
        raise NotImplementedError("training mode")
    scale, variance = node.required(1), node.required(4)
    epsilon, per_channel = node.attr("epsilon", EPSILON), [-1] + [1] * (node.x.rank - 2)
    if scale.value is not None and variance.value is not None:
        factor = scale.value / np.sqrt(variance.value.astype(np.float64) + epsilon)
        slope = e.const(factor.astype(g.dtype).reshape(per_channel))
    else:
        slope = e.reshape(e.cast(scale / e.op("Sqrt", variance + epsilon), g.dtype), per_channel)
    return [g * slope, None, None, None, None]


@rule("LayerNormalization")
def layer_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x = node.x
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    back = _standardised(e, x, g * node.required(1), axes, node.attr("epsilon", EPSILON))
    return [back, None, None]


@rule("RMSNormalization")
def rms_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, h = node.x, g * node.required(1)
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    square = e.reduce("ReduceMean", x * x, axes) + node.attr("epsilon", EPSILON)
    inverse = e.op("Reciprocal", e.op("Sqrt", square))
    unit = x * inverse
    return [inverse * (h - unit * e.reduce("ReduceMean", h * unit, axes)), None]


@rule("InstanceNormalization")
def instance_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x = node.x
    scale = e.reshape(node.required(1), [-1] + [1] * (x.rank - 2))
    back = _standardised(e, x, g * scale, range(2, x.rank), node.attr("epsilon", EPSILON))
    return [back, None, None]


@rule("GroupNormalization")
def group_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Operator set 18 has a scale for each group, 21 for each channel."""
    x, scale, groups = node.x, node.required(1), node.attr("num_groups")
    grouped = [0, groups, -1]
    if e.opset >= 21:
        g = e.reshape(g * e.reshape(scale, [-1] + [1] * (x.rank - 2)), grouped)
    else:
        g = e.reshape(g, grouped) * e.reshape(scale, [-1, 1])
    back = _standardised(e, e.reshape(x, grouped), g, [2], node.attr("epsilon", EPSILON))
    return [e.reshape_like(back, x), None, None]


@rule("MeanVarianceNormalization")
def mean_variance_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [_standardised(e, node.x, g, node.attr("axes", [0, 2, 3]), 1e-18)]


@rule("LpNormalization")
def lp_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    if node.attr("p", 2) != 2:
        raise NotImplementedError("p other than 2")
    axis = [node.attr("axis", -1)]
    along, norm = e.reduce("ReduceSum", g * node.y, axis), e.reduce("ReduceL2", node.x, axis)
    return [e.where(norm > 0, (g - node.y * along) / norm, 0)]


@rule("Softmax")
def softmax(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axis = [node.attr("axis", -1)]
    return [node.y * (g - e.reduce("ReduceSum", g * node.y, axis))]


@rule("LogSoftmax")
def log_softmax(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axis = [node.attr("axis", -1)]
    return [g - e.op("Exp", node.y) * e.reduce("ReduceSum", g, axis)]


def _standardised(e: Emitter, x: Tensor, g: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """Cotangent of `x` in ``(x - mean) / sqrt(variance + epsilon)`` over `axes`."""
    centred = x - e.reduce("ReduceMean", x, axes)
    variance = e.reduce("ReduceMean", centred * centred, axes) + epsilon
    inverse = e.op("Reciprocal", e.op("Sqrt", variance))
    unit = centred * inverse
    along = e.reduce("ReduceMean", g * unit, axes)
    return inverse * (g - e.reduce("ReduceMean", g, axes) - unit * along)
