"""What a user feeds a SavedModel: converted and checked, or refused with words that help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError
from cfcam_tensorflow._inputs import Input
from cfcam_tensorflow._inputs import shown as shown_sizes

Feeds = dict[str, NDArray[Any]]

NOISE = {1: (256,), 2: (224, 256), 3: (32, 48, 64)}
"""Sizes of an input of noise where the model leaves them open, by the number of its axes."""


@dataclass(frozen=True, slots=True)
class SavedInput:
    """One input of a model."""

    name: str
    tensor: str
    shape: tuple[int | None, ...] | None
    """Batch first, None where any size is taken; None where not even the axes are known."""
    dtype: np.dtype[Any]
    channels: int

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes of space or time; none where the input is no signal, picture or volume."""
        axes = len(self.shape or ())
        return tuple(a for a in range(1, axes) if a != self.channels) if 3 <= axes <= 5 else ()

    def size(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
        """Return what is fed along the spatial axes."""
        return tuple(feeds[self.name].shape[axis] for axis in self.spatial)

    def read(self, values: Any) -> NDArray[Any]:
        """Return the values as a batch in the model's dtype.

        The batch's own size is not compared: others than the model's are run in pieces.

        Raises
        ------
        InvalidInputError
            Not real and finite numbers, or a shape that the model does not take.
        """
        return Input(self.name, self.shape, self.dtype).read(values)


def read_inputs(inputs: Any, expected: Sequence[SavedInput]) -> Feeds:
    """Return what to feed, by the names of the inputs.

    Raises
    ------
    InvalidInputError
        Names are missing or unknown, an array does not fit, or the numbers of samples differ.
    """
    names = [one.name for one in expected]
    if not isinstance(inputs, Mapping):
        several = isinstance(inputs, list | tuple) and len(expected) > 1
        given = list(inputs) if several else [inputs]
        if len(given) != len(expected):
            raise InvalidInputError(
                f"the model has {len(expected)} inputs, {', '.join(names)}; pass a dict with an "
                "array for each"
            )
        inputs = dict(zip(names, given, strict=True))
    if set(inputs) != set(names):
        raise InvalidInputError(
            f"inputs are named {', '.join(map(str, inputs))}; the model's are {', '.join(names)}"
        )
    feeds = {one.name: one.read(inputs[one.name]) for one in expected}
    counts = sorted({len(array) for array in feeds.values()})
    if len(counts) != 1:
        raise InvalidInputError(f"the inputs hold {counts} samples; wanted as many in each")
    return feeds


def guessed(expected: Sequence[SavedInput]) -> Feeds:
    """Return noise that a model may take: two samples, where it leaves their number open."""
    rng = np.random.default_rng(0)
    feeds = {}
    for one in expected:
        if one.shape is None:
            raise InvalidInputError(
                f"the SavedModel does not say what shape {one.name!r} has; give inputs for a trial "
                "run: open_model(model, example=inputs)"
            )
        shape = [size or 2 for size in one.shape]
        noise = NOISE.get(len(one.spatial), ())
        for axis, size in zip(one.spatial, noise, strict=bool(noise)):
            shape[axis] = one.shape[axis] or size
        values = rng.standard_normal(shape) if one.dtype.kind not in "iub" else np.zeros(shape)
        feeds[one.name] = values.astype(one.dtype)
    return feeds


def shown(shape: tuple[int | None, ...] | None) -> str:
    """Return a shape for people."""
    return "any shape" if shape is None else shown_sizes(shape)
