"""What a user feeds a model: copied to its device and dtype and checked, or refused with words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cfcam_core.errors import InvalidInputError

Sizes = tuple[int | None, ...]
Feeds = dict[str, Any]

GUESSED = {1: (256, 1024, 64), 2: (224, 32, 28, 64, 96, 128, 256, 299, 384), 3: (32, 64, 16)}
"""Sides that are tried where a model must run on a guess: by the number of spatial axes."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model takes, as far as it can be told without running it."""

    names: tuple[str, ...]
    """Parameters of ``forward`` that have no default; ``("0",)`` where they have no name."""
    known: frozenset[str] | None
    """All parameters; None where any name is taken."""
    places: tuple[str, ...]
    """Parameters that may be given by position, in order."""
    shape: Sizes | None
    """Of the first input, batch first; None where nothing is known of it."""
    has_indices: bool
    """Whether the model looks up embeddings, so that integers stay integers."""
    example: tuple[Any, ...] = ()
    """Inputs that the model was exported with."""

    def read(self, inputs: Any, model: nn.Module) -> Feeds:
        """Return copies of the inputs by name, on the model's device and in its dtype.

        Parameters
        ----------
        inputs : array_like, mapping of str to array_like, or sequence of arrays
        model : nn.Module

        Raises
        ------
        InvalidInputError
            Names are missing or unknown, values are no finite real numbers, or there is nothing
            in them.
        """
        weight = weight_of(model)
        device = weight.device if weight is not None else _device(model)
        dtype = weight.dtype if weight is not None else None
        given = self._by_name(inputs)
        feeds = {}
        for name, values in given.items():
            if name not in self.names and not _is_array(values):
                feeds[name] = values
                continue
            with torch.inference_mode(False):
                tensor = _tensor(values, name)
            if tensor.is_floating_point() and dtype is not None:
                tensor = tensor.to(dtype)
            feeds[name] = tensor.to(device)
            _check(feeds[name], name)
        if not any(isinstance(value, Tensor) for value in feeds.values()):
            raise InvalidInputError(f"no array came; the model takes {', '.join(self.names)}")
        first = next(name for name, value in feeds.items() if isinstance(value, Tensor))
        if not feeds[first].ndim or not len(feeds[first]):
            raise InvalidInputError(
                f"{_called(first)} has shape {tuple(feeds[first].shape)}; wanted a batch"
            )
        return feeds

    def guesses(self) -> list[Any]:
        """Return inputs to try a model on, the likeliest first."""
        if self.example:
            return [self.example if len(self.example) > 1 else self.example[0]]
        if self.shape is None or len(self.names) > 1:
            return []
        generator = torch.Generator("cpu").manual_seed(0)
        open_axes = sum(size is None for size in self.shape[1:])
        sides: Sequence[int] = GUESSED.get(len(self.shape) - 2, (64,)) if open_axes else (0,)
        shapes = [tuple(side if size is None else size for size in self.shape) for side in sides]
        return [torch.randn(1, *shape[1:], generator=generator, device="cpu") for shape in shapes]

    def _by_name(self, inputs: Any) -> Feeds:
        names = self.names
        if isinstance(inputs, Mapping):
            given = {str(name): value for name, value in inputs.items() if value is not None}
            unknown = [n for n in given if self.known is not None and n not in self.known]
            missing = [n for n in names if n not in given] if self.known is not None else []
            if unknown or (missing and len(names) > 1) or not given:
                raise InvalidInputError(
                    f"inputs are named {', '.join(given) or '(none)'}; the model's are "
                    f"{', '.join(names)}"
                )
            return given
        if isinstance(inputs, tuple | list) and inputs and all(map(_is_array, inputs)):
            if len(names) > 1 or isinstance(inputs, tuple) or self._is_batch(inputs):
                return self._placed(inputs)
            inputs = _stacked(inputs)
        if len(names) > 1:
            raise InvalidInputError(
                f"the model has inputs {', '.join(names)}; pass a dict with an array for each"
            )
        return {names[0]: inputs}

    def _is_batch(self, inputs: Sequence[Any]) -> bool:
        """Return whether a list holds one batch, not samples of one."""
        known = self.shape is not None and len(np.shape(inputs[0])) == len(self.shape)
        return len(inputs) == 1 and known

    def _placed(self, inputs: Sequence[Any]) -> Feeds:
        """Return inputs given by position under their names."""
        if not self.places:
            return {str(i): value for i, value in enumerate(inputs)}
        if not len(self.names) <= len(inputs) <= len(self.places):
            raise InvalidInputError(
                f"there are {len(inputs)} inputs; the model takes {', '.join(self.names)}"
            )
        if len(inputs) == 1:
            return {self.names[0]: inputs[0]}
        return dict(zip(self.places, inputs, strict=False))

    def batched(self, feeds: Feeds, axes: int | None) -> Feeds:
        """Return a batch of one where a single sample may be meant; else what came.

        Parameters
        ----------
        feeds : dict of str to Tensor
        axes : int, optional
            Number of axes of a batch of the first input, where it is known.
        """
        arrays = {name: value for name, value in feeds.items() if isinstance(value, Tensor)}
        name, tensor = next(iter(arrays.items()))
        if len(arrays) > 1:
            return feeds
        if axes is not None:
            is_single = tensor.ndim == axes - 1
        else:
            wanted = self.shape or ()
            is_single = len(wanted) == tensor.ndim + 1 and all(
                w in (None, s) for w, s in zip(wanted[1:], tensor.shape, strict=True)
            )
        return {**feeds, name: tensor[None]} if is_single else feeds


def rows(feeds: Feeds, most: int | None = None) -> Feeds:
    """Return the first samples of a batch, all by default."""
    count = samples(feeds)
    return {
        name: value[:most] if isinstance(value, Tensor) and value.shape[:1] == (count,) else value
        for name, value in feeds.items()
    }


def samples(feeds: Feeds) -> int:
    """Return the number of samples N."""
    return len(next(value for value in feeds.values() if isinstance(value, Tensor)))


def whole_numbers(feeds: Feeds) -> bool:
    """Return whether the one array among the inputs has whole numbers."""
    arrays = [value for value in feeds.values() if isinstance(value, Tensor)]
    return len(arrays) == 1 and not arrays[0].is_floating_point()


def as_floats(feeds: Feeds, model: nn.Module) -> Feeds:
    """Return inputs in the model's float dtype."""
    weight = weight_of(model)
    dtype = torch.float32 if weight is None else weight.dtype
    return {name: v.to(dtype) if isinstance(v, Tensor) else v for name, v in feeds.items()}


def weight_of(model: nn.Module) -> Tensor | None:
    """Return the first of the weights that are floats."""
    return next((one for one in model.parameters() if one.is_floating_point()), None)


def picture_of(feeds: Feeds) -> str | None:
    """Return the name of the first input that is a picture, signal or volume, or None."""
    found = [n for n, v in feeds.items() if isinstance(v, Tensor) and v.is_floating_point()]
    return next((name for name in found if 3 <= feeds[name].ndim <= 5), None)


def _is_array(values: Any) -> bool:
    return isinstance(values, Tensor | np.ndarray) or hasattr(values, "__array__")


def _stacked(inputs: Sequence[Any]) -> Any:
    try:
        return torch.stack(
            [
                one.detach() if isinstance(one, Tensor) else torch.from_numpy(np.array(one))
                for one in inputs
            ]
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"the inputs are no batch of samples: {error}") from error


def _tensor(values: Any, name: str) -> Tensor:
    """Return a copy of the values as a tensor of real numbers."""
    try:
        if isinstance(values, Tensor):
            found = values.detach().clone().as_subclass(Tensor)  # pictures of torchvision are more
        elif isinstance(values, np.ma.MaskedArray):
            raise InvalidInputError(f"{_called(name)} is a masked array; fill in what is masked")
        else:
            array = np.asarray(values)
            if array.dtype.kind not in "fiub":
                raise InvalidInputError(
                    f"{_called(name)} has dtype {array.dtype}; wanted real numbers"
                )
            native = array.dtype.newbyteorder("=")
            found = torch.from_numpy(np.array(array, dtype=native, order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{_called(name)} cannot be read as an array: {error}") from error
    if found.layout != torch.strided or found.is_complex() or found.is_quantized:
        raise InvalidInputError(
            f"{_called(name)} is {found.dtype} and {found.layout}; wanted real, dense numbers"
        )
    return found


def _check(tensor: Tensor, name: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise InvalidInputError(
            f"{_called(name)} holds {bad} values that are NaN or infinite in {tensor.dtype}; "
            "clean the array"
        )


def _called(name: str) -> str:
    return f"the array for {name!r}"


def _device(model: nn.Module) -> torch.device:
    buffer = next(model.buffers(), None)
    return buffer.device if buffer is not None else torch.device("cpu")
