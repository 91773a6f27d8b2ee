"""Rules for matrix products."""

from __future__ import annotations

from collections.abc import Sequence

from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("MatMul", broadcasts=2)
def matmul(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    a, b = node.x, node.required(1)
    if 1 in (a.rank, b.rank):
        raise NotImplementedError("a factor with one axis")
    return [e.op("MatMul", g, _swapped(e, b)), e.op("MatMul", _swapped(e, a), g)]


@rule("Gemm")
def gemm(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Products with the transposition flags turned: no weight is copied."""
    a, b = node.x, node.required(1)
    ta, tb, alpha = node.attr("transA", 0), node.attr("transB", 0), node.attr("alpha", 1.0)

    def product(left: Tensor, right: Tensor, trans_a: int, trans_b: int) -> Tensor:
        return e.op("Gemm", left, right, transA=trans_a, transB=trans_b, alpha=alpha)

    for_a = product(b, g, tb, 1) if ta else product(g, b, 0, 1 - tb)
    for_b = product(g, a, 1, ta) if tb else product(a, g, 1 - ta, 0)
    return [for_a, for_b, None]


@rule("Einsum")
def einsum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Emit the same sum with the output's term and the operand's changed about."""
    equation = node.attr("equation").replace(" ", "")
    if "." in equation or "->" not in equation:
        raise NotImplementedError("an ellipsis or an implicit output in the equation")
    left, out = equation.split("->")
    terms = left.split(",")
    found = []
    for i, (term, x) in enumerate(zip(terms, node.given, strict=True)):
        if len(set(term)) != len(term):
            raise NotImplementedError("a repeated index in one term")
        others = [j for j in range(len(terms)) if j != i]
        there = "".join([out, *(terms[j] for j in others)])
        kept = "".join(index for index in term if index in there)
        summed = ",".join([out, *(terms[j] for j in others)]) + "->" + kept
        part = e.op("Einsum", g, *(node.inputs[j] for j in others), equation=summed)
        gone = [axis for axis, index in enumerate(term) if index not in there]
        found.append(e.expand_like(e.unsqueeze(part, *gone), x) if gone else part)
    return found


def _swapped(e: Emitter, x: Tensor) -> Tensor:
    return e.transpose(x, *range(x.rank - 2), x.rank - 1, x.rank - 2)
