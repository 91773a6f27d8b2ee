"""What has been made before, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """The last used values of a function, made once each, by one thread while others wait.

    Whoever wants another key does not wait. What fails to be made is tried again by the next.
    """

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make, self._most = make, most
        self._slots: OrderedDict[K, _Slot] = OrderedDict()
        self._lock = Lock()

    def __call__(self, key: K) -> V:
        """Return the value for a key."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._most:
                self._slots.popitem(last=False)
        with slot.lock:
            if not slot.value:
                slot.value.append(self._make(key))
            value: V = slot.value[0]
            return value


@dataclass(slots=True, eq=False)
class _Slot:
    lock: Lock = field(default_factory=Lock)
    value: list[Any] = field(default_factory=list)
    """The value, once it is made."""
