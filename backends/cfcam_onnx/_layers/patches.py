"""Where the positions of a picture are in each tensor, followed from the input on.

Each axis is told as what it counts, from the outermost to the innermost: rows, columns, tokens of
which some are in front of a grid, or anything else. A Reshape splits and merges these parts, a
Transpose moves them. So tokens count as patches only where they are rows of columns again after
all that was done to them; those in the order of windows do not, nor do hidden units or queries
that were learned, which do not come from any position.

Not seen is what is done inside subgraphs and by operators of other domains, of which it is believed
that they leave equal axes in their order; and that rolled maps have their origin elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from cfcam_core.parts import (
    COLUMNS,
    OTHER,
    ROWS,
    Axes,
    axis_of,
    blank,
    checked,
    cut,
    fold_of_axis,
    is_marked,
    joined,
    plain,
    resized,
    row,
    settled,
    size_of,
    split,
)
from cfcam_core.tokens import Fold
from cfcam_onnx._graph import Graph, attributes

WINDOWS = frozenset(
    {
        *("AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace"),
        *("GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool", "QLinearConv"),
        *("Resize", "SpaceToDepth", "Upsample"),
    }
)
"""Operators that make a map of a map, on a grid of its own."""

FIRST_ONLY = frozenset(
    {
        *("Attention", "BatchNormalization", "GroupNormalization", "InstanceNormalization"),
        *("MultiHeadAttention", "ScatterElements", "ScatterND"),
    }
)
"""Operators whose output has the positions of what they read first."""

SCATTERED = frozenset(
    {
        *("Compress", "GRU", "GatherElements", "GatherND", "GridSample", "If", "LSTM"),
        *("Loop", "NonZero", "RNN", "RoiAlign", "Scan", "Shape", "Size", "Tile", "TopK", "Unique"),
    }
)
"""Operators behind which nothing is known of positions."""


def find_patches(graph: Graph, picture: str, spatial: Sequence[int]) -> dict[str, tuple[int, Fold]]:
    """Return the tensors (N, T, C) or (N, C, T) whose tokens are patches of a picture, row by row.

    Parameters
    ----------
    graph : Graph
    picture : str
        Name of an input.
    spatial : sequence of int
        Its axes of rows and of columns.

    Returns
    -------
    dict of str to tuple of (int, Fold)
        The axis of the tokens, and how they lie on the grid in the trial run.
    """
    start = plain(graph.sample_shape(picture))
    if start is None:
        return {}
    marks = dict(zip(spatial, (ROWS, COLUMNS), strict=True))
    known: dict[str, Axes] = {
        picture: tuple(
            axis_of([replace(part, of=marks.get(i, OTHER)) for part in axis])
            for i, axis in enumerate(start)
        )
    }
    for node in graph.nodes:
        if any(name in known for name in node.input):
            for name, made in zip(node.output, _made(graph, node, known), strict=False):
                axes = checked(made, graph.sample_shape(name)) if name else None
                if axes is not None and any(map(is_marked, axes)):
                    known[name] = axes
    found = {name: _patches(axes) for name, axes in known.items() if len(axes) == 3}
    return {name: patches for name, patches in found.items() if patches is not None}


def _patches(axes: Axes) -> tuple[int, Fold] | None:
    """Return which of three axes is that of patches, if one alone has positions on it."""
    marked = [i for i, axis in enumerate(axes) if is_marked(axis)]
    fold = fold_of_axis(axes[marked[0]]) if len(marked) == 1 and marked[0] else None
    return None if fold is None else (marked[0], fold)


# -------------------------------------------------------------------------------------- operators


class Step(NamedTuple):
    """An output of an operator, and what is known of what it is made from."""

    graph: Graph
    node: onnx.NodeProto
    read: list[Axes | None]
    first: Axes
    """What is read first."""
    number: int
    """Which of the outputs."""
    shape: Sequence[int | None] | None
    """Its sizes in the trial run."""


def _made(graph: Graph, node: onnx.NodeProto, known: dict[str, Axes]) -> Iterator[Axes | None]:
    """Yield the axes of each output of a node, None where nothing is known of them."""
    read = [known.get(name) or plain(graph.sample_shape(name)) for name in node.input if name]
    rule, first = RULES.get(node.op_type, _alike), read[0] if read else None
    if node.op_type in SCATTERED or (first is None and rule is not _alike):
        return
    for number, name in enumerate(node.output):
        shape = graph.sample_shape(name) if name else None
        yield rule(Step(graph, node, read, first or (), number, shape))


def _alike(step: Step) -> Axes | None:
    inputs = step.read[:1] if step.node.op_type in FIRST_ONLY else step.read
    there = [axes for axes in inputs if axes is not None]
    return joined(there) if there else None


def _reshape(step: Step) -> Axes | None:
    axes = step.first
    if step.shape is None or list(step.shape).count(None) > 1:
        return None
    total = math.prod(map(size_of, axes))
    rest = math.prod(size for size in step.shape if size is not None)
    sizes = [max(total // max(rest, 1), 1) if size is None else size for size in step.shape]
    return split(axes, sizes)


def _transpose(step: Step) -> Axes | None:
    axes = step.first
    return tuple(axes[i] for i in attributes(step.node).get("perm", range(len(axes))[::-1]))


def _window(step: Step) -> Axes | None:
    axes = step.first
    if step.shape is None or len(step.shape) != len(axes) or len(axes) < 3:
        return None
    if step.node.op_type in {"Resize", "Upsample"}:
        return tuple(map(resized, axes, step.shape))
    return axes[0], blank(step.shape[1] or 1), *map(resized, axes[2:], step.shape[2:])


def _pad(step: Step) -> Axes | None:
    axes = step.first
    return None if step.shape is None else tuple(map(resized, axes, step.shape))


def _matmul(step: Step) -> Axes | None:
    left, right = step.read[0], step.read[3 if step.node.op_type == "QLinearMatMul" else 1]
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    front = [axes[:-2] for axes in (left, right) if len(axes) > 2]
    made = (*(joined(front) if front else ()), left[-2], right[-1])
    return settled([left, right], made)


def _gemm(step: Step) -> Axes | None:
    axes = step.first
    if step.shape is None or attributes(step.node).get("transA") or len(axes) != 2:
        return None
    return settled([axes], (axes[0], blank(step.shape[1] or 1)))


def _einsum(step: Step) -> Axes | None:
    terms, arrow, wanted = attributes(step.node)["equation"].replace(" ", "").partition("->")
    operands = [axes for axes in step.read if axes is not None]
    letters = terms.split(",")
    if not arrow or "." in terms or [*map(len, letters)] != [*map(len, operands)]:
        return None
    made = []
    for letter in wanted:
        there = [
            (axes[term.index(letter)],)
            for term, axes in zip(letters, operands, strict=True)
            if letter in term
        ]
        made.append(joined(there)[0])
    return settled(operands, tuple(made))


def _reduce(step: Step) -> Axes | None:
    axes, given = step.read[0] or (), attributes(step.node)
    over = _integers(step.graph, step.node, 1, "axes")
    if over is None and (len(step.node.input) > 1 and step.node.input[1]):
        return None
    gone = {axis % len(axes) for axis in over or range(len(axes))}
    gone = {given.get("axis", 0) % len(axes)} if step.node.op_type.startswith("Arg") else gone
    keeps = given.get("keepdims", 1)
    made = [() if i in gone else axis for i, axis in enumerate(axes) if keeps or i not in gone]
    return settled([axes], tuple(made))


def _slice(step: Step) -> Axes | None:
    axes = step.first
    starts = _integers(step.graph, step.node, 1, "starts")
    if step.shape is None or starts is None:
        return None
    at = _integers(step.graph, step.node, 3, "axes") or range(len(starts))
    steps = _integers(step.graph, step.node, 4, "steps") or [1] * len(starts)
    made = list(axes)
    for axis, start, stride in zip(at, starts, steps, strict=False):
        i = axis % len(axes)
        size, whole = step.shape[i], size_of(axes[i])
        first = start if start >= 0 else start + whole
        made[i] = blank(size or 1) if stride < 0 else cut(axes[i], first, size)
    return settled([axes], tuple(made))


def _split_up(step: Step) -> Axes | None:
    axes = step.first
    i = attributes(step.node).get("axis", 0) % len(axes)
    before = [
        (step.graph.sample_shape(name) or ())[i : i + 1] for name in step.node.output[: step.number]
    ]
    if step.shape is None or any(size in {(), (None,)} for size in before):
        return None
    start = sum(size[0] or 0 for size in before)
    return settled([axes], (*axes[:i], cut(axes[i], start, step.shape[i]), *axes[i + 1 :]))


def _gather(step: Step) -> Axes | None:
    axes = step.first
    i = attributes(step.node).get("axis", 0) % len(axes)
    if step.shape is None or len(step.shape) < len(axes) - 1:
        return None
    taken = step.shape[i : i + 1 + len(step.shape) - len(axes)]
    found = _indices(step.graph, step.node.input[1])
    if not taken:
        return settled([axes], axes[:i] + axes[i + 1 :])
    middle = [blank(size or 1) for size in taken]
    if found is not None and found.size:
        index = np.where(found < 0, found + size_of(axes[i]), found)
        if found.ndim == 1 and (np.diff(index) > 0).all():
            whole = index[-1] - index[0] + 1 == len(index)
            middle = [cut(axes[i], int(index[0]) if whole else None, len(index))]
        elif found.ndim == 2 and min(found.shape) > 1:  # windows, cut out one beside the other
            steps = np.abs([index[1, 0] - index[0, 0], index[0, 1] - index[0, 0]])
            place = int(steps.argmax())
            middle[place] = resized(axes[i], found.shape[place])
    return settled([axes], (*axes[:i], *middle, *axes[i + 1 :]))


def _concat(step: Step) -> Axes | None:
    pieces = [axes for axes in step.read if axes is not None]
    i = attributes(step.node).get("axis", 0) % len(pieces[0])
    if len(pieces) < len(step.read):
        return None
    others = joined([(*axes[:i], (), *axes[i + 1 :]) for axes in pieces])
    return (*others[:i], row([axes[i] for axes in pieces]), *others[i + 1 :])


def _indices(graph: Graph, name: str) -> NDArray[Any] | None:
    """Return the value of indices, also where windows and their places are still to be added."""
    node, value = graph.producer.get(name), graph.value(name)
    if value is not None or node is None or node.op_type not in {"Add", "Unsqueeze"}:
        return value
    if node.op_type == "Add":
        terms = [_indices(graph, one) for one in node.input]
        return None if terms[0] is None or terms[1] is None else terms[0] + terms[1]
    value, axes = _indices(graph, node.input[0]), _integers(graph, node, 1, "axes")
    return None if value is None or axes is None else np.expand_dims(value, tuple(axes))


def _integers(graph: Graph, node: onnx.NodeProto, number: int, name: str) -> list[int] | None:
    """Return numbers that older operators have as an attribute, newer ones as an input."""
    if name in attributes(node):
        return [int(value) for value in attributes(node)[name]]
    there = number < len(node.input) and node.input[number]
    value = graph.value(node.input[number]) if there else None
    return None if value is None else [int(one) for one in value.reshape(-1)]


REDUCTIONS = (
    *("ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
)

RULES: dict[str, Callable[[Step], Axes | None]] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(WINDOWS, _window),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "Concat": _concat,
    "Einsum": _einsum,
    "Gather": _gather,
    "Gemm": _gemm,
    **dict.fromkeys(("Expand", "Pad"), _pad),
    "Slice": _slice,
    "Split": _split_up,
    "Transpose": _transpose,
}
