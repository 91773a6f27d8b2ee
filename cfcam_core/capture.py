"""The waist: what a backend hands to the mathematics, checked once, here.

Below this line everything is NumPy float32, batch first, channels next, then one, two or three
spatial axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.errors import InvalidInputError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """Activations of one layer and the gradients of the explained scores with respect to them.

    Arrays are converted to float32, checked, and kept as read-only views.

    Parameters
    ----------
    activations : array_like of shape (N, C, *s)
        Output of the layer, channels first; `s` has one, two or three axes.
    gradients : array_like of shape (N, C, *s)
        Gradient of the target's logit with respect to `activations`.
    scores : array_like of shape (N, K), optional
        Logits of all classes, where the model gives them.
    targets : array_like of int, shape (N,), optional
        Class that `gradients` belong to; -1 where they belong to no single class. Default: all -1.
    layer : str
        Name of the layer, for people.
    input_size : tuple of int, optional
        Spatial size of the model's input, as many axes as `s`: the size heatmaps get by default.

    Raises
    ------
    InvalidInputError
        Shapes differ, an axis is empty, a value is NaN or infinite (also after the conversion to
        float32), or `scores`, `targets` and `input_size` do not fit.
    """

    activations: FloatArray
    gradients: FloatArray
    scores: FloatArray | None = None
    targets: NDArray[np.intp] | None = None
    layer: str = ""
    input_size: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        activations = real_array(self.activations, "activations")
        gradients = real_array(self.gradients, "gradients")
        if activations.shape != gradients.shape:
            raise InvalidInputError(
                f"activations have shape {activations.shape} and gradients {gradients.shape}; "
                "both must have the same shape (N, C, *spatial)"
            )
        if not 3 <= activations.ndim <= 5 or 0 in activations.shape:
            raise InvalidInputError(
                f"activations have shape {activations.shape}; wanted (N, C, *spatial) with one to "
                "three spatial axes and no empty axis"
            )
        samples = len(activations)
        put(self, "activations", activations)
        put(self, "gradients", gradients)
        if self.scores is not None:
            scores = real_array(self.scores, "scores")
            if scores.ndim != 2 or len(scores) != samples:
                raise InvalidInputError(f"scores have shape {scores.shape}; wanted ({samples}, K)")
            put(self, "scores", scores)
        targets = np.full(samples, -1)
        if self.targets is not None:
            targets = number_array(self.targets, "targets")
        if targets.shape != (samples,) or targets.dtype.kind not in "iu":
            raise InvalidInputError(
                f"targets are {targets.dtype} of shape {targets.shape}; "
                f"wanted integers of shape ({samples},)"
            )
        put(self, "targets", read_only(targets.astype(np.intp)))
        if self.input_size is not None:
            put(self, "input_size", spatial_size(self.input_size, activations.shape[2:]))


def real_array(values: Any, name: str) -> FloatArray:
    """Return `values` as a read-only float32 array; refuse anything that is not finite and real.

    Raises
    ------
    InvalidInputError
        Not numbers, complex, NaN or infinite; the message gives the first offending index.
    """
    array = number_array(values, name)
    with np.errstate(over="ignore", under="ignore"):
        single = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    finite = np.isfinite(single)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InvalidInputError(
            f"{name} contain {int((~finite).sum())} values that are not finite in float32, the "
            f"first at index {where}: {array[where]}; check the model's output or clean the array"
        )
    if array.dtype == np.float64 and array.any() and not single.any():
        raise InvalidInputError(
            f"{name} reach {np.abs(array).max():.3g}, which is zero in float32; scale them up"
        )
    return read_only(single)


def number_array(values: Any, name: str) -> NDArray[Any]:
    """Return `values` as an array of real numbers, or raise `InvalidInputError`."""
    if isinstance(values, np.ma.MaskedArray):
        raise InvalidInputError(f"{name}: a masked array; fill in what is masked")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "fiub":
        kind = "" if isinstance(values, np.ndarray) else f" in a {type(values).__name__}"
        raise InvalidInputError(f"{name}: dtype {array.dtype}{kind}; wanted real numbers")
    return array


def spatial_size(size: Any, spatial: tuple[int, ...]) -> tuple[int, ...]:
    """Return a size with as many positive integers as there are spatial axes.

    Raises
    ------
    InvalidInputError
        It is anything else.
    """
    try:
        wanted = tuple(index(n) for n in size)
    except TypeError:
        wanted = ()
    if len(wanted) != len(spatial) or min(wanted) < 1:
        raise InvalidInputError(
            f"size {size!r} does not fit maps of shape {spatial}; "
            f"wanted {len(spatial)} positive integers"
        )
    return wanted


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view; the caller's own array keeps its flags."""
    view = array.view()
    view.flags.writeable = False
    return view
