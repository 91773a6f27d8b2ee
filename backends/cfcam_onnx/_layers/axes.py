"""Where a tensor has its channels, told by the operators around it."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from cfcam_onnx._graph import Graph, attributes

CHANNELS_SECOND = frozenset(
    {
        *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace"),
        *("GlobalAveragePool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization"),
        *("LRN", "MaxPool", "SpaceToDepth"),
    }
)
"""Operators whose channels are the second axis by definition."""

AXES_MOVE = frozenset(
    {
        *("Compress", "Einsum", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Gemm", "MatMul", "Reshape", "Shape", "Size", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    }
)
"""Operators that change what an axis means; in all others, equal ranks mean equal axes."""


RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Operators that run along a sequence, which is their first axis."""


def channel_axes(graph: Graph) -> dict[str, int]:
    """Return the axis of the channels of each tensor for which the operators around it tell.

    What convolutions say is spread first, along operators that keep their axes and through
    transpositions; then the weaker signs of a channels-last model: a norm and a dense layer on the
    last axis, for some layers mix tokens, and only then pooling over axes 1 and 2, for the mean
    over channels in a written-out LayerNormalization looks like a pooling over tokens.
    """
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in CHANNELS_SECOND:
            found.update({node.input[0]: 1, node.output[0]: 1})
    _spread(graph, found)
    for hint in (_recurrent_hint, _norm_hint, _dense_hint, _pooling_hint):
        for node in graph.nodes:
            for name, axis in hint(graph, node).items():
                found.setdefault(name, axis)
        _spread(graph, found)
    for info in graph.inputs:
        shape = graph.shape(info.name) or ()
        if len(shape) >= 4 and info.name not in found:
            found[info.name] = len(shape) - 1 if shape[-1] in {1, 3, 4} and shape[1] != 3 else 1
    return found


def _spread(graph: Graph, found: dict[str, int]) -> None:
    """Carry known axes along the graph, forwards and then backwards."""
    for nodes in (graph.nodes, graph.nodes[::-1], graph.nodes):
        for node in nodes:
            for a, b, axes in _links(graph, node):
                if a in found and found[a] in axes:
                    found.setdefault(b, axes[found[a]])
                elif b in found:
                    back = {after: before for before, after in axes.items()}
                    if found[b] in back:
                        found.setdefault(a, back[found[b]])


def _links(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, str, dict[int, int]]]:
    """Yield an input, an output, and which axis of the one is which of the other."""
    shape = graph.shape(node.output[0]) if node.output else None
    if shape is None or len(shape) < 3:
        return
    if node.op_type == "Transpose":
        backwards = list(range(len(shape)))[::-1]
        perm = attributes(node).get("perm", backwards)
        yield node.input[0], node.output[0], {before: i for i, before in enumerate(perm)}
    elif node.op_type == "Squeeze":
        yield node.input[0], node.output[0], _squeezed_axes(graph, node)
    elif node.op_type == "Reshape":
        yield node.input[0], node.output[0], _kept_axes(graph, node)
    elif node.op_type not in AXES_MOVE:
        for name in node.input:
            if name in graph.initializers or len(graph.shape(name) or ()) != len(shape):
                continue
            for output in node.output:
                if output:
                    yield name, output, {i: i for i in range(len(shape))}


def _squeezed_axes(graph: Graph, node: onnx.NodeProto) -> dict[int, int]:
    """Return the axes that a Squeeze leaves; none if it leaves some of the size 1."""
    before, after = (graph.sample_shape(n) or () for n in (node.input[0], node.output[0]))
    kept = [axis for axis, size in enumerate(before) if size != 1]
    return {axis: i for i, axis in enumerate(kept)} if len(kept) == len(after) else {}


def _kept_axes(graph: Graph, node: onnx.NodeProto) -> dict[int, int]:
    """Return the axes next to the batch and at the end that a Reshape leaves as they are."""
    before, after = (graph.sample_shape(n) or () for n in (node.input[0], node.output[0]))
    if min(len(before), len(after)) < 3 or before[0] != after[0]:
        return {}
    ends = {1: 1, len(before) - 1: len(after) - 1}
    return {i: j for i, j in ends.items() if before[i] == after[j] and before[i] is not None}


def _recurrent_hint(graph: Graph, node: onnx.NodeProto) -> dict[str, int]:
    """Return where recurrent layers have features (T, N, C) and hidden units (T, D, N, H)."""
    del graph
    if node.op_type not in RECURRENT or attributes(node).get("layout"):
        return {}
    return {node.input[0]: 2} | ({node.output[0]: 3} if node.output[0] else {})


def _norm_hint(graph: Graph, node: onnx.NodeProto) -> dict[str, int]:
    """Return the last axis of what a norm over it reads."""
    last = max(_behind_batch(graph, node), default=None)
    if last is None or node.op_type != "LayerNormalization":
        return {}
    return {node.input[0]: last} if attributes(node).get("axis", -1) in {-1, last} else {}


def _dense_hint(graph: Graph, node: onnx.NodeProto) -> dict[str, int]:
    """Return the last axis of what a dense layer along it reads and makes."""
    last = max(_behind_batch(graph, node), default=None)
    if last is None or node.op_type != "MatMul" or len(graph.shape(node.input[1]) or ()) != 2:
        return {}
    return {node.input[0]: last, node.output[0]: last}


def _pooling_hint(graph: Graph, node: onnx.NodeProto) -> dict[str, int]:
    """Return the one axis behind the batch that a reduction keeps, if it is one."""
    rest = _behind_batch(graph, node)
    if not node.op_type.startswith("Reduce"):
        return {}
    axes = attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        value = graph.value(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    kept = rest - {axis % (len(rest) + 1) for axis in axes or ()}
    return {node.input[0]: kept.pop()} if len(kept) == 1 else {}


def _behind_batch(graph: Graph, node: onnx.NodeProto) -> set[int]:
    """Return the axes of a node's first input but the first, if there are several."""
    shape = graph.shape(node.input[0]) if node.input else None
    return set(range(1, len(shape))) if shape is not None and len(shape) >= 3 else set()
