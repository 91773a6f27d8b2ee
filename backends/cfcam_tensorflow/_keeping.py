"""What layers write down on themselves during a run is put back: our tensors must not outlive it.

Some keep what they have seen, to have it drawn. Of a run under JAX that would be a tracer, of no
use to anybody; under PyTorch it would hold on to all that autograd has recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import keras


@dataclass(slots=True)
class _Kept:
    """The attributes of a layer before the first of the runs that go on."""

    attributes: dict[str, Any]
    losses: list[Any]
    """What it had added to the loss; Keras forgets it when a model is called."""
    users: int = 0


_LOCK = Lock()
_KEPT: dict[int, _Kept] = {}


@contextmanager
def keeping(operations: Iterable[Any]) -> Iterator[None]:
    """Put tensors among the attributes of some layers back when the block ends.

    Where several threads are in such blocks, the last that leaves does it.
    """
    operations = {id(one): one for one in operations}
    with _LOCK:
        for key, one in operations.items():
            kept = _KEPT.setdefault(key, _Kept({}, []))
            if not kept.users:
                kept.attributes = dict(vars(one))
                kept.losses = list(kept.attributes.get("_losses", ()))
            kept.users += 1
    try:
        yield
    finally:
        with _LOCK:
            for key, one in operations.items():
                kept = _KEPT[key]
                kept.users -= 1
                if not kept.users:
                    del _KEPT[key]
                    _put_back(one, kept.attributes)
                    if kept.losses:
                        one._losses[:] = kept.losses  # noqa: SLF001 - where Keras has them


def _put_back(operation: Any, before: dict[str, Any]) -> None:
    for name, now in list(vars(operation).items()):
        if now is before.get(name) or not keras.ops.is_tensor(now):
            continue
        if name in before:
            object.__setattr__(operation, name, before[name])
        else:
            object.__delattr__(operation, name)
