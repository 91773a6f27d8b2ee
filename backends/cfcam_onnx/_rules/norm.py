"""Rules for normalisations and for Softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfcam_onnx._broadcast import unbroadcast
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
    x, scale, mean, variance = node.x, *(node.required(i) for i in (1, 3, 4))
    epsilon = node.attr("epsilon", EPSILON)
    if scale.value is not None and variance.value is not None:
        factor = scale.value / np.sqrt(variance.value.astype(np.float64) + epsilon)
        slope = e.const(factor.astype(g.dtype))
    else:
        slope = e.cast(scale / e.op("Sqrt", variance + epsilon), g.dtype)
    deviation = e.op("Sqrt", e.cast(variance, g.dtype) + epsilon)
    unit = (x - _along_channels(e, mean, x)) / _along_channels(e, deviation, x)
    for_scale, for_bias = _over_channels(e, g * unit, x), _over_channels(e, g, x)
    return [g * _along_channels(e, slope, x), for_scale, for_bias, None, None]


@rule("LayerNormalization")
def layer_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, scale, bias = node.x, node.required(1), node.optional(2)
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    unit, inverse = _standardised(e, x, axes, node.attr("epsilon", EPSILON))
    return [
        _behind_standardised(e, unit, inverse, g * scale, axes),
        unbroadcast(e, g * unit, scale, x.shape),
        None if bias is None else unbroadcast(e, g, bias, x.shape),
    ]


@rule("RMSNormalization")
def rms_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, scale = node.x, node.required(1)
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    square = e.reduce("ReduceMean", x * x, axes) + node.attr("epsilon", EPSILON)
    inverse = e.op("Reciprocal", e.op("Sqrt", square))
    unit, h = x * inverse, g * scale
    back = inverse * (h - unit * e.reduce("ReduceMean", h * unit, axes))
    return [back, unbroadcast(e, g * unit, scale, x.shape)]


@rule("InstanceNormalization")
def instance_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, axes = node.x, range(2, node.x.rank)
    unit, inverse = _standardised(e, x, axes, node.attr("epsilon", EPSILON))
    h = g * _along_channels(e, node.required(1), x)
    back = _behind_standardised(e, unit, inverse, h, axes)
    return [back, _over_channels(e, g * unit, x), _over_channels(e, g, x)]


@rule("GroupNormalization")
def group_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Operator set 18 has a scale for each group, 21 for each channel."""
    x, scale, grouped = node.x, node.required(1), [0, node.attr("num_groups"), -1]
    parts = e.reshape(x, grouped)
    unit, inverse = _standardised(e, parts, [2], node.attr("epsilon", EPSILON))
    if e.opset >= 21:
        h = e.reshape(g * _along_channels(e, scale, x), grouped)
        for_scale = _over_channels(e, g * e.reshape_like(unit, x), x)
        for_bias = _over_channels(e, g, x)
    else:
        h = e.reshape(g, grouped) * e.reshape(scale, [-1, 1])
        for_scale = e.reduce("ReduceSum", e.reshape(g, grouped) * unit, [0, 2], keepdims=False)
        for_bias = e.reduce("ReduceSum", e.reshape(g, grouped), [0, 2], keepdims=False)
    back = _behind_standardised(e, unit, inverse, h, [2])
    return [e.reshape_like(back, x), for_scale, for_bias]


@rule("MeanVarianceNormalization")
def mean_variance_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axes = node.attr("axes", [0, 2, 3])
    unit, inverse = _standardised(e, node.x, axes, 1e-18)
    return [_behind_standardised(e, unit, inverse, g, axes)]


@rule("LpNormalization")
def lp_normalization(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    p, axis = node.attr("p", 2), [node.attr("axis", -1)]
    norm = e.reduce(f"ReduceL{p}", node.x, axis)
    slope = node.y if p == 2 else e.op("Sign", node.x)
    along = e.reduce("ReduceSum", g * node.y, axis)
    return [e.where(norm > 0, (g - slope * along) / norm, 0)]


@rule("Softmax")
def softmax(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axis = [node.attr("axis", -1)]
    return [node.y * (g - e.reduce("ReduceSum", g * node.y, axis))]


@rule("LogSoftmax")
def log_softmax(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    axis = [node.attr("axis", -1)]
    return [g - e.op("Exp", node.y) * e.reduce("ReduceSum", g, axis)]


def _standardised(
    e: Emitter, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """Return ``(x - mean) / sqrt(variance + epsilon)`` over `axes`, and one over the root."""
    centred = x - e.reduce("ReduceMean", x, axes)
    variance = e.reduce("ReduceMean", centred * centred, axes) + epsilon
    inverse = e.op("Reciprocal", e.op("Sqrt", variance))
    return centred * inverse, inverse


def _behind_standardised(
    e: Emitter, unit: Tensor, inverse: Tensor, g: Tensor, axes: Sequence[int]
) -> Tensor:
    """Return the cotangent of what was standardised, `g` being that of the result."""
    along = e.reduce("ReduceMean", g * unit, axes)
    return inverse * (g - e.reduce("ReduceMean", g, axes) - unit * along)


def _along_channels(e: Emitter, vector: Tensor, x: Tensor) -> Tensor:
    """Return one number a channel so that it broadcasts against `x`."""
    return e.reshape(vector, [-1] + [1] * (x.rank - 2))


def _over_channels(e: Emitter, t: Tensor, x: Tensor) -> Tensor:
    """Return `t`, of the shape of `x`, added up over all axes but that of the channels."""
    return e.reduce("ReduceSum", t, [0, *range(2, x.rank)], keepdims=False)
