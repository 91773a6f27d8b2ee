"""Which tensors can have a cotangent: floats, and the integers that stand for floats.

Integers stand for floats from a QuantizeLinear on, through whatever computes with them, until
something makes floats of them again. Sizes, positions and truth values do not: what they are
computed from has the gradient zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from cfcam_onnx._graph import FLOATS, STANDARD, Graph, reads
from cfcam_onnx._rules import ZERO_GRADIENT

STARTS = frozenset({"DynamicQuantizeLinear", "QuantizeLinear"})
"""Operators that make integers which stand for floats."""

CONVERTING = frozenset({"Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"})
"""Operators that write the same number in another way."""

MOVING = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad"),
        *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    }
)
"""Operators that move numbers or pick some: their rules hold for integers as well."""

POINTING = frozenset({"MaxPool", "TopK", "Unique"})
"""Operators whose outputs but the first are positions."""

NO_NUMBERS = frozenset({onnx.TensorProto.BOOL, onnx.TensorProto.STRING})


@dataclass(frozen=True, slots=True)
class Carriers:
    """The tensors of a graph that can have a cotangent."""

    graph: Graph
    quantized: frozenset[str]
    """Integers that stand for floats."""

    @classmethod
    def of(cls, graph: Graph) -> Carriers:
        """Look through all nodes."""
        found: set[str] = set()
        for node in graph.nodes:
            reached = found and not is_zero(node) and found.intersection(reads(node))
            if reached or _starts(node):
                made = node.output[:1] if node.op_type in POINTING else node.output
                found.update(name for name in made if name and _is_integer(graph, name))
        return cls(graph, frozenset(found))

    def __contains__(self, name: str) -> bool:
        """Return whether a cotangent of the tensor can exist."""
        return self.graph.is_float(name) or name in self.quantized

    def compute_in(self, node: onnx.NodeProto) -> bool:
        """Return whether a node computes with such integers, or looks something up with them."""
        read, made = (bool(self.quantized.intersection(x)) for x in (reads(node), node.output))
        if node.domain in STANDARD and node.op_type in CONVERTING:
            return False
        if node.domain in STANDARD and node.op_type in MOVING:
            return read and not made
        return read or made


def is_zero(node: onnx.NodeProto) -> bool:
    """Return whether no gradient gets through a node by nature."""
    return node.domain in STANDARD and node.op_type in ZERO_GRADIENT


def _starts(node: onnx.NodeProto) -> bool:
    return node.domain in STANDARD and node.op_type in STARTS


def _is_integer(graph: Graph, name: str) -> bool:
    """Return whether a tensor is made of integers, as which floats of eight bits count here."""
    return graph.elem_type(name) not in FLOATS | NO_NUMBERS
