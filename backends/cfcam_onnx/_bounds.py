"""What a graph needs to run, as far as its sizes are known, and what must be watched otherwise."""

from __future__ import annotations

import math
from collections import Counter

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD, Graph, everywhere, reads
from cfcam_onnx._limits import Bounds, Limits
from cfcam_onnx._probe import is_incomplete

SIZED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"), (0,)),
    **dict.fromkeys(("AffineGrid", "CenterCropPad", "Expand", "OneHot", "Pad", "Tile"), (1,)),
    **dict.fromkeys(("MelWeightMatrix", "Range"), (0, 1, 2)),
    **dict.fromkeys(("Col2Im", "DFT", "MaxUnpool", "Resize", "STFT", "Upsample"), (1, 2, 3)),
}
"""Operators that may make much of little, and the inputs whose values may say how much."""

PICKING = frozenset({"Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"})
"""Operators that put sizes together without computing with them."""


def bounds_of(graph: Graph, limits: Limits) -> Bounds:
    """Return what to watch in each run of a graph that has learned nothing yet.

    Raises
    ------
    InvalidInputError
        What is known of its sizes is too large already.
    """
    needed, largest = _memory(graph)
    if needed > limits.memory:
        shape = graph.shape(largest)
        raise InvalidInputError(
            f"the model needs {needed:,} bytes for one run, most of them for {largest!r} of shape "
            f"{shape}; {limits.memory:,} are allowed. Export it with smaller sizes, or raise "
            "memory= of cfcam_onnx.Limits"
        )
    loops = any(node.op_type in {"Loop", "Scan"} for node in everywhere(graph.nodes))
    return Bounds(
        limits.memory if is_incomplete(graph) else None, limits.loop_seconds if loops else None
    )


def is_sized_by_values(graph: Graph) -> bool:
    """Return whether what a graph that has learned nothing yet computes may decide its own size.

    If not, a trial run has shown how much memory it takes, and nothing has to be watched: it grows
    with the inputs alone.
    """
    sizes: set[str] = set()
    for node in graph.nodes:
        inner = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if inner or node.domain not in STANDARD:
            return True
        plain = [not name or name in sizes or graph.value(name) is not None for name in node.input]
        if node.op_type == "Shape" or (node.op_type in PICKING and all(plain)):
            sizes.update(node.output)
        if not all(plain[at] for at in SIZED.get(node.op_type, ()) if at < len(plain)):
            return True
    return False


def _memory(graph: Graph) -> tuple[int, str]:
    """Return the bytes in use when they are most, and the largest tensor; open sizes count as 1.

    A tensor is in use from the node that makes it to the last that reads it; a constant for ever,
    for onnxruntime may work it out when it loads the model.
    """
    varying = graph.reached([info.name for info in graph.inputs], graph.nodes)
    unread = Counter(name for node in graph.nodes for name in set(reads(node)))
    sizes = {info.name: _bytes(graph, info.name) for info in graph.inputs}
    used = sum(sizes.values())
    most = used
    for node in graph.nodes:
        made = {name: _bytes(graph, name) for name in node.output if name}
        sizes.update(made)
        used += sum(made.values())
        most = max(most, used)
        for name in {*made, *reads(node)} & sizes.keys():
            unread[name] -= name not in made
            if unread[name] <= 0 and name in varying:
                used -= sizes[name]
    return most, max(sizes, key=sizes.__getitem__)


def _bytes(graph: Graph, name: str) -> int:
    shape = graph.shape(name) or ()
    if any(isinstance(size, int) and size < 0 for size in shape):
        raise InvalidInputError(
            f"the model makes {name!r} of shape {shape}, with sizes below zero: a window is larger "
            "than what it slides over, or so. Export it again"
        )
    return math.prod(n for n in shape if isinstance(n, int)) * graph.dtype(name).itemsize
