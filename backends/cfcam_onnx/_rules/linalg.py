"""Rules for matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from cfcam_onnx._broadcast import unbroadcast
from cfcam_onnx._emit import Emitter
from cfcam_onnx._rules._matrices import identity
from cfcam_onnx._rules._registry import rule
from cfcam_onnx._tensor import Node, Tensor

Cotangents = Sequence[Tensor | None]


@rule("MatMul", broadcasts=2)
def matmul(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    a, b = node.x, node.required(1)
    if 1 in {a.rank, b.rank}:
        return _with_a_vector(e, a, b, g)
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
    c = node.optional(2)
    for_c = None if c is None else unbroadcast(e, g * node.attr("beta", 1.0), c, node.y.shape)
    return [for_a, for_b, for_c]


@rule("Einsum")
def einsum(e: Emitter, node: Node, g: Tensor) -> Cotangents:
    """Emit the same sum with the output's term and the operand's changed about.

    An index of the operand alone was summed over, one that it has twice picked a diagonal.
    """
    terms, out = _terms(node)
    found = []
    for i, (term, x) in enumerate(zip(terms, node.given, strict=True)):
        others = [j for j in range(len(terms)) if j != i]
        sizes = x.shape or (None,) * len(term)
        there = set(out).union(*(terms[j] for j in others))
        there -= {index for index, size in zip(term, sizes, strict=True) if size == 1}
        kept = "".join(dict.fromkeys(index for index in term if index in there))
        summed = ",".join([out, *(terms[j] for j in others)]) + "->" + kept
        part = e.op("Einsum", g, *(node.inputs[j] for j in others), equation=summed)
        first = [term.index(index) for index in term]
        gone = [at for at, index in enumerate(term) if index not in kept or first[at] != at]
        part = e.unsqueeze(part, *gone) if gone else part
        for at, before in enumerate(first):
            if before != at:
                rest = [axis for axis in range(len(term)) if axis not in {at, before}]
                part = part * e.unsqueeze(identity(e, x, at, g.dtype), *rest)
        if gone:
            alone = e.const(np.array([at in gone for at in range(len(term))]))
            part = e.op("Expand", part, e.where(alone, e.shape_of(x), e.ints(1)))
        repeats = _repeats(x, term, [(node.inputs[j], terms[j]) for j in others])
        found.append(unbroadcast(e, part, x, None) if repeats else part)
    return found


def _terms(node: Node) -> tuple[list[str], str]:
    """Return the terms of the operands and of the output, with letters in place of an ellipsis."""
    left, arrow, out = node.attr("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        single = sorted(c for c in set(left) - set(".,") if left.count(c) == 1)
        out = ("..." if "..." in left else "") + "".join(single)
    hidden = max(
        x.rank - len(term.replace("...", "")) if "..." in term else 0
        for term, x in zip(terms, node.given, strict=True)
    )
    letters = "".join([letter for letter in ascii_lowercase if letter not in left][:hidden])
    return [term.replace("...", letters) for term in terms], out.replace("...", letters)


def _repeats(x: Tensor, term: str, others: list[tuple[Tensor | None, str]]) -> bool:
    """Return whether an open size of `x` may be one where another operand's is more."""
    for index, size in zip(term, x.shape or (None,) * len(term), strict=True):
        for other, there in others:
            if not isinstance(size, int) and other is not None and index in there:
                theirs = None if other.shape is None else other.shape[there.index(index)]
                if theirs is None or theirs not in {1, size}:
                    return True
    return False


def _with_a_vector(e: Emitter, a: Tensor, b: Tensor, g: Tensor) -> Cotangents:
    """Write a vector on the left as a row, one on the right as a column; see `matmul`."""
    row, column = a.rank == 1, b.rank == 1
    g = e.unsqueeze(g, *[-2] * row, *[-1] * column)
    left = e.unsqueeze(a, 0) if row else a
    right = e.unsqueeze(b, 1) if column else b
    for_a = e.op("MatMul", g, e.transpose(right, 1, 0) if column else _swapped(e, right))
    for_b = e.op("MatMul", e.transpose(left, 1, 0) if row else _swapped(e, left), g)
    return [
        _summed(e, for_a, a) if row else for_a,
        _summed(e, for_b, b) if column else for_b,
    ]


def _summed(e: Emitter, g: Tensor, vector: Tensor) -> Tensor:
    """Return `g`, vectors with any number of axes around them, added up to one."""
    size = e.shape_of(vector)
    rows = e.reshape(g, e.op("Concat", e.ints(-1), size, axis=0))
    return e.reduce("ReduceSum", rows, [0], keepdims=False)


def _swapped(e: Emitter, x: Tensor) -> Tensor:
    return e.transpose(x, *range(x.rank - 2), x.rank - 1, x.rank - 2)
