"""Where a tensor has its channels, told by the operators that autograd has recorded around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cfcam_torch._graph import Edge, kind_of, parents, shape_of

SECOND = (
    *("BatchNorm", "Convolution", "GridSampler", "GroupNorm", "InstanceNorm", "Pool"),
    *("PixelShuffle", "PixelUnshuffle", "Upsample"),
)
"""Parts of the names of operators whose channels are the second axis by definition."""

SHAPING = frozenset(
    {
        *("AsStrided", "ReshapeAlias", "Reshape", "Squeeze", "UnsafeView", "Unsqueeze", "View"),
        *("Flatten", "Unflatten", "ViewCopy"),
    }
)
"""Operators that split and merge axes."""

AXES_MOVE = SHAPING | frozenset(
    {
        *("Addmm", "AddmmActivation", "Baddbmm", "Bmm", "Embedding", "Expand", "Gather", "Index"),
        *("IndexSelect", "Linear", "Mm", "Mv", "Select", "Stack", "T", "Unbind", "Unfold"),
        *("Diagonal", "AccumulateGrad", "Repeat", "Dot"),
    }
)
"""Operators that change what an axis means; in all others, equal ranks mean equal axes."""

DENSE = frozenset({"Addmm", "AddmmActivation", "Mm"})
"""Operators that a dense layer along the last axis is made of."""


def channel_axes(nodes: Sequence[Any], told: Mapping[Edge, int]) -> dict[Edge, int]:
    """Return the axis of the channels of each tensor for which the operators around it tell.

    What convolutions say is spread first, along operators that keep their axes and through
    transpositions; then the weaker signs: a norm and a dense layer along the last axis, for some
    layers mix tokens.

    Parameters
    ----------
    nodes : sequence of nodes
        What is read comes before what reads it.
    told : mapping of Edge to int
        What is known already, from the modules themselves.
    """
    found = dict(told)
    for node in nodes:
        if _is_second(node) and len(shape_of((node, 0))) >= 3:
            read = parents(node)[0]
            for edge in [(node, 0)] + ([read] if read is not None else []):
                if len(shape_of(edge)) >= 3:
                    found.setdefault(edge, 1)
    _spread(nodes, found)
    for hint in (_norm_hint, _dense_hint):
        for node in nodes:
            for edge in hint(node):
                if len(shape_of(edge)) >= 3:
                    found.setdefault(edge, len(shape_of(edge)) - 1)
        _spread(nodes, found)
    return found


def moved(node: Any, rank: int) -> list[int]:
    """Return which axis of what was read each axis of a transposition's output is."""
    if kind_of(node) == "Permute":
        return [from_front(axis, rank) for axis in node._saved_dims]  # noqa: SLF001
    order = list(range(rank))
    a, b = from_front(node._saved_dim0, rank), from_front(node._saved_dim1, rank)  # noqa: SLF001
    order[a], order[b] = order[b], order[a]
    return order


def from_front(axis: int, rank: int) -> int:
    """Return an axis from 0 on; autograd saves negative ones as huge numbers."""
    return (axis - 2**64 if axis >= 2**63 else axis) % rank


def _is_second(node: Any) -> bool:
    kind = kind_of(node)
    return any(part in kind for part in SECOND)


def _spread(nodes: Sequence[Any], found: dict[Edge, int]) -> None:
    """Carry known axes along the graph, forwards, backwards, and forwards again."""
    links = [link for node in nodes for link in _links(node)]
    for order in (links, links[::-1], links):
        for a, b, axes in order:
            if a in found and found[a] in axes:
                found.setdefault(b, axes[found[a]])
            elif b in found and a not in found:
                back = {after: before for before, after in axes.items()}
                if found[b] in back:
                    found[a] = back[found[b]]


def _links(node: Any) -> Iterator[tuple[Edge, Edge, dict[int, int]]]:
    """Yield what was read, what was made, and which axis of the one is which of the other."""
    made, kind = (node, 0), kind_of(node)
    shape = shape_of(made)
    if len(shape) < 3:
        return
    for read in parents(node):
        before = shape_of(read) if read is not None else ()
        if read is None or len(before) < 3:
            continue
        if kind in {"Permute", "Transpose"}:
            yield read, made, {b: a for a, b in enumerate(moved(node, len(shape)))}
        elif kind in SHAPING:
            alike = [(a, b) for a, b in groups(before, shape) if len(a) == len(b) == 1]
            yield read, made, {a[0]: b[0] for a, b in alike}
        elif kind not in AXES_MOVE and len(before) == len(shape):
            yield read, made, {axis: axis for axis in range(len(shape))}


def groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which axes of one shape make up which of another; those of the size 1 left out."""
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    found: list[tuple[list[int], list[int]]] = []
    while old and new:
        a, b = [old.pop(0)], [new.pop(0)]
        while (left := math.prod(before[i] for i in a)) != math.prod(after[j] for j in b):
            shorter, rest = (a, old) if left < math.prod(after[j] for j in b) else (b, new)
            if not rest:
                return found
            shorter.append(rest.pop(0))
        found.append((a, b))
    return found


def _norm_hint(node: Any) -> list[Edge]:
    """Return what a norm over the last axis reads and makes."""
    if "LayerNorm" not in kind_of(node) and "RmsNorm" not in kind_of(node):
        return []
    if len(getattr(node, "_saved_normalized_shape", ())) != 1:
        return []
    return [edge for edge in ((node, 0), parents(node)[0]) if edge is not None]


def _dense_hint(node: Any) -> list[Edge]:
    """Return what a dense layer along the last axis reads or makes."""
    kind, read = kind_of(node), parents(node)
    if kind == "Linear":
        return [edge for edge in ((node, 0), read[0]) if edge is not None]
    if kind in {"UnsafeView", "View"} and read[0] is not None and kind_of(read[0][0]) in DENSE:
        return [(node, 0)]
    if kind in DENSE:
        data = read[-2]
        if data is not None and kind_of(data[0]) in SHAPING:
            source = parents(data[0])[0]
            return [] if source is None else [source]
    return []
