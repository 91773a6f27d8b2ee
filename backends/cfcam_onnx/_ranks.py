"""Tensors with millions of axes, refused before onnx writes each of them down.

A vector of sizes may be made longer and longer within a file of a few hundred bytes, and shape
inference gives a tensor as many axes as the vector has elements.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD, attributes

MOST_AXES = 64
"""Axes of a tensor; NumPy has no more."""

SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Tile": 1}
"""Operators whose output has as many axes as one of their inputs has elements, and which input."""

ALIKE = frozenset(
    {
        *("Abs", "Add", "Cast", "Ceil", "Div", "Equal", "Floor", "Identity", "Max", "Min", "Mod"),
        *("Mul", "Neg", "Sub", "Where"),
    }
)
"""Operators whose output is as long as the longest of their inputs."""


def check_ranks(graph: onnx.GraphProto) -> None:
    """Refuse tensors with too many axes, as far as vectors of sizes can be followed.

    Raises
    ------
    InvalidInputError
        One has more than `MOST_AXES`.
    """
    lengths = dict(_given(graph))
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.domain not in STANDARD:
            continue
        known = [lengths.get(name) for name in node.input]
        at = SHAPED.get(node.op_type)
        if at is not None and at < len(known) and (known[at] or 0) > MOST_AXES:
            _refuse(repr(node.output[0]), known[at])
        if node.op_type == "Constant":
            tensor = attributes(node).get("value")
            if isinstance(tensor, onnx.TensorProto):
                values[node.output[0]] = tensor
                lengths[node.output[0]] = tensor.dims[0] if len(tensor.dims) == 1 else None
        elif node.op_type == "ConstantOfShape" and node.input[0] in values:
            size = numpy_helper.to_array(values[node.input[0]]).reshape(-1)
            lengths[node.output[0]] = int(size[0]) if size.size == 1 else None
        elif node.op_type == "Concat" and None not in known:
            lengths[node.output[0]] = sum(filter(None, known))
        elif node.op_type == "Shape":
            lengths[node.output[0]] = 1  # or more
        elif node.op_type in ALIKE:
            lengths[node.output[0]] = max(filter(None, known), default=None)


def _given(graph: onnx.GraphProto) -> Iterator[tuple[str, int | None]]:
    """Yield the lengths of the inputs and weights that are vectors; refuse those with many axes."""
    for tensor in graph.initializer:
        if len(tensor.dims) > MOST_AXES:
            _refuse(repr(tensor.name), len(tensor.dims))
        yield tensor.name, tensor.dims[0] if len(tensor.dims) == 1 else None
    for info in graph.input:
        sizes = info.type.tensor_type.shape.dim
        if len(sizes) > MOST_AXES:
            _refuse(repr(info.name), len(sizes))
        yield info.name, sizes[0].dim_value or None if len(sizes) == 1 else None


def _refuse(name: str, axes: int | None) -> None:
    raise InvalidInputError(
        f"the tensor {name} would have {axes:,} axes; at most {MOST_AXES} are allowed. Export the "
        "model again"
    )
