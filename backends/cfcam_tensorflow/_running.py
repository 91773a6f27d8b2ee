"""The only place that runs the model: in inference, with nothing changed behind it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import keras
from keras.src.backend import get_keras_mask, set_keras_mask

from cfcam_core.errors import CfcamError, InvalidInputError
from cfcam_tensorflow._engines import Engine, Tap
from cfcam_tensorflow._inputs import Feeds
from cfcam_tensorflow._intercepting import Around, intercepting, is_compiled, plain
from cfcam_tensorflow._keeping import keeping
from cfcam_tensorflow._naming import Names


@dataclass(frozen=True, eq=False)
class Runner:
    """A model that can be run.

    Parameters
    ----------
    model : keras.layers.Layer or callable
        What is called.
    roots : sequence of keras.layers.Layer
        The models within; `model` itself, if it is one.
    names : Names
        Their layers.
    engine : Engine
        The framework's.
    """

    model: Any
    roots: Sequence[Any]
    names: Names
    engine: Engine

    @cached_property
    def _how(self) -> Mapping[str, Any]:
        """What says that it is no training; a function, or a call of the user's, may take nothing.

        Without it Keras does not train either.
        """
        takes = inspect.signature(self.model.__call__).parameters.values()
        named = any(one.name == "training" or one.kind is one.VAR_KEYWORD for one in takes)
        return {"training": False} if named and isinstance(self.model, keras.layers.Layer) else {}

    def run(self, tensors: Sequence[Any], arounds: Mapping[Any, Around]) -> Any:
        """Run the model on positional arguments and return what it returns.

        Calls of the layers in `arounds` go through these functions. Variables, losses and random
        seeds are as before, whatever a layer does to them.

        Raises
        ------
        InvalidInputError
            The model cannot be run on this.
        """
        every = [*self.roots, *self.names.operations.values()]
        compiled: dict[Any, Around] = {one: plain for one in every if is_compiled(one)}
        with keeping(every), intercepting({**compiled, **arounds}), keras.StatelessScope():
            return self._called(tensors)

    def build(self, feeds: Feeds) -> None:
        """Run the model once as it is, if some of its weights are made by its first run.

        Raises
        ------
        InvalidInputError
            As for `run`.
        """
        if any(not one.built for one in self.roots):
            self._called(self._tensors(feeds))

    def can_run(self, feeds: Feeds) -> bool:
        """Return whether the model runs on such inputs."""
        try:
            self.build(feeds)
            self.engine.forward(lambda _: self.run(self._tensors(feeds), {}))
        except InvalidInputError:
            return False
        return True

    def tapping(self, path: str, tap: Tap) -> Around:
        """Return a call that hands a layer's output to `tap` and goes on with what that returns."""
        return self._changing(lambda x: tap(path, x))

    def replacing(self, number: int, change: Callable[[Any], Any]) -> Around:
        """Return a call whose output is changed at the call of this number, counted from 0."""
        return at_call(number, self._changing(change))

    def _tensors(self, feeds: Feeds) -> Any:
        return feeds.hold([self.engine.tensor(one) for one in feeds.arrays])

    def _called(self, tensors: Sequence[Any]) -> Any:
        try:
            return self.model(*tensors, **self._how)
        except CfcamError:
            raise
        except Exception as error:
            shapes = [tuple(getattr(x, "shape", ())) for x in keras.tree.flatten(list(tensors))]
            raise InvalidInputError(
                f"the model cannot be run on inputs of shape {', '.join(map(str, shapes))}: "
                f"{type(error).__name__}: {said(error)}"
            ) from error

    def _changing(self, change: Callable[[Any], Any]) -> Around:
        def changed(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            made = call(*args, **kwargs)
            leaves = keras.tree.flatten(made)
            place = next((i for i, x in enumerate(leaves) if self.engine.is_value(x)), None)
            if place is None:
                return made
            leaves[place] = _noted_like(leaves[place], change(leaves[place]))
            return keras.tree.pack_sequence_as(made, leaves)

        return changed


def both(first: Around, then: Around) -> Around:
    """Return a call that goes through `first`, and what that returns through `then`."""

    def around(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return then(lambda *a, **k: first(call, a, k), args, kwargs)

    return around


def at_call(number: int, around: Around) -> Around:
    """Return a call that goes through `around` only at the call of this number."""
    numbers = count()

    def counted(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (around if next(numbers) == number else plain)(call, args, kwargs)

    return counted


def said(error: Exception) -> str:
    """Return what an error says, without the frame that Keras puts around it."""
    lines = (re.sub(r"\x1b\[\d+m", "", line).strip() for line in str(error).splitlines())
    return next((line for line in lines if line and "xception encountered" not in line), "")


def _noted_like(own: Any, other: Any) -> Any:
    """Return `other` with what Keras has noted on `own`: its mask, the logits it was made of."""
    if other is own:
        return other
    mask, logits = get_keras_mask(own), getattr(own, "_keras_logits", None)
    if mask is not None:
        set_keras_mask(other, mask)
    if logits is not None:
        with suppress(AttributeError):  # JAX: see `KEEPS_NOTES`
            other._keras_logits = logits  # noqa: SLF001 - where Keras keeps them
    return other
