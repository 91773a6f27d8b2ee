"""What happens at the call of a layer, for one run, in one thread; afterwards nothing has happened.

Keras runs a layer, and an operation of a functional model, by its attribute ``call``. While a run
needs it, that attribute of the object itself is a switch: in the thread of the run it goes to what
the run wants, in all others straight on to what was there. The class, Keras' own book-keeping of
attributes and functions compiled from the model are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from threading import Lock, local
from typing import Any

Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Takes what a layer would have called and with what; returns the layer's output."""


@dataclass(slots=True)
class _Switch:
    """An attribute that was replaced, and by how many runs it is needed."""

    operation: Any
    attribute: str
    before: Any
    """What stood in the object's own dictionary; the switch's class if nothing did."""
    users: int = 0


_LOCK = Lock()
_SWITCHES: dict[int, _Switch] = {}
_HERE = local()


@contextmanager
def intercepting(arounds: Mapping[Any, Around]) -> Iterator[None]:
    """Let calls of some layers in this thread go through functions of ours, until the block ends.

    Parameters
    ----------
    arounds : mapping of layer or operation to callable
        What a layer calls is passed to it uncompiled, where it was a ``tf.function``: in a compiled
        function the calls of inner layers are not seen.
    """
    outer = getattr(_HERE, "arounds", {})
    _switch_on(arounds)
    _HERE.arounds = {id(one): around for one, around in arounds.items()}
    try:
        yield
    finally:
        _HERE.arounds = outer
        _switch_off(arounds)


def is_compiled(operation: Any) -> bool:
    """Return whether a layer's call is a ``tf.function``."""
    return hasattr(getattr(operation, attribute_of(operation), None), "python_function")


def plain(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Go on as if nothing were between; of a compiled call this makes an uncompiled one."""
    return call(*args, **kwargs)


def attribute_of(operation: Any) -> str:
    return "call" if getattr(operation, "quantization_mode", None) is None else "quantized_call"


def _switch_on(operations: Mapping[Any, Around]) -> None:
    with _LOCK:
        for operation in operations:
            switch = _SWITCHES.get(id(operation))
            if switch is None:
                attribute = attribute_of(operation)
                switch = _Switch(operation, attribute, vars(operation).get(attribute, _Switch))
                replacement = _switched(id(operation), getattr(operation, attribute))
                object.__setattr__(operation, attribute, replacement)
                _SWITCHES[id(operation)] = switch
            switch.users += 1


def _switch_off(operations: Mapping[Any, Around]) -> None:
    with _LOCK:
        for operation in operations:
            switch = _SWITCHES[id(operation)]
            switch.users -= 1
            if switch.users:
                continue
            del _SWITCHES[id(operation)]
            if switch.before is _Switch:
                object.__delattr__(operation, switch.attribute)
            else:
                object.__setattr__(operation, switch.attribute, switch.before)


def _switched(key: int, original: Any) -> Callable[..., Any]:
    uncompiled = getattr(original, "python_function", original)

    @wraps(uncompiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        around = getattr(_HERE, "arounds", {}).get(key)
        if around is None:
            return original(*args, **kwargs)
        return around(uncompiled, args, kwargs)

    return call
