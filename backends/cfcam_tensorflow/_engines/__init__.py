"""What differs between the frameworks that Keras runs on: a module for each, chosen by Keras.

An engine is a module with what stands below; all else in this package is free of frameworks.
``run(tap)`` runs the model in this thread and returns the tensor to be explained: the logits
(N, K), or what a callable target made, of shape () or (N,). On its way it calls ``tap(place, x)``,
and goes on with what that returns: a tensor of the same value, shape and dtype. Of a place that is
tapped several times the last time counts. Each `record` calls `run` as often as the engine needs
(JAX: once for the shapes), always with the same inputs; Keras never trains in it.

``tensor(array)``      a NumPy array in the dtype it has, on the device that Keras computes on
``array(x)``           a tensor as NumPy: float32 from any float, other dtypes as they are
``is_value(x)``        whether `x` is a tensor that the engine can tap: floating, and not symbolic
``forward(run)``       ``(explained, {place: x})``, with nothing recorded for gradients
``record(run)``        a `Recording`: the same, and a way back
``KEEPS_NOTES``        whether what Keras notes on a tensor is still there while a run is recorded

A tensor at a place may be half-precision: it is differentiated as it is, `array` makes it float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import BackendNotFoundError

Tap = Callable[[str, Any], Any]
Run = Callable[[Tap], Any]

ENGINES = ("tensorflow", "torch", "jax")
"""Keras backends that have an engine."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One run of a model, and the way back from what it is explained by to the places."""

    explained: Any
    """What `run` returned."""
    taken: Mapping[str, Any]
    """The tensor at each place that was tapped."""
    pull: Callable[[NDArray[Any]], Mapping[str, NDArray[np.float32] | None]]
    """Takes cotangents of the shape of `explained`; returns the gradient at each place, None where
    `explained` does not depend on it. To be called once."""


class Engine(Protocol):
    """What the module of an engine has."""

    KEEPS_NOTES: bool

    def tensor(self, array: NDArray[Any]) -> Any:
        """Return an array as a tensor of its dtype."""

    def array(self, x: Any) -> NDArray[Any]:
        """Return a tensor as an array, float32 from any float."""

    def is_value(self, x: Any) -> bool:
        """Return whether `x` is a tensor that can be tapped."""

    def forward(self, run: Run) -> tuple[Any, Mapping[str, Any]]:
        """Run without recording."""

    def record(self, run: Run) -> Recording:
        """Run so that gradients can be had."""


def find_engine() -> Engine:
    """Return the engine of the framework that Keras runs on in this process.

    Raises
    ------
    BackendNotFoundError
        There is none for it.
    """
    import keras

    name = keras.config.backend()
    if name not in ENGINES:
        raise BackendNotFoundError(
            f"Keras runs on {name!r} here; cfcam knows {', '.join(ENGINES)}. Set the environment "
            "variable KERAS_BACKEND to one of them, or export the model to ONNX"
        )
    engine: Any = import_module(f"{__name__}.{name}")
    return engine  # type: ignore[no-any-return]
