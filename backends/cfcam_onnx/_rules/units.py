"""Rules for the units of networks: what bends every element by itself.

At a kink the gradient is the one from the flat side: 0 for Relu at 0, for Clip at both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]

# ------------------------------------------------------------------- piecewise linear units


@rule("Relu")
def relu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.where(e.cast(node.y, np.bool_), g, 0)]


@rule("LeakyRelu")
def leaky_relu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.where(node.x > 0, g, g * node.attr("alpha", 0.01))]


@rule("PRelu", broadcasts=0)
def prelu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, slope = node.x, node.required(1)
    return [e.where(x > 0, g, g * slope), e.where(x < 0, g * x, 0)]


@rule("ThresholdedRelu")
def thresholded_relu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.where(node.x > node.attr("alpha", 1.0), g, 0)]


@rule("Shrink")
def shrink(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.where(e.op("Abs", node.x) > node.attr("lambd", 0.5), g, 0)]


@rule("Clip")
def clip(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    low, high = node.optional(1), node.optional(2)
    if low is not None:
        g = e.where(node.x > low, g, 0)
    if high is not None:
        g = e.where(node.x < high, g, 0)
    return [g, None, None]


@rule("HardSigmoid")
def hard_sigmoid(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [e.where((node.y > 0) & (node.y < 1), g * node.attr("alpha", 0.2), 0)]


@rule("HardSwish")
def hard_swish(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x = node.x
    slope = e.where(x < 3, x * (1 / 3) + 0.5, 1)
    return [e.where(x > -3, g * slope, 0)]


# ----------------------------------------------------------------------------- smooth units


@rule("Sigmoid")
def sigmoid(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * node.y * (1 - node.y)]


@rule("Tanh")
def tanh(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * (1 - node.y * node.y)]


@rule("Softplus")
def softplus(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.op("Sigmoid", node.x)]


@rule("Softsign")
def softsign(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    scale = e.op("Abs", node.x) + 1
    return [g / (scale * scale)]


@rule("Elu")
def elu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.where(node.x > 0, 1, node.y + node.attr("alpha", 1.0))]


@rule("Selu")
def selu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    alpha = node.attr("alpha", 1.67326319217681884765625)
    gamma = node.attr("gamma", 1.05070102214813232421875)
    return [g * e.where(node.x > 0, gamma, node.y + alpha * gamma)]


@rule("Celu")
def celu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.where(node.x > 0, 1, node.y * (1 / node.attr("alpha", 1.0)) + 1)]


@rule("Swish")
def swish(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    scaled = node.x * node.attr("alpha", 1.0)
    gate = e.op("Sigmoid", scaled)
    return [g * gate * (scaled * (1 - gate) + 1)]


@rule("Mish")
def mish(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x = node.x
    t = e.op("Tanh", e.op("Softplus", x))
    return [g * (t + x * e.op("Sigmoid", x) * (1 - t * t))]


@rule("Gelu")
def gelu(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x = node.x
    if node.attr("approximate", "none") == "tanh":
        scale, cubic = sqrt(2 / pi), 0.044715
        square = x * x
        t = e.op("Tanh", x * (square * cubic + 1) * scale)
        inner = (square * (3 * cubic) + 1) * scale
        return [g * 0.5 * (t + 1 + x * (1 - t * t) * inner)]
    below = (e.op("Erf", x * sqrt(0.5)) + 1) * 0.5
    density = e.op("Exp", x * x * -0.5) * (1 / sqrt(2 * pi))
    return [g * (below + x * density)]
