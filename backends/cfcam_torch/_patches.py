"""Which tokens are patches of the picture, row by row: followed from the input on.

A tensor is marked with where its rows and columns are, or with the axis along which its patches
lie. Operators move the marks, or lose them: tokens in the order of windows, learned queries and
hidden units carry none, and stay in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cfcam_core.tokens import MOST_PREFIX, Fold
from cfcam_torch._axes import DENSE, SECOND, SHAPING, moved
from cfcam_torch._graph import Edge, kind_of, parents, shape_of

SCATTERED = (
    *("AccumulateGrad", "Copy", "Embedding", "Flip", "Gather", "GridSampler"),
    *("Index", "Repeat", "Roll", "Scatter", "Select", "Sort", "Stack", "Unbind"),
)
"""Beginnings of the names of operators behind which nothing is known of positions."""

RECURRENT = ("Gru", "Lstm", "Rnn")
"""Parts of the names of operators that make hidden units, which are no places of a picture."""


@dataclass(frozen=True, slots=True)
class OnGrid:
    """A tensor with an axis of rows and one of columns."""

    rows: int
    columns: int

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that count positions."""
        return (self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class InRow:
    """A tensor with an axis along which patches lie, row by row."""

    axis: int
    fold: Fold

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that count positions."""
        return (self.axis,)


Mark = OnGrid | InRow


def find_patches(nodes: Sequence[Any], picture: Edge, channels: int) -> dict[Edge, Mark]:
    """Return which tensors have positions of a picture, and along which axes.

    Parameters
    ----------
    nodes : sequence of nodes
        What is read comes before what reads it.
    picture : Edge
        The input, with four axes.
    channels : int
        Its axis of channels.
    """
    rows, columns = (axis for axis in (1, 2, 3) if axis != channels)
    marks: dict[Edge, Mark] = {picture: OnGrid(rows, columns)}
    for node in nodes:
        edge = (node, 0)
        if edge in marks:
            continue
        mark = _mark(node, marks)
        if mark is not None and max(mark.axes) < len(shape_of(edge)):
            for number in range(max(1, _outputs(node))):
                marks[node, number] = mark
    return marks


def _outputs(node: Any) -> int:
    try:
        return len(node._input_metadata)  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return 1


def _mark(node: Any, marks: dict[Edge, Mark]) -> Mark | None:
    kind, read = kind_of(node), [one for one in parents(node) if one is not None]
    if not read or kind.startswith(SCATTERED) or any(part in kind for part in RECURRENT):
        return None
    rule = next((rule for kinds, rule in _RULES if any(part in kind for part in kinds)), None)
    if kind in SHAPING:
        rule = _reshaped
    elif kind in DENSE:
        rule = _dense
    elif kind in {"Permute", "Transpose", "T"}:
        rule = _moved
    return (rule or _alike)(node, read, marks)


def _alike(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Elementwise, norms and the like: equal axes of equal sizes mean the same."""
    shape = shape_of((node, 0))
    for edge in read:
        mark, before = marks.get(edge), shape_of(edge)
        alike = mark is not None and len(before) == len(shape)
        if mark is not None and alike and all(before[i] == shape[i] for i in mark.axes):
            return mark
    return None


def _windowed(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Convolution, pooling and the like: a map of a map, on a grid of its own."""
    del node
    mark = marks.get(read[0])
    return mark if mark == OnGrid(2, 3) else None


def _moved(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    mark, rank = marks.get(read[0]), len(shape_of((node, 0)))
    if mark is None or len(shape_of(read[0])) != rank:
        return None
    order = [1, 0] if kind_of(node) == "T" else moved(node, rank)
    if isinstance(mark, InRow):
        return InRow(order.index(mark.axis), mark.fold)
    return OnGrid(order.index(mark.rows), order.index(mark.columns))


def _dense(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Dense layers along the last axis: rows stay rows."""
    del read
    data = parents(node)[-2]
    mark = marks.get(data) if data is not None else None
    return mark if isinstance(mark, InRow) and mark.axis == 0 else None


def _reshaped(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    mark = marks.get(read[0])
    before, after = shape_of(read[0]), shape_of((node, 0))
    if mark is None:
        return None
    for old, new in _groups(before, after):
        if isinstance(mark, InRow) and old == [mark.axis]:
            if len(new) == 1:
                return InRow(new[0], mark.fold)
            is_grid = not mark.fold.prefix and tuple(after[i] for i in new) == mark.fold.grid
            return OnGrid(*new) if len(new) == 2 and is_grid else None
        if isinstance(mark, OnGrid) and old == [mark.rows, mark.columns] and len(new) == 1:
            return InRow(new[0], Fold(0, (before[mark.rows], before[mark.columns])))
    if isinstance(mark, OnGrid):
        single = {
            old[0]: new[0] for old, new in _groups(before, after) if len(old) == len(new) == 1
        }
        if mark.rows in single and mark.columns in single:
            return OnGrid(single[mark.rows], single[mark.columns])
    return None


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return which axes of one shape make up which of another; those of the size 1 left out."""
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        a, b = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        while math.prod(before[k] for k in a) != math.prod(after[k] for k in b):
            if math.prod(before[k] for k in a) < math.prod(after[k] for k in b):
                if i == len(old):
                    return groups
                a.append(old[i])
                i += 1
            else:
                if j == len(new):
                    return groups
                b.append(new[j])
                j += 1
        groups.append((a, b))
    return groups


def _joined(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Concatenation: of tokens, what comes first is in front of the patches."""
    shape, edges = shape_of((node, 0)), parents(node)
    axis = _axis_of(node, len(shape))
    marked = [edge for edge in read if edge in marks]
    if not marked:
        return None
    mark, size = marks[marked[-1]], shape_of(marked[-1])
    if axis not in mark.axes:
        return mark
    if not isinstance(mark, InRow) or edges[-1] != marked[-1]:
        return None
    prefix = mark.fold.prefix + shape[axis] - size[axis]
    return InRow(axis, Fold(prefix, mark.fold.grid)) if prefix <= MOST_PREFIX else None


def _cut(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Slices: those that leave tokens in front out."""
    mark, shape, before = marks.get(read[0]), shape_of((node, 0)), shape_of(read[0])
    axis = _axis_of(node, len(shape))
    if mark is None or axis not in mark.axes or isinstance(mark, OnGrid):
        return mark
    start, end = node._saved_start, node._saved_end  # noqa: SLF001
    start = 0 if start is None else int(start)
    is_tail = node._saved_step == 1 and (end is None or int(end) >= before[axis])  # noqa: SLF001
    if not is_tail or not 0 <= start <= mark.fold.prefix:
        return None
    return InRow(axis, Fold(mark.fold.prefix - start, mark.fold.grid))


def _split(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    mark = marks.get(read[0])
    if mark is None or _axis_of(node, len(shape_of(read[0]))) in mark.axes:
        return None
    return mark


def _axis_of(node: Any, rank: int) -> int:
    axis = int(node._saved_dim)  # noqa: SLF001
    return (axis - 2**64 if axis >= 2**63 else axis) % rank


def _first(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Attention: the positions are those of the queries."""
    queries = parents(node)[0]
    del read
    return None if queries is None else _alike(node, [queries], marks)


def _weighed(node: Any, read: Sequence[Edge], marks: dict[Edge, Mark]) -> Mark | None:
    """Attention written out: its weights, and what they weigh, are at the places of the queries."""
    queries = parents(node)[0]
    del read
    mark = marks.get(queries) if queries is not None else None
    return mark if isinstance(mark, InRow) and mark.axis == 1 else None


Rule = Callable[[Any, Sequence[Edge], dict[Edge, Mark]], Mark | None]

_RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("BatchNorm", "GroupNorm", "InstanceNorm"), _alike),
    (SECOND, _windowed),
    (("Attention",), _first),
    (("Bmm",), _weighed),
    (("Cat",), _joined),
    (("Slice",), _cut),
    (("Split", "Chunk"), _split),
)
