"""From pictures in [0, 1] to what a model takes, and slopes back from there to the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Backend
from cfcam_core.capture import FloatArray, number_array, read_only, real_array
from cfcam_core.errors import InvalidInputError
from cfcam_core.images import LUMINANCE, PREPROCESSINGS, Preprocessing
from cfcam_core.pictures import is_channels_last

Preprocess = str | Preprocessing | Callable[[NDArray[Any]], Any] | None
"""A name in `cfcam_core.images.PREPROCESSINGS`, the numbers themselves, a function from pictures as
they were given to the model's batch, or None: the model takes the pictures as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Feeding:
    """Pictures, and how they become a model's inputs. Made by `feeding`."""

    backend: Backend
    pictures: FloatArray
    """(N, *size, C) in [0, 1], read-only."""
    preprocess: Preprocessing | Callable[[NDArray[Any]], Any] | None
    given_axes: int
    """How many axes the caller's array had."""
    channels: int
    """Channels that the model takes."""
    channels_last: bool
    """Whether the model takes (N, *size, C)."""

    def inputs(self, pictures: NDArray[Any]) -> Any:
        """Return pictures (B, *size, C) as the model takes them."""
        if isinstance(self.preprocess, Preprocessing):
            pixels = 255 * np.asarray(pictures, np.float64)
            if self.channels == 1 and pixels.shape[-1] == 3:
                pixels = (pixels * LUMINANCE).sum(axis=-1, keepdims=True)
            elif self.channels == 3:
                pixels = np.broadcast_to(pixels, (*pixels.shape[:-1], 3))
                if self.preprocess.order == "BGR":
                    pixels = pixels[..., ::-1]
            pictures = (pixels - self.preprocess.mean) / self.preprocess.std
        elif self.preprocess is not None:
            return self.preprocess(pictures if self.given_axes == 4 else pictures[..., 0])
        dtype = np.dtype(getattr(self.backend, "input_dtype", np.float32))
        if dtype.kind in "iu":
            pictures = np.rint(pictures)
        array = pictures if self.channels_last else np.moveaxis(pictures, -1, 1)
        return np.ascontiguousarray(array, dtype)

    def gradient(self, picture: NDArray[Any], target: Any) -> NDArray[np.float64]:
        """Return the slope of what is explained at a picture (*size, C), of the same shape.

        Raises
        ------
        InvalidInputError
            The preprocessing is a function: there is no way back through it.
        """
        if self.preprocess is not None and not isinstance(self.preprocess, Preprocessing):
            raise InvalidInputError(
                "fgsm and pgd need the slope with respect to the picture, and there is none "
                "through a function as preprocess; pass a name "
                f"({', '.join(PREPROCESSINGS)}) or a cfcam_core.images.Preprocessing, or leave "
                "the attacks out"
            )
        capture = self.backend.capture(self.inputs(picture[None]), layer="input", target=target)
        slope: NDArray[np.float64] = np.moveaxis(capture.gradients[0].astype(np.float64), 0, -1)
        if self.preprocess is None:
            return slope
        slope = 255 * slope / self.preprocess.std
        if self.channels == 1 and picture.shape[-1] == 3:
            return np.asarray(slope * LUMINANCE)
        if self.channels == 3 and self.preprocess.order == "BGR":
            slope = slope[..., ::-1]
        if picture.shape[-1] == 1:
            return np.asarray(slope.sum(axis=-1, keepdims=True))
        return slope


def feeding(backend: Backend, images: Any, preprocess: Preprocess = None) -> Feeding:
    """Read a set of pictures.

    Parameters
    ----------
    backend : Backend
    images : array_like
        uint8, or floats in [0, 1]. With `preprocess` pictures at the model's size, (N, H, W, 3) in
        RGB or (N, H, W) in gray. Without, whatever the model takes, in its own layout: signals and
        volumes as well.
    preprocess : str, Preprocessing, callable, or None
        See `Preprocess`.

    Raises
    ------
    InvalidInputError
        Another shape, values outside [0, 1], no picture, an unknown preprocessing, or none for a
        model that takes whole numbers.
    """
    array = _in_unit_range(images)
    if preprocess is None:
        if not 3 <= array.ndim <= 5:
            raise InvalidInputError(
                f"images have shape {array.shape}; without preprocess= they are a batch as the "
                "model takes it, with channels and one to three spatial axes"
            )
        _refuse_whole_numbers(backend)
        first = array[:1]
        backend.scores(first)  # some backends know the layout once the model has run
        last = is_channels_last(backend, first)
        pictures = array if last else np.moveaxis(array, 1, -1)
        return Feeding(backend, read_only(pictures), None, array.ndim, pictures.shape[-1], last)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3)):
        raise InvalidInputError(
            f"images have shape {array.shape}; with preprocess= they are pictures, (N, H, W, 3) or "
            "(N, H, W). To pass what the model itself takes, leave preprocess out"
        )
    last = getattr(backend, "input_layout", "channels_first") == "channels_last"
    pictures = array if array.ndim == 4 else array[..., None]
    recipe = _recipe(preprocess)
    channels = pictures.shape[-1]
    if isinstance(recipe, Preprocessing):
        channels = _channels(backend, recipe, channels, axis=-1 if last else 1)
    return Feeding(backend, read_only(pictures), recipe, array.ndim, channels, last)


def _in_unit_range(images: Any) -> FloatArray:
    """Return images as float32 in [0, 1], or raise `InvalidInputError`."""
    array = number_array(images, "images")
    if array.dtype == np.uint8:
        array = array / np.float32(255)
    if array.dtype.kind != "f" or array.size == 0:
        raise InvalidInputError(
            f"images are {array.dtype} of shape {array.shape}; wanted uint8, or floats in [0, 1]"
        )
    array = real_array(array, "images")
    if array.min() < 0 or array.max() > 1:
        raise InvalidInputError(
            f"images have values from {array.min():.4g} to {array.max():.4g}; wanted 0 to 1, or "
            "uint8: noise is measured in shares of that range. Pass the pictures before their "
            "preprocessing and name that: preprocess='imagenet'"
        )
    return array


def _refuse_whole_numbers(backend: Backend) -> None:
    """Refuse a model for which shares of 1 would all become 0 or 1."""
    dtype = np.dtype(getattr(backend, "input_dtype", np.float32))
    if dtype.kind in "iu":
        raise InvalidInputError(
            f"the model takes whole numbers ({dtype}), and noise is added to pictures in [0, 1]; "
            "say how these become inputs: preprocess='raw' for pixels from 0 to 255, or a function"
        )


def _recipe(preprocess: Preprocess) -> Preprocessing | Callable[[NDArray[Any]], Any]:
    """Return the preprocessing of that name, or the given one."""
    if isinstance(preprocess, str) and preprocess in PREPROCESSINGS:
        return PREPROCESSINGS[preprocess]
    if isinstance(preprocess, Preprocessing) or callable(preprocess):
        return preprocess
    raise InvalidInputError(
        f"there is no preprocessing {preprocess!r}; allowed are {', '.join(PREPROCESSINGS)}, a "
        "cfcam_core.images.Preprocessing, a function, or None"
    )


def _channels(backend: Backend, recipe: Preprocessing, given: int, *, axis: int) -> int:
    """Return how many channels the model takes: what it says itself, else what pictures have."""
    shape = getattr(backend, "input_shape", None)
    fixed = shape[axis] if shape is not None and len(shape) == 4 else None
    needed = max(len(recipe.mean), len(recipe.std))
    channels: int = fixed or max(given, needed)
    if channels not in (1, 3) or needed > channels:
        raise InvalidInputError(
            f"the model takes {channels} channels, and the preprocessing is for {needed}; for one "
            "channel there are unit, tf and raw, for others pass a function"
        )
    return channels
