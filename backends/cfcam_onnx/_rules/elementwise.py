"""Rules for operators that act on every element by itself; several inputs are broadcast.

The units of a network, Relu and its kin, are in `cfcam_onnx._rules.units`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]

# ------------------------------------------------------------------------------- arithmetic


@rule("Add", "Sum", broadcasts=0)
def add(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g] * len(node.inputs)


@rule("Sub", broadcasts=0)
def sub(_: Emitter, __: Node, g: Tensor) -> Cotangents:
    return [g, -g]


@rule("Mul", broadcasts=0)
def mul(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * node.required(1), g * node.x]


@rule("Div", broadcasts=0)
def div(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    by_divisor = g / node.required(1)
    return [by_divisor, -(by_divisor * node.y)]


@rule("Mean", broadcasts=0)
def mean(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * (1 / len(node.inputs))] * len(node.inputs)


@rule("Max", "Min", broadcasts=0)
def extremum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Share the cotangent among the operands that equal the result."""
    hits = [e.op("Equal", x, node.y, dtype=np.bool_) for x in node.given]
    shared = g / e.op("Sum", *(e.cast(hit, g.dtype) for hit in hits))
    return [e.where(hit, shared, 0) for hit in hits]


@rule("Mod", broadcasts=0)
def mod(_: Emitter, __: Node, g: Tensor) -> Cotangents:
    return [g, None]


@rule("Where", broadcasts=0)
def where(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [None, e.where(node.x, g, 0), e.where(node.x, 0, g)]


@rule("Pow", broadcasts=0)
def power(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Take 0 for the derivative with respect to the exponent where the base is not positive.

    There the power is no smooth function of its exponent, or none at all.
    """
    x, exponent = node.x, node.required(1)
    p, fixed = e.cast(exponent, x.dtype), exponent.value
    if fixed is not None and (fixed == 2).all():
        return [g * x * 2, None]
    slope = p * x ** (p - 1)
    if fixed is None or (fixed == 0).any():  # else 0 / 0 at the base 0
        slope = e.where(e.op("Equal", p, e.scalar(0, p.dtype), dtype=np.bool_), 0, slope)
    return [g * slope, g * e.where(x > 0, node.y * e.op("Log", x), 0)]


@rule("Neg")
def neg(_: Emitter, __: Node, g: Tensor) -> Cotangents:
    return [-g]


@rule("Abs")
def absolute(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.op("Sign", node.x)]


@rule("Reciprocal")
def reciprocal(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [-(g * node.y * node.y)]


@rule("Sqrt")
def square_root(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * 0.5 / node.y]


@rule("Exp")
def exp(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * node.y]


@rule("Log")
def log(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / node.x]


@rule("Erf")
def erf(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * (2 / sqrt(pi)) * e.op("Exp", -(node.x * node.x))]


# ----------------------------------------------------------- trigonometry and its hyperbolic kin


@rule("Sin")
def sine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.op("Cos", node.x)]


@rule("Cos")
def cosine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [-(g * e.op("Sin", node.x))]


@rule("Tan")
def tangent(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * (node.y * node.y + 1)]


@rule("Asin")
def arc_sine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / e.op("Sqrt", 1 - node.x * node.x)]


@rule("Acos")
def arc_cosine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [-g / e.op("Sqrt", 1 - node.x * node.x)]


@rule("Atan")
def arc_tangent(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / (node.x * node.x + 1)]


@rule("Sinh")
def hyperbolic_sine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.op("Cosh", node.x)]


@rule("Cosh")
def hyperbolic_cosine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.op("Sinh", node.x)]


@rule("Asinh")
def area_hyperbolic_sine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / e.op("Sqrt", node.x * node.x + 1)]


@rule("Acosh")
def area_hyperbolic_cosine(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / e.op("Sqrt", node.x * node.x - 1)]


@rule("Atanh")
def area_hyperbolic_tangent(_: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g / (1 - node.x * node.x)]
