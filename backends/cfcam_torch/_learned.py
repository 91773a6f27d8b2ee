"""What was learned of a model is kept as long as the model lives and is built as it was.

So `explain` on a model that is not opened pays for its trial run once.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any

from torch import nn

from cfcam_torch._running import modules_of

MOST = 8
"""Kinds of inputs and options that are remembered of one model."""


class Structure:
    """Of which modules a model is built, without keeping them alive."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in modules_of(model)]
        self._names = _names(model)

    def fits(self, model: nn.Module) -> bool:
        """Return whether the model is still built of the same modules under the same names."""
        modules = modules_of(model)
        return (
            len(modules) == len(self._modules)
            and all(ref() is one for ref, one in zip(self._modules, modules, strict=True))
            and _names(model) == self._names
        )


def _names(model: nn.Module) -> list[list[str]]:
    return [list(module._modules.keys()) for module in modules_of(model)]  # noqa: SLF001


class _Of:
    """What is known of one model."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.by_key: OrderedDict[Hashable, Any] = OrderedDict()


_lock = Lock()
_known: dict[int, tuple[weakref.ref[nn.Module], _Of]] = {}


def learned(model: nn.Module, key: Hashable, learn: Callable[[], Any]) -> Any:
    """Return what `learn` returns, called only if that is not known yet.

    Parameters
    ----------
    model : nn.Module
    key : hashable
        What else it depends on.
    learn : callable
    """
    with _lock:
        found = _known.get(id(model))
        if found is None or found[0]() is not model or not found[1].structure.fits(model):
            here = _Of(Structure(model))
            _known[id(model)] = (weakref.ref(model, _forget(id(model))), here)
        else:
            here = found[1]
        if key in here.by_key:
            here.by_key.move_to_end(key)
            return here.by_key[key]
    made = learn()
    with _lock:
        here.by_key[key] = made
        while len(here.by_key) > MOST:
            here.by_key.popitem(last=False)
    return made


def _forget(number: int) -> Callable[[Any], None]:
    def forget(gone: Any) -> None:
        # no lock: it may be held by the thread in which the model has died
        if number in _known and _known[number][0] is gone:
            _known.pop(number, None)

    return forget
