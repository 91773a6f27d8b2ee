"""A model as a function of pictures: what measures, and methods that ask the model, put to it.

Below, a picture is an array (C, *size), channels first, of whatever the model is fed: already
preprocessed, one to three spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend
from cfcam_core.capture import FloatArray, number_array, read_only
from cfcam_core.errors import CfcamError, InvalidInputError
from cfcam_core.registry import open_model
from cfcam_core.targets import resolve_targets

BATCH = 32
"""Pictures that go through the model at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures, the model they are for, and what is explained of each."""

    backend: Backend
    arrays: FloatArray
    """(N, C, *size), read-only."""
    scores: FloatArray
    """(N, K): their logits."""
    targets: NDArray[np.intp]
    """(N,): the class of each; -1 where the explained value belongs to no single class."""
    cotangents: FloatArray
    """(N, K): the explained value is ``sum_k cotangents[n, k] * scores[n, k]``."""
    channels_last: bool
    """Whether the model takes (N, *size, C)."""

    @classmethod
    def of(cls, model: Any, inputs: Any, *, target: Any = None) -> Pictures:
        """Read inputs as `cfcam_core.explain` takes them, and run the model on them once.

        Raises
        ------
        InvalidInputError
            There are several inputs, or they have no spatial axis.
        CfcamError
            As for `cfcam_core.explain`.
        """
        backend = open_model(model)
        names = getattr(backend, "input_names", ())
        if isinstance(inputs, list | tuple) and len(names) > 1:
            raise _several(names)
        array = number_array(on_the_host(only_input(inputs)), "inputs")
        scores = backend.scores(inputs)
        if array.ndim > 1 and len(array) != len(scores):  # one sample without the first axis
            array = array[None]
        shape = getattr(backend, "input_shape", None)
        if shape is not None and array.ndim == len(shape) - 1:
            array = array[None]
        if not 3 <= array.ndim <= 5 or len(array) != len(scores):
            raise InvalidInputError(
                f"inputs have shape {array.shape}, and the model sees {len(scores)} samples in "
                "them; wanted pictures or signals, a batch with channels and one to three spatial "
                "axes"
            )
        last = is_channels_last(backend, inputs)
        arrays = np.asarray(np.moveaxis(array, -1, 1) if last else array, np.float32)
        targets, cotangents = resolve_targets(target, scores)
        return cls(backend, read_only(arrays), read_only(scores), targets, cotangents, last)

    def fed(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Return pictures (B, C, *size) as the model takes them: its layout and dtype.

        Whole numbers are rounded to, where the model takes these.
        """
        dtype = np.dtype(getattr(self.backend, "input_dtype", np.float32))
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            pictures = np.clip(np.rint(pictures), limits.min, limits.max)
        array = np.moveaxis(pictures, 1, -1) if self.channels_last else pictures
        return np.ascontiguousarray(array, dtype)

    def ask(self, pictures: NDArray[Any]) -> FloatArray:
        """Return the logits (B, K) of other pictures (B, C, *size), `BATCH` of them at a time."""
        pieces = [
            self.backend.scores(self.fed(pictures[start : start + BATCH]))
            for start in range(0, len(pictures), BATCH)
        ]
        return np.concatenate(pieces)

    def probabilities(self, scores: FloatArray) -> NDArray[np.float64]:
        """Return the probabilities (B, K) that belong to logits (B, K), in float64.

        The sigmoid where the model ends in one or has a single logit, else the softmax. What the
        backend gives as logits may be probabilities already, where it could not or should not look
        through a softmax: no row below 0, each with the sum 1. They stay as they are.
        """
        logits = scores.astype(np.float64)
        if logits.shape[1] == 1 or ends_in_sigmoid(self.backend):
            return np.asarray(np.exp(-np.logaddexp(0, -logits)))
        if self.scores.min() >= 0 and np.allclose(self.scores.sum(axis=1), 1, rtol=0, atol=1e-3):
            return logits
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def classes(self) -> NDArray[np.intp]:
        """Return `targets`, or raise `InvalidInputError` where one of them is no class."""
        if (self.targets < 0).any():
            raise InvalidInputError(
                "the target is a function of several scores; probabilities belong to classes: "
                "pass None, an int, or one int a sample"
            )
        return self.targets


def ends_in_sigmoid(backend: Backend) -> bool:
    """Return whether the logits were found behind a sigmoid, whatever the framework calls it."""
    return any("sigmoid" in name.lower() for name in getattr(backend, "logits_behind", ()))


def is_channels_last(backend: Backend, inputs: Any) -> bool:
    """Return whether a model takes (N, *size, C). Some backends know once the model has run.

    One that has no `input_layout` is asked for the layer ``input``, whose activations are the
    inputs with their channels first.

    Raises
    ------
    InvalidInputError
        The backend tells neither.
    """
    told = getattr(backend, "input_layout", None)
    if told is not None:
        return bool(told == "channels_last")
    came = number_array(on_the_host(only_input(inputs)), "inputs")
    with suppress(CfcamError):
        first = backend.capture(inputs, layer="input").activations
        batch = came[None] if came.ndim == first.ndim - 1 else came
        for last in (False, True):
            turned = np.moveaxis(batch, -1, 1) if last else batch
            if np.array_equal(np.asarray(turned, np.float32), first):
                return last
    raise InvalidInputError(
        f"a {type(backend).__name__} does not say where the inputs have their channels: it needs "
        "the attribute input_layout, channels_first or channels_last"
    )


def only_input(inputs: Any) -> Any:
    """Return the one input in a dict, list or tuple of them; arrays in a list are samples."""
    if isinstance(inputs, Mapping):
        if len(inputs) != 1:
            raise _several(inputs)
        return next(iter(inputs.values()))
    if isinstance(inputs, list | tuple) and inputs and all(hasattr(x, "__array__") for x in inputs):
        return inputs[0] if len(inputs) == 1 else [on_the_host(one) for one in inputs]
    return inputs


def on_the_host(array: Any) -> Any:
    """Return what NumPy can read of an array or tensor of any framework."""
    detach = getattr(array, "detach", None)
    if not callable(detach):
        return array
    tensor = detach().cpu()
    is_short = tensor.is_floating_point() and tensor.element_size() < 4  # such as bfloat16
    return tensor.float() if is_short else tensor


def _several(names: Iterable[Any]) -> InvalidInputError:
    """Return the error for a model of several inputs."""
    named = list(map(str, names))
    return InvalidInputError(
        f"the model gets {len(named)} inputs ({', '.join(named)}); pictures can be changed and "
        "asked about only for models of one input"
    )
