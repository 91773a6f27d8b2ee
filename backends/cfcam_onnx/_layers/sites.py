"""Which tensors can be explained: cut points, tokens on their grid, and the default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import onnx

from cfcam_core import cuts
from cfcam_core.tokens import Fold
from cfcam_onnx._graph import Graph, reads
from cfcam_onnx._layers.scopes import module_of

PICTURE = 2
"""Spatial axes of a picture."""

PASSED_OVER = frozenset(
    {
        *("AveragePool", "Cast", "Dropout", "Identity", "LpPool", "MaxPool", "Pad", "Reshape"),
        *("Slice", "Transpose"),
    }
)
"""Operators whose output is no default layer: what they read says as much, on no coarser grid."""

PIECES = frozenset({"Concat", "Gather", "Split"})
"""Operators that cut a tensor up and put it together again, as a roll is exported."""

TAKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
"""Operators by which a head takes single tokens."""

ATTENDING = frozenset({"Attention", "Softmax"})
"""Operators by which tokens learn of each other."""

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
    """Sizes of its spatial axes in the trial run, tokens laid out in rows and columns; None where
    they are open and there was none."""
    prefix: int | None = None
    """Tokens in front of those on the grid; None where the layer has no tokens of a picture."""
    module: str = ""
    """Dotted path of the module that makes it, where the file has one."""

    @property
    def least(self) -> int:
        """Size of the grid's shortest axis; an open one counts as large."""
        return min((size for size in self.grid if size is not None), default=1 << 30)


def site(
    graph: Graph, name: str, channels: dict[str, int], patches: tuple[int, Fold] | None = None
) -> Site | None:
    """Return a tensor seen as a layer, or None if it has no spatial axes or no gradient.

    Parameters
    ----------
    graph : Graph
    name : str
    channels : dict of str to int
        What `cfcam_onnx._layers.axes.channel_axes` has found.
    patches : tuple of (int, Fold), optional
        What `cfcam_onnx._layers.patches.find_patches` has found.
    """
    shape = graph.sample_shape(name)
    if shape is None or not 3 <= len(shape) <= 5 or not graph.is_float(name):
        return None
    producer = graph.producer.get(name)
    kind, module = ("Input", "") if producer is None else (producer.op_type, module_of(producer))
    if patches is not None:
        axis, fold = patches
        return Site(name, kind, 3 - axis, fold.grid, fold.prefix, module)
    axis = channels.get(name, 2 if shape[1] == 1 and shape[2] != 1 else 1)
    grid = tuple(size for i, size in enumerate(shape) if i not in {0, axis})
    return Site(name, kind, axis, grid, module=module)


def cut_points(graph: Graph, logits: str, source: str) -> list[str]:
    """Return the tensors that every path from an input to the logits runs through, in order."""
    nodes = [n for n in graph.needed([logits]) if n.op_type not in {"Shape", "Size"}]
    steps = [(list(reads(node)), list(node.output)) for node in nodes]
    return [name for name in cuts.cut_points(steps, [source], [logits]) if name != source]


def default_site(
    graph: Graph, logits: str, sites: list[Site], axes: int, channels: dict[str, int]
) -> Site | None:
    """Return the last place before the grid collapses whose channels are weighed later on.

    That leaves out maps of single classes, in which only one channel has a gradient, and what is
    only pooled, padded, cut out or rolled. Places with as many axes as the model's input go first,
    their channels known: the heads of an attention have four axes and no picture on them. Then
    grids of at least 3 positions an axis do; a row of tokens is no default for a picture. Where the
    head takes single tokens, what comes after the last attention has a gradient at those only, and
    is left out too.

    Parameters
    ----------
    graph : Graph
    logits : str
    sites : list of Site
        Those on the paths from one input, in order.
    axes : int
        Number of spatial axes of that input.
    channels : dict of str to int
        What `cfcam_onnx._layers.axes.channel_axes` has found.
    """
    weighed = _before(graph, logits, WEIGHTED)
    plain = [
        place
        for before, place in pairwise([None, *sites])
        if place is not None and not _is_moved(graph, before, place)
    ]
    mixed = [s for s in plain if s.name in weighed] or plain
    alike = [s for s in mixed if len(s.grid) == axes]
    own = [s for s in alike if s.name in channels] or alike
    if own and _is_taken_from(graph, logits, own[-1]):
        attended = _before(graph, own[-1].name, ATTENDING)
        own = [s for s in own if s.name in attended] or own
    for candidates in (own, mixed, sites):
        drawn = [s for s in candidates if axes != PICTURE or len(s.grid) > 1]
        fine = [s for s in drawn if s.least >= 3] or drawn
        if fine:
            return fine[-1]
    return None


def _is_moved(graph: Graph, before: Site | None, place: Site) -> bool:
    """Whether a place only holds what the one before it does, elsewhere or on a coarser grid."""
    if place.kind in PASSED_OVER:
        return True
    if place.kind not in PIECES or before is None:
        return False
    between = graph.needed([place.name], leaves=[before.name])
    flowing = graph.reached([before.name], between)
    kinds = {node.op_type for node in between if flowing.intersection(node.output)}
    return kinds <= PASSED_OVER | PIECES | {"Shape", "Size"}


def _is_taken_from(graph: Graph, logits: str, place: Site) -> bool:
    """Whether the head takes single tokens of a place, so that the others have no gradient."""
    behind = graph.needed([logits], leaves=[place.name])
    read = {name for node in behind for name in reads(node)}
    ways = [
        node
        for node in behind
        if node.op_type not in {"Shape", "Size"} and not _takes_tokens(graph, node, place, read)
    ]
    return logits not in graph.reached([place.name], ways)


def _takes_tokens(graph: Graph, node: onnx.NodeProto, place: Site, read: set[str]) -> bool:
    """Whether a node keeps as small a part of what it reads as class tokens are of a place."""
    if node.op_type not in TAKING:
        return False
    front = max(place.prefix or 0, 1)
    whole = math.prod(size or 1 for size in place.grid) + (place.prefix or 0)
    kept = [_elements(graph, name) for name in node.output if name in read]
    return all(one * whole <= _elements(graph, node.input[0]) * front for one in kept)


def _elements(graph: Graph, name: str) -> float:
    """Return the numbers that a sample has; not a number, with which nothing compares, if open."""
    sizes = (graph.sample_shape(name) or (None, None))[1:]
    return math.prod(math.nan if size is None else size for size in sizes)


def _before(graph: Graph, end: str, operators: frozenset[str]) -> set[str]:
    """Return the tensors that lead to one of the operators, and through it to `end`."""
    found: set[str] = set()
    for node in reversed(graph.needed([end])):
        if node.op_type in operators or found.intersection(node.output):
            found.update(reads(node))
    return found
