"""What a graph tells without being run: logits, axes of channels, and what has a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

AXES_MOVE = frozenset(
    {
        *("BatchMatMulV2", "BatchToSpaceND", "Einsum", "ExpandDims", "GatherV2", "MatMul"),
        *("Reshape", "SpaceToBatchND", "Squeeze", "Tile"),
    }
)
"""Operators that change what an axis means; in all others, equal ranks mean equal axes."""

ABOUT_SHAPES = frozenset({"Rank", "Shape", "ShapeN", "Size", "VariableShape"})
"""Operators that read no values."""

CLOSING = frozenset({"LogSoftmax", "Sigmoid", "Softmax"})
"""Operators that make probabilities of logits."""

STILL = frozenset({"Cast", "Identity", "Reshape", "Squeeze"})
"""Operators that may stand behind them and change no order of classes."""


def needed(graph: tf.Graph, ends: Iterable[str]) -> list[Any]:
    """Return the operations that some tensors are made by, in order, but those on shapes."""
    wanted, found = set(ends), []
    for op in reversed(graph.get_operations()):
        if wanted.intersection(t.name for t in op.outputs) and op.type not in ABOUT_SHAPES:
            found.append(op)
            wanted.update(t.name for t in op.inputs)
    return found[::-1]


def reached(ops: Sequence[Any], source: str) -> set[str]:
    """Return the tensors that depend on one."""
    found = {source}
    for op in ops:
        if any(t.name in found for t in op.inputs):
            found.update(t.name for t in op.outputs)
    return found


def differentiable(ops: Sequence[Any], ends: Iterable[str]) -> tuple[set[str], list[str]]:
    """Return the tensors with a gradient of the ends, and the operators that have none.

    What lies before such an operator is not among the tensors.
    """
    from tensorflow.python.framework.ops import get_gradient_function

    good, bad, missing = set(ends), set[str](), set[str]()
    for op in reversed(ops):
        made = {t.name for t in op.outputs}
        if not made & (good | bad):
            continue
        floats = {t.name for t in op.inputs if t.dtype.is_floating or t.dtype == tf.variant}
        try:
            has_gradient = get_gradient_function(op) is not None
        except LookupError:
            missing.add(op.type)
            bad |= floats
            continue
        if has_gradient:
            (bad if made & bad else good).update(floats)
    return good - bad, sorted(missing)


def logits_of(graph: tf.Graph, output: str) -> tuple[str, tuple[str, ...]]:
    """Return the logits behind an output, and the operator that was looked through."""
    op = graph.get_tensor_by_name(output).op
    while op.type in STILL:
        op = op.inputs[0].op
    return (op.inputs[0].name, (op.type,)) if op.type in CLOSING else (output, ())


def channel_axes(ops: Sequence[Any]) -> dict[str, int]:
    """Return the axis of the channels of each tensor for which the operators around it tell."""
    found: dict[str, int] = {}
    for op in ops:
        if "data_format" in op.node_def.attr:
            is_first = op.get_attr("data_format").decode().startswith("NC")
            for tensor in [*op.inputs[:1], *op.outputs[:1]]:
                if (tensor.shape.rank or 0) >= 3:
                    found[tensor.name] = 1 if is_first else tensor.shape.rank - 1
    for order in (ops, ops[::-1], ops):
        for op in order:
            _spread(op, found)
    return found


def _spread(op: Any, found: dict[str, int]) -> None:
    """Carry a known axis from an operation's inputs to its output, or back."""
    if op.type in AXES_MOVE or not op.outputs or (op.outputs[0].shape.rank or 0) < 3:
        return
    out = op.outputs[0]
    moved = list(range(out.shape.rank))
    if op.type == "Transpose":
        order = tf.get_static_value(op.inputs[1])
        if order is None:
            return
        moved = [int(axis) for axis in order]
    for tensor in op.inputs:
        if tensor.shape.rank != out.shape.rank:
            continue
        if tensor.name in found:
            found.setdefault(out.name, moved.index(found[tensor.name]))
        elif out.name in found:
            found[tensor.name] = moved[found[out.name]]
