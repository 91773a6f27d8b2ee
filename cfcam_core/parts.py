"""Axes told as what they count: rows and columns of a picture, tokens, or anything else.

Arithmetic alone; which operator does what to them is for each backend to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cfcam_core.tokens import MOST_PREFIX, Fold

ROWS, COLUMNS, OTHER = "rows", "columns", ""

BATCH = 7919
"""Samples in an open batch that no trial run was made with; a prime divides nothing else."""


@dataclass(frozen=True, slots=True)
class Part:
    """What an axis, or a part of it, counts."""

    of: str | Fold
    size: int
    inner: int = 1
    """Rows or columns that one step passes over."""


Axis = tuple[Part, ...]
Axes = tuple[Axis, ...]


def fold_of_axis(axis: Axis) -> Fold | None:
    """Return how an axis lies on a grid: rows of columns, maybe with tokens in front."""
    if len(axis) == 1 and isinstance(axis[0].of, Fold) and axis[0].inner == 1:
        return axis[0].of if axis[0].size == _count(axis[0].of) else None
    if [part.of for part in axis] != [ROWS, COLUMNS] or any(part.inner > 1 for part in axis):
        return None
    return Fold(0, tuple(part.size for part in axis))


def _count(fold: Fold) -> int:
    return fold.prefix + math.prod(fold.grid)


def axis_of(parts: Iterable[Part]) -> Axis:
    """Return parts as an axis: those put together that belong together."""
    made: list[Part] = []
    for part in parts:
        before = made[-1] if made else None
        if part.size == 1:
            continue
        if before and before.of == part.of and (not part.of or before.inner == _end(part)):
            made[-1] = replace(part, size=before.size * part.size)
        else:
            made.append(part)
    return tuple(made)


def _end(part: Part) -> int:
    return part.size * part.inner


def size_of(axis: Axis) -> int:
    """Return how long an axis is."""
    return math.prod(part.size for part in axis)


def blank(size: int) -> Axis:
    """Return an axis on which there are no positions."""
    return axis_of([Part(OTHER, size)])


def is_marked(axis: Axis) -> bool:
    """Return whether an axis has positions of the picture on it."""
    return any(part.of for part in axis)


def plain(shape: Sequence[int | None] | None) -> Axes | None:
    """Return axes of which nothing but the sizes is known."""
    if not shape or None in shape[1:]:
        return None
    return tuple(blank(BATCH if size is None else size) for size in shape)


def checked(axes: Axes | None, shape: Sequence[int | None] | None) -> Axes | None:
    """Return axes without what does not agree with the sizes that are known."""
    if axes is None or shape is None or len(axes) != len(shape):
        return None
    pairs = zip(axes, shape, strict=True)
    return tuple(
        axis if size in (None, size_of(axis)) else blank(size or 1) for axis, size in pairs
    )


def resized(axis: Axis, size: int | None) -> Axis:
    """Return an axis of rows or columns as those of a grid of another size."""
    if size in (None, size_of(axis)):
        return axis
    alone = len(axis) == 1 and axis[0].of in {ROWS, COLUMNS} and axis[0].inner == 1
    return axis_of([replace(axis[0], size=size)]) if alone and size else blank(size or 1)


def cut(axis: Axis, start: int | None, size: int | None) -> Axis:
    """Return `size` neighbours of an axis, from `start` on."""
    fold = fold_of_axis(axis)
    if size is None or fold is None or size == size_of(axis):
        return resized(axis, size)
    if start is None or size != size_of(axis) - start or not 0 <= start <= fold.prefix:
        return blank(size)
    return _tokens(fold.prefix - start, fold.grid)


def _tokens(prefix: int, grid: tuple[int, ...]) -> Axis:
    if not prefix:
        return tuple(Part(of, size) for of, size in zip((ROWS, COLUMNS), grid, strict=True))
    fold = Fold(prefix, grid)
    return (Part(fold, _count(fold)),)


def joined(found: Sequence[Axes]) -> Axes:
    """Return the axes of what several tensors, aligned at their ends, make together.

    What is known of one holds, unless something else is known of another.
    """
    rank = max(map(len, found))
    made = []
    for i in range(-rank, 0):
        there = [axes[i] for axes in found if len(axes) >= -i]
        size = max(map(size_of, there))
        marked = {axis for axis in there if size_of(axis) == size and is_marked(axis)}
        known = {axis for axis in marked if all(part.of for part in axis)} or marked
        made.append(known.pop() if len(known) == 1 else blank(size))
    return tuple(made)


def settled(before: Iterable[Axes], after: Axes) -> Axes:
    """Return the axes that are left after others were summed up.

    Without its innermost parts a grid is coarser; without its outermost ones it is that of a
    window, and no position in the picture.
    """
    for of in (ROWS, COLUMNS):
        kept = {part for axis in after for part in axis if part.of == of}
        lost = {part for axes in before for axis in axes for part in axis if part.of == of} - kept
        least = min((part.inner for part in kept), default=1)
        of_window = any(part.inner > least for part in lost)
        after = tuple(
            axis_of(
                _of_rest(part, least, of_window=of_window) if part.of == of else part
                for part in axis
            )
            for axis in after
        )
    return after


def _of_rest(part: Part, least: int, *, of_window: bool) -> Part:
    if of_window or part.inner % least:
        return Part(OTHER, part.size)
    return replace(part, inner=part.inner // least)


def split(axes: Axes, sizes: Sequence[int]) -> Axes | None:
    """Return the same parts, in the same order, on axes of other sizes; None if none can be cut."""
    stack = [part for axis in axes for part in axis][::-1]
    made = []
    for size in sizes:
        left, parts = size, []
        while left > 1:
            if not stack:
                return None
            part = stack.pop()
            if part.size > left and part.size % left == 0:
                below = part.size // left
                stack.append(replace(part, size=below))
                part = replace(part, size=left, inner=part.inner * below if part.of else 1)
            elif left % part.size:
                return None
            parts.append(part)
            left //= part.size
        made.append(axis_of(parts))
    return None if stack else tuple(made)


def row(pieces: list[Axis]) -> Axis:
    """Return axes put one behind the other: pieces of a grid, or tokens in front of one."""
    size = sum(map(size_of, pieces))
    kinds = {part.of for axis in pieces for part in axis}
    if all(len(axis) <= 1 for axis in pieces) and kinds in ({ROWS}, {COLUMNS}):
        return axis_of([Part(kinds.pop(), size)])
    fold = fold_of_axis(pieces[-1])
    if fold is None or any(map(is_marked, pieces[:-1])):
        return blank(size)
    prefix = size - math.prod(fold.grid)
    fits = prefix <= min(MOST_PREFIX, math.prod(fold.grid) - 1)
    return _tokens(prefix, fold.grid) if fits else blank(size)
