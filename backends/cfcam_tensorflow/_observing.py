"""One run of a model, as its layers' calls: who ran when, on which tensors, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import keras

from cfcam_tensorflow._intercepting import Around


@dataclass(eq=False, slots=True)
class Call:
    """One call of a layer or operation; the tensors are kept alive, so that they stay distinct."""

    path: str
    operation: Any
    number: int
    """Which of its calls in the run, counted from 0."""
    started: int
    inputs: list[Any]
    """All tensors among its arguments."""
    outputs: list[Any] = field(default_factory=list)
    """All tensors that it returned."""
    main: Any = None
    """The tensor that stands for the layer: the first of floats that it returned, if any."""
    ended: int = 0
    inner: list[Call] = field(default_factory=list)
    """Calls within."""


class Observer:
    """Writes down the calls of a run, in the order in which they end.

    Parameters
    ----------
    is_value : callable
        Which tensors can stand for a layer.
    """

    def __init__(self, is_value: Callable[[Any], bool]) -> None:
        self.calls: list[Call] = []
        self._is_value = is_value
        self._ticks = count()
        self._open: list[Call] = []

    def arounds(self, operations: Mapping[str, Any]) -> dict[Any, Around]:
        """Return what the calls of layers, by path, go through.

        They are not kept here: the tensors of a run would then stay until a cycle is found.
        """
        return {operation: self._around(path, operation) for path, operation in operations.items()}

    def _around(self, path: str, operation: Any) -> Around:
        numbers = count()

        def observed(
            call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            inputs = tensors((args, kwargs))
            one = Call(path, operation, next(numbers), next(self._ticks), inputs)
            if self._open:
                self._open[-1].inner.append(one)
            self._open.append(one)
            try:
                made = call(*args, **kwargs)
            finally:
                self._open.pop()
            one.outputs = tensors(made)
            one.main = next((x for x in one.outputs if self._is_value(x)), None)
            one.ended = next(self._ticks)
            self.calls.append(one)
            return made

        return observed


def tensors(structure: Any) -> list[Any]:
    """Return all tensors in what a layer takes or returns."""
    return [x for x in keras.tree.flatten(structure) if keras.ops.is_tensor(x)]
