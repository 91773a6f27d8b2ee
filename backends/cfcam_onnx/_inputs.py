"""What a user feeds a model: converted and checked, or refused with words that help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import number_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import Sizes, as_batch, as_dtype


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model."""

    name: str
    shape: Sizes
    """Batch first; None where any size is taken."""
    dtype: np.dtype[Any]
    channels: int | None
    """Axis of the channels; None if the input is not an image or a signal."""

    @property
    def layout(self) -> str:
        """``channels_first`` or ``channels_last``: where the channels are."""
        return "channels_first" if self.channels in {None, 1} else "channels_last"

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes of space or time."""
        if self.channels is None:
            return ()
        return tuple(a for a in range(1, len(self.shape)) if a != self.channels)

    def size(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[int, ...]:
        """Return what is fed along the spatial axes."""
        return tuple(feeds[self.name].shape[axis] for axis in self.spatial)

    def read(self, values: Any) -> NDArray[Any]:
        """Return the values as a batch in the model's dtype.

        Raises
        ------
        InvalidInputError
            Not real and finite numbers, or a shape that the model does not take.
        """
        called = f"the array for {self.name!r}"
        array = as_batch(number_array(values, called), self.shape, called, channels=self.channels)
        return as_dtype(array, self.dtype, called)


def read_inputs(inputs: Any, expected: list[Input]) -> tuple[dict[str, NDArray[Any]], int]:
    """Return what to feed, and the number of samples.

    Parameters
    ----------
    inputs : array_like, or mapping of str to array_like
        A mapping where the model has several inputs.
    expected : list of Input

    Raises
    ------
    InvalidInputError
        Names are missing or unknown, an array does not fit, or the numbers of samples differ.
    """
    names = [one.name for one in expected]
    if not isinstance(inputs, Mapping):
        if len(expected) > 1:
            raise InvalidInputError(
                f"the model has inputs {', '.join(names)}; pass a dict with an array for each"
            )
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise InvalidInputError(
            f"inputs are named {', '.join(map(str, inputs))}; the model's are {', '.join(names)}"
        )
    feeds = {one.name: one.read(inputs[one.name]) for one in expected}
    counts = {len(array) for array in feeds.values() if array.ndim}
    if len(counts) != 1:
        raise InvalidInputError(f"the inputs hold {sorted(counts)} samples; wanted as many in each")
    return feeds, counts.pop()
