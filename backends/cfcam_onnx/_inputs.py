"""What a user feeds a model: converted and checked, or refused with words that help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError

Sizes = tuple[int | None, ...]


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
        try:
            array = np.asarray(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidInputError(
                f"{self._called} cannot be read as an array: {error}"
            ) from error
        if array.dtype.kind not in "fiub":
            raise InvalidInputError(
                f"{self._called} has dtype {array.dtype}; wanted numbers for {self.dtype}"
            )
        if array.ndim == len(self.shape) - 1:
            array = array[None]
        self._check_shape(array)
        with np.errstate(over="ignore", invalid="ignore"):
            converted = np.asarray(array, self.dtype, order="C")
        if self.dtype.kind == "f" and not np.isfinite(converted).all():
            bad = int((~np.isfinite(converted)).sum())
            raise InvalidInputError(
                f"{self._called} holds {bad} values that are NaN or infinite in {self.dtype}; "
                "clean the array"
            )
        if self.dtype.kind in "iu" and not np.array_equal(converted, array):
            raise InvalidInputError(
                f"{self._called} has values that {self.dtype} cannot hold; the model takes them "
                "unscaled"
            )
        return converted

    @property
    def _called(self) -> str:
        return f"the array for {self.name!r}"

    def _check_shape(self, array: NDArray[Any]) -> None:
        # the batch is not compared: other sizes than the model's own are run in pieces
        fits = array.ndim == len(self.shape) and all(
            wanted in (None, size)
            for wanted, size in zip(self.shape[1:], array.shape[1:], strict=True)
        )
        if fits and array.size:
            return
        advice = "resize or reshape it"
        if array.ndim == len(self.shape) == 4 and self.channels is not None:
            moved = np.moveaxis(array, *((3, 1) if self.channels == 1 else (1, 3)))
            if all(w in (None, s) for w, s in zip(self.shape[1:], moved.shape[1:], strict=True)):
                advice = (
                    f"transpose it with axes {(0, 3, 1, 2) if self.channels == 1 else (0, 2, 3, 1)}"
                )
            elif self.shape[self.channels] not in (None, array.shape[self.channels]):
                advice = (
                    f"give it {self.shape[self.channels]} channels on axis {self.channels}, not "
                    f"{array.shape[self.channels]}"
                )
        raise InvalidInputError(
            f"{self._called} has shape {array.shape}; the model takes {shown(self.shape)}, or "
            "one sample without the "
            f"first axis; {advice}"
        )


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


def shown(shape: Sizes) -> str:
    """Return a shape for people: N for an open batch, ? for another open size."""
    sizes = [str(s) if s is not None else "?" for s in shape]
    if shape and shape[0] is None:
        sizes[0] = "N"
    return f"({', '.join(sizes)})"
