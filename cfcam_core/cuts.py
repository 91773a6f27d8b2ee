"""Where all paths through a graph run together; any framework's graph will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)


def cut_points(
    steps: Iterable[tuple[Collection[Value], Collection[Value]]],
    sources: Collection[Value],
    ends: Collection[Value],
) -> list[Value]:
    """Return the values that every path from the sources to the ends runs through, in order.

    Parameters
    ----------
    steps : iterable of (reads, makes)
        What each operation reads and makes, in an order in which they can be run; only those that
        the ends are made by. What is made once is made by one of them.
    sources : collection
        Values that the paths start at; no step makes them. A single one is a cut itself.
    ends : collection
        Values that the paths lead to.

    Notes
    -----
    One pass with a count of what is still to be read: where a single value is alive, it is a cut.
    """
    flowing, way = set(sources), []
    for reads, makes in steps:
        read = flowing.intersection(reads)
        if read:
            flowing.update(makes)
            way.append((read, makes))
    unread = Counter(ends)
    unread.update(value for read, _ in way for value in read)
    alive = {value for value in sources if unread[value]}
    cuts = list(alive) if len(alive) == 1 else []
    for read, makes in way:
        unread.subtract(read)
        alive.difference_update(value for value in read if not unread[value])
        alive.update(value for value in makes if unread[value])
        if len(alive) == 1 and alive.intersection(makes):
            cuts.extend(alive)
    return cuts
