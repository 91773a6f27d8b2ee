"""Logits behind a closing softmax or sigmoid: the last activation of a model, left out of a run.

Nothing is assigned to the user's layer: its call is made on a stand-in that shares its weights and
has no activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_tensorflow._intercepting import attribute_of
from cfcam_tensorflow._observing import Call
from cfcam_tensorflow._seen import MOVING


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-x)))


def _log_softmax(x: NDArray[Any]) -> NDArray[Any]:
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


ACTIVATIONS: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = MappingProxyType(
    {
        "softmax": lambda x: np.exp(_log_softmax(x)),
        "sigmoid": _sigmoid,
        "log_softmax": _log_softmax,
        "log_sigmoid": lambda x: np.log(_sigmoid(x)),
    }
)
"""What is looked through, each as a function of the logits (N, K): a trial run checks it."""

KINDS = frozenset({"Softmax", "Sigmoid", "LogSoftmax", "LogSigmoid"})
"""Layers and operations that are nothing else."""

AGREEMENT = 1e-3
"""Largest difference between an output and the activation of its logits (ours: half precision)."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The layer whose activation ends a model."""

    path: str
    call: int
    """Which of its calls in a run, counted from 0."""


def without_activation(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Do what a layer does, without its activation."""
    if type(operation).__name__ in KINDS | {"Activation"}:
        return args[0] if args else next(iter(kwargs.values()))
    twin = object.__new__(type(operation))
    twin.__dict__.update(vars(operation))
    twin.__dict__["activation"] = keras.activations.linear
    twin.__dict__.pop(attribute_of(operation), None)  # the switch of this run
    return getattr(twin, attribute_of(operation))(*args, **kwargs)


def find_closing(leaf: Any, calls: Sequence[Call]) -> Closing | None:
    """Return the layer that made an output with an activation as the last step, if one did.

    Layers behind it that only move numbers are passed by.
    """
    for one in reversed(calls):
        if type(one.operation).__name__ in MOVING and any(x is leaf for x in one.outputs):
            leaf = next(iter(one.inputs), leaf)
    for one in calls:
        activation = getattr(one.operation, "activation", None)
        named = getattr(activation, "__name__", "") in ACTIVATIONS
        if any(x is leaf for x in one.outputs) and (named or type(one.operation).__name__ in KINDS):
            return Closing(one.path, one.number)
    return None


def kept_logits(leaf: Any) -> Any | None:
    """Return what Keras keeps beside the result of a softmax or sigmoid, where it does."""
    return getattr(leaf, "_keras_logits", None)


def activation_between(logits: NDArray[Any], output: NDArray[Any]) -> str | None:
    """Return which of `ACTIVATIONS` leads from logits (N, K) to an output; None if none does."""
    with np.errstate(over="ignore", divide="ignore"):
        for name, function in ACTIVATIONS.items():
            made = function(logits)
            if np.allclose(made, output, rtol=AGREEMENT, atol=AGREEMENT):
                return name
    return None
