"""Where the positions of a picture are in each tensor, followed from the input on.

What `cfcam_core.parts` says of axes is put to the operators that autograd has recorded. Tokens in
the order of windows, learned queries and hidden units are no positions, and stay in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

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
from cfcam_torch._axes import DENSE, SECOND, SHAPING, from_front, moved
from cfcam_torch._graph import Edge, kind_of, outputs_of, parents, shape_of

LOST = (
    *("AccumulateGrad", "Copy", "Embedding", "Flip", "Gather", "GridSampler", "Index", "Repeat"),
    *("Roll", "Scatter", "Sort", "Stack"),
)
"""Beginnings of the names of operators behind which nothing is known of positions."""

RECURRENT = ("Gru", "Lstm", "Rnn")
"""Parts of the names of operators that make hidden units, which are no places of a picture."""


class Step(NamedTuple):
    """An output of an operator, and what is known of what it is made from."""

    node: Any
    read: list[Axes | None]
    number: int
    """Which of the outputs."""
    shape: tuple[int, ...]


def find_patches(
    nodes: Sequence[Any], picture: Edge, spatial: Sequence[int]
) -> dict[Edge, tuple[int, Fold]]:
    """Return the tensors (N, T, C) or (N, C, T) whose tokens are patches of a picture, row by row.

    Parameters
    ----------
    nodes : sequence of nodes
        What is read comes before what reads it.
    picture : Edge
        The input.
    spatial : sequence of int
        Its axes of rows and of columns.

    Returns
    -------
    dict of Edge to tuple of (int, Fold)
        The axis of the tokens, and how they lie on the grid.
    """
    marks = dict(zip(spatial, (ROWS, COLUMNS), strict=True))
    start = plain(shape_of(picture)) or ()
    known: dict[Edge, Axes] = {
        picture: tuple(
            axis_of([replace(part, of=marks.get(i, OTHER)) for part in axis])
            for i, axis in enumerate(start)
        )
    }
    for node in nodes:
        if (node, 0) in known or not any(edge in known for edge in parents(node)):
            continue
        rule = _rule(kind_of(node))
        read = [None if e is None else known.get(e) or plain(shape_of(e)) for e in parents(node)]
        for number in range(outputs_of(node)):
            shape = shape_of((node, number))
            axes = checked(rule(Step(node, read, number, shape)), shape) if rule else None
            if axes is not None and any(map(is_marked, axes)):
                known[node, number] = axes
    found = {edge: _patches(axes) for edge, axes in known.items() if len(axes) == 3}
    return {edge: patches for edge, patches in found.items() if patches is not None}


def _patches(axes: Axes) -> tuple[int, Fold] | None:
    """Return which of three axes is that of patches, if one alone has positions on it."""
    marked = [i for i, axis in enumerate(axes) if is_marked(axis)]
    fold = fold_of_axis(axes[marked[0]]) if len(marked) == 1 and marked[0] else None
    return None if fold is None else (marked[0], fold)


Rule = Callable[[Step], Axes | None]


def _rule(kind: str) -> Rule | None:
    """Return what an operator does to axes; None where nothing is known of positions behind it."""
    if kind.startswith(LOST) or any(part in kind for part in RECURRENT):
        return None
    if kind in EXACT:
        return EXACT[kind]
    return next((rule for parts, rule in ROUGH if any(part in kind for part in parts)), _alike)


def _alike(step: Step) -> Axes | None:
    """Elementwise and the like: equal axes of equal sizes mean the same."""
    there = [axes for axes in step.read if axes is not None and len(axes) <= len(step.shape)]
    return joined(there) if there else None


def _first(step: Step) -> Axes | None:
    """Norms of channels; attention, whose positions are those of the queries."""
    return step.read[0]


def _reshaped(step: Step) -> Axes | None:
    axes = step.read[0]
    return None if axes is None else split(axes, step.shape)


def _moved(step: Step) -> Axes | None:
    axes = step.read[0]
    if axes is None or len(axes) != len(step.shape):
        return None
    order = [1, 0] if kind_of(step.node) == "T" else moved(step.node, len(axes))
    return tuple(axes[i] for i in order)


def _windowed(step: Step) -> Axes | None:
    """Convolution, pooling and the like: a map of a map, on a grid of its own."""
    axes = step.read[0]
    if axes is None or len(axes) != len(step.shape) or len(axes) < 3:
        return None
    return axes[0], blank(step.shape[1]), *map(resized, axes[2:], step.shape[2:])


def _padded(step: Step) -> Axes | None:
    axes = step.read[0]
    return None if axes is None else tuple(map(resized, axes, step.shape))


def _product(step: Step) -> Axes | None:
    """Matrix products, of which the last two operands are the factors."""
    left, right = step.read[-2:]
    if left is None or len(left) != len(step.shape):
        return None
    last = right[-1] if right is not None else blank(step.shape[-1])
    return settled([left, *([right] if right else [])], (*left[:-1], last))


def _dense(step: Step) -> Axes | None:
    axes = step.read[0]
    return None if axes is None else settled([axes], (*axes[:-1], blank(step.shape[-1])))


def _joined(step: Step) -> Axes | None:
    """Concatenation; what carries no gradient has no shape of its own here."""
    axis = _axis(step, len(step.shape))
    there = [axes for axes in step.read if axes is not None]
    others = joined([(*axes[:axis], (), *axes[axis + 1 :]) for axes in there])
    rest = step.shape[axis] - sum(size_of(axes[axis]) for axes in there)
    pieces = [axes[axis] for axes in there]
    at = len(pieces) if step.read[-1] is None else 0
    pieces[at:at] = [blank(rest)] if rest else []
    return (*others[:axis], row(pieces), *others[axis + 1 :])


def _sliced(step: Step) -> Axes | None:
    axes, node = step.read[0], step.node
    if axes is None:
        return None
    axis = _axis(step, len(axes))
    start = int(node._saved_start or 0) if node._saved_step == 1 else None  # noqa: SLF001
    return _cut(axes, axis, start, step.shape)


def _split(step: Step) -> Axes | None:
    axes = step.read[0]
    if axes is None:
        return None
    axis = _axis(step, len(axes))
    before = sum(shape_of((step.node, number))[axis] for number in range(step.number))
    return _cut(axes, axis, before, step.shape)


def _cut(axes: Axes, axis: int, start: int | None, shape: tuple[int, ...]) -> Axes:
    return settled([axes], (*axes[:axis], cut(axes[axis], start, shape[axis]), *axes[axis + 1 :]))


def _selected(step: Step) -> Axes | None:
    axes = step.read[0]
    if axes is None:
        return None
    axis = _axis(step, len(axes))
    return settled([axes], axes[:axis] + axes[axis + 1 :])


def _axis(step: Step, rank: int) -> int:
    return from_front(int(step.node._saved_dim), rank)  # noqa: SLF001


EXACT: dict[str, Rule] = {
    **dict.fromkeys(SHAPING, _reshaped),
    **dict.fromkeys(("Permute", "Transpose", "T"), _moved),
    **dict.fromkeys((*DENSE, "Bmm", "Baddbmm"), _product),
    **dict.fromkeys(("Select", "Unbind"), _selected),
    "Cat": _joined,
    "ConstantPadNd": _padded,
    "Linear": _dense,
    "Slice": _sliced,
}
"""Rules by the name of the operator."""

ROUGH: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("Attention", "BatchNorm", "GroupNorm", "InstanceNorm"), _first),
    (SECOND, _windowed),
    (("Split", "Chunk"), _split),
)
"""Rules by parts of the name; the first that fits."""
