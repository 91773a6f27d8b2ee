"""What was learned of an object is kept as long as the object lives and is built as it was.

For backends: `explain` on a model that is not opened then pays for its trial runs once. What is
kept must not hold the object, or it would never die.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from threading import Lock
from typing import Any

MOST = 24
"""Facts that are remembered of one object (ours): up to three for each of eight kinds of inputs."""


class Parts:
    """Of which objects something is built, and how; none of them is kept alive.

    Parameters
    ----------
    objects : iterable of object
        Compared by identity; by their types, those that no weak reference can be made to.
    how : optional
        Names, places and the like; compared by equality.
    """

    def __init__(self, objects: Iterable[object], how: Any = None) -> None:
        self._refs = [_weak(one) for one in objects]
        self._how = how

    def fits(self, other: Parts) -> bool:
        """Return whether these are the same objects, all alive, in the same order and manner."""
        return (
            len(self._refs) == len(other._refs)
            and all(_are_one(a(), b()) for a, b in zip(self._refs, other._refs, strict=True))
            and bool(self._how == other._how)
        )


class _Of:
    """What is known of one object."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.by_key: OrderedDict[Hashable, Any] = OrderedDict()


_lock = Lock()
_known: dict[int, tuple[weakref.ref[Any], _Of]] = {}


def remembered(of: object, parts: Parts, key: Hashable, learn: Callable[[], Any]) -> Any:
    """Return what `learn` returns, called only if that is not known yet.

    Parameters
    ----------
    of : object
        What it is about; known by identity. Of one that no weak reference can be made to nothing
        is remembered.
    parts : Parts
        Of what it is built now; if of something else than before, all about it is forgotten.
    key : hashable
        What else it depends on. What was asked for last is kept, up to `MOST` keys an object.
    learn : callable
        Two threads that ask at once may both call it.
    """
    number = id(of)
    with _lock:
        known = _known.get(number)
        if known is None or known[0]() is not of or not known[1].parts.fits(parts):
            try:
                ref = weakref.ref(of, _forget(number))
            except TypeError:
                return learn()
            known = _known[number] = (ref, _Of(parts))
        here = known[1].by_key
        if key in here:
            here.move_to_end(key)
            return here[key]
    made = learn()
    with _lock:
        here[key] = made
        while len(here) > MOST:
            here.popitem(last=False)
    return made


def _forget(number: int) -> Callable[[Any], None]:
    def forget(gone: Any) -> None:
        # no lock: it may be held by the thread in which the object has died
        if number in _known and _known[number][0] is gone:
            _known.pop(number, None)

    return forget


def _weak(one: object) -> Callable[[], Any]:
    try:
        return weakref.ref(one)
    except TypeError:
        return weakref.ref(type(one))


def _are_one(a: object, b: object) -> bool:
    return a is not None and a is b
