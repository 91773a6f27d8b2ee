"""What a user feeds a model: converted and checked, or refused with words that help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import Sizes, as_batch, as_dtype

GUESSED = {3: (128,), 4: (224, 224), 5: (32, 32, 32)}
"""Spatial sizes of a trial where the model leaves them open, by number of axes (ours)."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model, as far as the model says."""

    name: str
    shape: Sizes | None = None
    """Batch first, None where any size is taken; None if nothing is known."""
    dtype: np.dtype[Any] | None = None
    """None: floats become the model's, whole numbers stay."""
    is_strict: bool = True
    """Whether it takes no other sizes; else only the number of axes counts."""

    def read(self, values: Any) -> NDArray[Any]:
        """Return the values as a batch.

        Raises
        ------
        InvalidInputError
            Not real and finite numbers, or a shape that the model does not take.
        """
        called = f"the array for {self.name!r}"
        array = as_array(values, called)
        if self.shape is not None:
            first = keras.config.image_data_format() == "channels_first"
            open_shape = (None,) * len(self.shape)
            shape = self.shape if self.is_strict else open_shape
            array = as_batch(array, shape, called, channels=1 if first else len(shape) - 1)
        elif not array.size or not array.ndim:
            raise InvalidInputError(
                f"{called} has shape {array.shape}; wanted a batch of at least one sample"
            )
        floats = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype
        return as_dtype(array, self.dtype or floats, called)


@dataclass(frozen=True, slots=True)
class Feeds:
    """Arrays on their way into a model: a flat list, and how the model wants them held together."""

    arrays: list[NDArray[Any]]
    hold: Callable[[list[Any]], Any] = field(repr=False)
    """Takes as many tensors and returns what the model is called with: positional arguments."""

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return len(self.arrays[0])

    def first(self, count: int = 1) -> Feeds:
        """Return copies of the first samples, which do not keep the others."""
        return Feeds([one[:count].copy() for one in self.arrays], self.hold)

    def floats(self) -> Feeds:
        """Return the same with floats in place of whole numbers."""
        return Feeds([one.astype(np.float32) for one in self.arrays], self.hold)

    @property
    def kinds(self) -> tuple[tuple[Any, ...], ...]:
        """Sizes of a sample and dtype of each array."""
        return tuple((one.shape[1:], one.dtype) for one in self.arrays)

    @property
    def picture(self) -> int | None:
        """Number of the first array with a channel axis and spatial axes; None without one."""
        fits = (i for i, one in enumerate(self.arrays) if 3 <= one.ndim <= 5)
        return next(fits, None)


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of a model.

    Parameters
    ----------
    inputs : sequence of Input
        Empty where the model says nothing of them.
    structure : object
        How the model holds its inputs together; None if `inputs` is empty.
    call : callable
        The model's own ``call``: whether it takes several arguments.
    """

    inputs: Sequence[Input]
    structure: Any
    call: Callable[..., Any]

    @classmethod
    def of(cls, model: Any) -> Inputs:
        """Return what a model says of its inputs; a subclassed one at most the shape."""
        call = model.call if isinstance(model, keras.layers.Layer) else model
        call = getattr(call, "python_function", call)
        if isinstance(model, keras.Model) and getattr(model, "inputs", None):
            alone = isinstance(model, keras.Sequential)
            structure = model.inputs[0] if alone else model.input
            tensors = keras.tree.flatten(structure)
            return cls([_declared(one) for one in tensors], structure, call)
        config = model.get_build_config() if isinstance(model, keras.layers.Layer) else None
        shape = (config or {}).get("input_shape")
        if isinstance(shape, tuple | list) and shape and all(_is_size(one) for one in shape):
            known = Input("input", (None, *shape[1:]), None, is_strict=False)
            return cls([known], None, call)
        return cls([], None, call)

    @property
    def is_size_free(self) -> bool:
        """Whether an input leaves sizes open, or says nothing that binds."""
        return not self.inputs or any(
            not one.is_strict or one.shape is None or None in one.shape[1:] for one in self.inputs
        )

    def are_open(self, feeds: Feeds) -> bool:
        """Return whether whole numbers have come, and the model does not say if it takes such."""
        open_dtypes = [one.dtype is None for one in self.inputs] or [True]
        return any(open_dtypes) and any(one.dtype.kind != "f" for one in feeds.arrays)

    def read(self, inputs: Any) -> Feeds:
        """Return checked arrays.

        Raises
        ------
        InvalidInputError
            Names are missing or unknown, an array does not fit, or the numbers of samples differ.
        """
        if not self.inputs or (self.structure is None and not _is_array(inputs)):
            arrays, hold = self._unknown(inputs)
        else:
            arrays, hold = self._known(inputs), self._hold
        counts = {len(one) for one in arrays}
        if len(counts) != 1:
            raise InvalidInputError(
                f"the inputs hold {sorted(counts)} samples; wanted as many in each"
            )
        return Feeds(arrays, hold)

    def as_seen(self, feeds: Feeds) -> Inputs:
        """Return the same with what one array that came tells: how many axes the model takes."""
        if len(feeds.arrays) != 1 or len(feeds.hold([None])) != 1 or feeds.hold([None]) != (None,):
            return self
        shape = (None,) * feeds.arrays[0].ndim
        return replace(self, inputs=[Input("input", shape, None)])

    def guess(self) -> Feeds | None:
        """Return one sample of noise that the model should take; None if nothing is known of it."""
        if not self.inputs or any(one.shape is None for one in self.inputs):
            return None
        rng = np.random.default_rng(0)
        arrays = []
        for one in self.inputs:
            sizes: list[Any] = list((one.shape or ())[1:])
            open_sizes = iter(GUESSED.get(len(sizes) + 1, ()))
            first = len(sizes) > 1 and keras.config.image_data_format() == "channels_first"
            known = [axis for axis, size in enumerate(sizes) if size is not None]
            channels = known[0] if len(known) == 1 else 0 if first else len(sizes) - 1
            for axis, size in enumerate(sizes):
                if size is None:
                    sizes[axis] = 3 if axis == channels else next(open_sizes, 8)
            whole = one.dtype is not None and one.dtype.kind in "iub"
            made = rng.integers(0, 2, (1, *sizes)) if whole else rng.random((1, *sizes))
            arrays.append(made.astype(one.dtype or np.float32))
        return Feeds(arrays, self._hold)

    # ------------------------------------------------------------------------------- within

    def _known(self, inputs: Any) -> list[NDArray[Any]]:
        names = [one.name for one in self.inputs]
        if isinstance(inputs, Mapping):
            wanted = list(self.structure) if isinstance(self.structure, Mapping) else names
            if set(inputs) != set(wanted):
                raise InvalidInputError(
                    f"inputs are named {', '.join(map(str, inputs))}; the model's are "
                    f"{', '.join(map(str, wanted))}"
                )
            if isinstance(self.structure, Mapping):
                inputs = keras.tree.flatten({name: inputs[name] for name in self.structure})
            else:
                inputs = [inputs[name] for name in names]
        elif len(names) == 1 and (_is_array(inputs) or len(inputs) != 1):
            inputs = [inputs]
        elif _is_array(inputs) or len(inputs) != len(names):
            raise InvalidInputError(
                f"the model has inputs {', '.join(names)}; pass a dict with an array for each, or "
                f"a list of {len(names)} arrays"
            )
        return [one.read(values) for one, values in zip(self.inputs, inputs, strict=True)]

    def _hold(self, tensors: list[Any]) -> tuple[Any, ...]:
        if self.structure is None:
            return (tensors[0],)
        return (keras.tree.pack_sequence_as(self.structure, tensors),)

    def _unknown(self, inputs: Any) -> tuple[list[NDArray[Any]], Callable[[list[Any]], Any]]:
        """Read what comes as it comes: a model of the user's own class takes what it takes."""
        if isinstance(inputs, Mapping):
            names: list[Any] = list(self._arguments())
            if len(names) < 2 or set(inputs) != set(names):
                names = list(inputs)
            arrays = [Input(str(name)).read(inputs[name]) for name in names]
            if names == self._arguments():
                return arrays, tuple
            return arrays, lambda tensors: (dict(zip(names, tensors, strict=True)),)
        if _is_array(inputs):
            return [Input("input").read(inputs)], tuple
        arrays = [Input(f"input {place}").read(one) for place, one in enumerate(inputs)]
        several = len(arrays) > 1 or isinstance(inputs, tuple)
        if several and len(self._arguments()) == len(arrays):
            return arrays, tuple
        return arrays, lambda tensors: (list(tensors),)

    def _arguments(self) -> list[str]:
        """Return the arguments without a default that the model's call has."""
        kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        parameters = inspect.signature(self.call).parameters.values()
        return [one.name for one in parameters if one.default is one.empty and one.kind in kinds]


def as_array(values: Any, called: str) -> NDArray[Any]:
    """Return an array or a framework's tensor as an array of real numbers.

    Raises
    ------
    InvalidInputError
        It is nothing of the kind.
    """
    values = values.detach() if hasattr(values, "detach") else values
    values = values.cpu() if hasattr(values, "is_cuda") else values
    if "bfloat16" in str(getattr(values, "dtype", "")):  # which NumPy does not have
        values = values.float() if hasattr(values, "is_cuda") else np.asarray(values, np.float32)
    return number_array(values, called)


def _declared(tensor: Any) -> Input:
    name = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    try:
        dtype = np.dtype(name)
    except TypeError:  # bfloat16: Keras converts
        dtype = np.dtype(np.float32)
    return Input(tensor.name, tuple(tensor.shape), dtype)


def _is_array(values: Any) -> bool:
    """Whether it is one array, and not several: numbers in lists are one."""
    if isinstance(values, Mapping):
        return False
    if not isinstance(values, list | tuple):
        return True
    return not any(hasattr(one, "shape") and len(one.shape) for one in values)


def _is_size(value: Any) -> bool:
    return value is None or isinstance(value, int)
