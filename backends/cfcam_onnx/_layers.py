"""Which tensors can be explained: cut points, their channel axes, and the default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from cfcam_onnx._graph import Graph, attributes, reads

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

PASSED_OVER = frozenset(
    {
        *("AveragePool", "Cast", "Dropout", "Identity", "LpPool", "MaxPool", "Pad", "Reshape"),
        *("Slice", "Transpose"),
    }
)
"""Operators whose output is no default layer: what they read says as much, on no coarser grid."""

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
"""Operators that weigh channels against each other."""


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor that can be explained."""

    name: str
    kind: str
    """Operator that makes it; ``Input`` for an input of the model."""
    channels: int
    """Axis of the channels."""
    grid: tuple[int | None, ...]
    """Sizes of its spatial axes in the trial run; None where they are open and there was none."""

    @property
    def least(self) -> int:
        """Size of the grid's shortest axis; an open one counts as large."""
        return min((size for size in self.grid if size is not None), default=1 << 30)


def site(graph: Graph, name: str, channels: dict[str, int]) -> Site | None:
    """Return a tensor seen as a layer, or None if it has no spatial axes or no gradient."""
    shape = graph.sample_shape(name)
    if shape is None or not 3 <= len(shape) <= 5 or not graph.is_float(name):
        return None
    axis = channels.get(name, 1)
    producer = graph.producer.get(name)
    kind = "Input" if producer is None else producer.op_type
    grid = tuple(size for i, size in enumerate(shape) if i not in {0, axis})
    return Site(name, kind, axis, grid)


def cut_points(graph: Graph, logits: str) -> list[str]:
    """Return the tensors that every path from the inputs to the logits runs through, in order.

    One pass with a count of what is still to be read: where a single tensor is alive, it is a cut.
    """
    sources = {info.name for info in graph.inputs}
    nodes = [n for n in graph.needed([logits]) if n.op_type not in {"Shape", "Size"}]
    flowing = graph.reached(sources, nodes)
    nodes = [node for node in nodes if flowing.intersection(reads(node))]
    unread = Counter(name for node in nodes for name in flowing.intersection(reads(node)))
    alive = {name for name in sources if unread[name]}
    cuts: list[str] = []
    for node in nodes:
        for name in flowing.intersection(reads(node)):
            unread[name] -= 1
            if not unread[name]:
                alive.discard(name)
        alive.update(name for name in node.output if unread[name] or name == logits)
        if len(alive) == 1 and alive.intersection(node.output):
            cuts.extend(alive)
    return cuts


def channel_axes(graph: Graph) -> dict[str, int]:
    """Return the axis of the channels of each tensor for which the operators around it tell.

    What convolutions say is spread first, along operators that keep their axes and through
    transpositions; then the weaker signs of a channels-last model: a dense layer on the last
    axis, and only then pooling over axes 1 and 2, for the mean over channels in a written-out
    LayerNormalization looks like a pooling over tokens.
    """
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in CHANNELS_SECOND:
            found.update({node.input[0]: 1, node.output[0]: 1})
    _spread(graph, found)
    for hint in (_dense_hint, _pooling_hint):
        for node in graph.nodes:
            axis = hint(graph, node)
            if axis is not None:
                found.setdefault(node.input[0], axis)
        _spread(graph, found)
    for info in graph.inputs:
        shape = graph.shape(info.name) or ()
        if len(shape) >= 4 and info.name not in found:
            found[info.name] = len(shape) - 1 if shape[-1] in {1, 3, 4} and shape[1] != 3 else 1
    return found


def default_site(graph: Graph, logits: str, sites: list[Site]) -> Site | None:
    """Return the last place before the grid collapses whose channels are weighed later on.

    That leaves out maps of single classes, in which only one channel has a gradient. Places with
    as many axes as the model's input go first, then grids of at least 3 positions an axis.
    """
    rank = len(graph.shape(graph.inputs[0].name) or ())
    weighed = _before(graph, logits, WEIGHTED)
    plain = [s for s in sites if s.kind not in PASSED_OVER]
    mixed = [s for s in plain if s.name in weighed] or plain
    own = [s for s in mixed if len(s.grid) + 2 == rank]
    for candidates in (_tokens(graph, logits, mixed, own), own, mixed, sites):
        fine = [s for s in candidates if s.least >= 3] or candidates
        if fine:
            return fine[-1]
    return None


def _tokens(graph: Graph, logits: str, sites: list[Site], maps: list[Site]) -> list[Site]:
    """Return the token layers (N, T, C) of a transformer: two or more after the last map.

    Where the head picks single tokens, what comes after the last attention has a gradient at those
    only, and is left out.
    """
    after = sites[sites.index(maps[-1]) + 1 :] if maps and len(maps[-1].grid) > 1 else []
    tokens = [s for s in after if len(s.grid) == 1 and s.channels == 2]
    if len(tokens) < 2:
        return []
    head = graph.needed([logits], leaves=[tokens[-1].name])
    attended = _before(graph, logits, frozenset({"Softmax"}))
    picks = any(node.op_type in {"Gather", "Slice"} for node in head)
    return [s for s in tokens if s.name in attended] if picks else tokens


def _before(graph: Graph, logits: str, operators: frozenset[str]) -> set[str]:
    """Return the tensors that lead to one of the operators, and through it to the logits."""
    found: set[str] = set()
    for node in reversed(graph.needed([logits])):
        if node.op_type in operators or found.intersection(node.output):
            found.update(reads(node))
    return found


def _spread(graph: Graph, found: dict[str, int]) -> None:
    """Carry known axes along the graph, forwards and then backwards."""
    for nodes in (graph.nodes, graph.nodes[::-1], graph.nodes):
        for node in nodes:
            for a, b, perm in _links(graph, node):
                if a in found:
                    found.setdefault(b, perm.index(found[a]))
                elif b in found:
                    found.setdefault(a, perm[found[b]])


def _links(graph: Graph, node: onnx.NodeProto) -> Iterable[tuple[str, str, list[int]]]:
    """Yield an input, an output and a permutation: output axis i is input axis perm[i]."""
    shape = graph.shape(node.output[0]) if node.output else None
    if shape is None or len(shape) < 3:
        return
    if node.op_type == "Transpose":
        backwards = list(range(len(shape)))[::-1]
        yield node.input[0], node.output[0], list(attributes(node).get("perm", backwards))
    elif node.op_type not in AXES_MOVE:
        for name in node.input:
            if name in graph.initializers or len(graph.shape(name) or ()) != len(shape):
                continue
            for output in node.output:
                if output:
                    yield name, output, list(range(len(shape)))


def _dense_hint(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return the last axis of a node's first input, if weights or a norm run along it."""
    last = max(_behind_batch(graph, node), default=None)
    if last is not None and node.op_type == "MatMul":
        return last if len(graph.shape(node.input[1]) or ()) == 2 else None
    if last is not None and node.op_type == "LayerNormalization":
        return last if attributes(node).get("axis", -1) in {-1, last} else None
    return None


def _pooling_hint(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return the one axis behind the batch that a reduction keeps, if it is one."""
    rest = _behind_batch(graph, node)
    if not node.op_type.startswith("Reduce"):
        return None
    axes = attributes(node).get("axes")
    if axes is None and len(node.input) > 1:
        value = graph.value(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    kept = rest - {axis % (len(rest) + 1) for axis in axes or ()}
    return kept.pop() if len(kept) == 1 else None


def _behind_batch(graph: Graph, node: onnx.NodeProto) -> set[int]:
    """Return the axes of a node's first input but the first, if there are several."""
    shape = graph.shape(node.input[0]) if node.input else None
    return set(range(1, len(shape))) if shape is not None and len(shape) >= 3 else set()
