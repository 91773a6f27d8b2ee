"""Rules for quantisation written as pairs of operators in a float model (QDQ): straight through.

To round has no gradient of use. A quantised number is taken for the real number that it rounds,
``q = x / scale + zero_point``, so that ``DequantizeLinear(QuantizeLinear(x))`` has the gradient 1
where `q` is kept, and 0 where it is cut off at an end of the integers' range. This is the
straight-through estimator (Bengio, Leonard and Courville, arXiv 1308.3432) with the cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import TensorProto

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("QuantizeLinear")
def quantize_linear(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    x, low, high = node.x, *_range(e, node.y)
    step, zero = _spread(e, node, node.required(1), x), node.optional(2)
    place = x / e.cast(step, x.dtype)
    if zero is not None:
        place = place + e.cast(_spread(e, node, zero, x), x.dtype)
    kept = (place > low - 0.5) & (place < high + 0.5)
    return [e.where(kept, g / e.cast(step, g.dtype), 0), None, None]


@rule("DequantizeLinear")
def dequantize_linear(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    return [g * e.cast(_spread(e, node, node.required(1), node.x), g.dtype), None, None]


def _spread(e: Emitter, node: Node, steps: Tensor, x: Tensor) -> Tensor:
    """Return scales or zero points so that they broadcast against `x`: one, or one a channel."""
    if node.attr("block_size", 0):
        raise NotImplementedError("quantisation in blocks")
    if not steps.rank:
        return steps
    after = x.rank - 1 - node.attr("axis", 1) % x.rank
    return steps if steps.fixed() == [1] else e.reshape(steps, [-1] + [1] * after)


def _range(e: Emitter, y: Tensor) -> tuple[int, int]:
    """Return the least and the largest quantised number."""
    kind = TensorProto.DataType.Name(e.graph.elem_type(y.name))
    letters, bits = kind.rstrip("0123456789"), kind.lstrip("UINT")
    if letters not in {"INT", "UINT"}:
        raise NotImplementedError(f"quantisation to {kind}")
    whole = 1 << int(bits)
    return (0, whole - 1) if letters == "UINT" else (-whole // 2, whole // 2 - 1)
