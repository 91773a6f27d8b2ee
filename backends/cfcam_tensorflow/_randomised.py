"""A copy of a model with its weights in random order."""

from __future__ import annotations

import math
from typing import Any

import keras

from cfcam_core.errors import InvalidInputError
from cfcam_core.shuffling import is_weight, shuffles


def weights_of(model: Any) -> dict[str, Any]:
    """Return the kernels and matrices by path, in the order of the layers."""
    found = getattr(model, "weights", None) or []
    return {
        f"{place} {weight.path}": weight  # two layers may be called the same
        for place, weight in enumerate(found)
        if "float" in str(weight.dtype) and is_weight(weight.shape)
    }


def randomised(model: Any, seed: int, last: int | None) -> Any:
    """Return a copy with the values of its weights in random order; the model is left as it is.

    Raises
    ------
    InvalidInputError
        The model cannot be copied: it is subclassed, or a function; or it has no such weights.
    """
    try:
        copy = keras.models.clone_model(model)
        for own, fresh in zip(model.weights, copy.weights, strict=True):
            fresh.assign(own.value)
    except Exception as error:
        raise InvalidInputError(
            f"a {type(model).__name__} cannot be copied ({type(error).__name__}), only sequential "
            "and functional models can, and it is not changed in place; pass models with other "
            "weights yourself, with randomised="
        ) from error
    weights = weights_of(copy)
    sizes = {name: math.prod(weight.shape) for name, weight in weights.items()}
    for name, order in shuffles(sizes, seed, last):
        values = keras.ops.reshape(weights[name].value, (-1,))
        mixed = keras.ops.take(values, order)
        weights[name].assign(keras.ops.reshape(mixed, weights[name].shape))
    return copy
