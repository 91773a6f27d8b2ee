"""What a user feeds a model: copied to its device and dtype and checked, or refused with words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cfcam_core.errors import InvalidInputError
from cfcam_torch._running import modules_of

Sizes = tuple[int | None, ...]
Feeds = dict[str, Any]

CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Layers that tell what the input of the model looks like, and how many spatial axes they have."""

GUESSED = {1: (256, 1024, 64), 2: (224, 32, 28, 64, 96, 128, 256, 299, 384), 3: (32, 64, 16)}
"""Sides that are tried where a model must run on a guess: by the number of spatial axes."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model takes, as far as it can be told without running it."""

    names: tuple[str, ...]
    """Parameters of ``forward`` that have no default; ``("0",)`` where they have no name."""
    known: frozenset[str] | None
    """All parameters; None where any name is taken."""
    shape: Sizes | None
    """Of the first input, batch first; None where nothing is known of it."""
    has_indices: bool
    """Whether the model looks up embeddings, so that integers stay integers."""
    example: tuple[Any, ...] = ()
    """Inputs that the model was exported with."""

    @classmethod
    def of(cls, model: nn.Module) -> Inputs:
        """Return what a model takes."""
        modules = modules_of(model)
        example = _exported_example(model)
        names, known = _names(model, example)
        indices = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in modules)
        return cls(names, known, _shape(model, modules, example), indices, example)

    def read(self, inputs: Any, model: nn.Module, axes: int | None) -> Feeds:
        """Return copies of the inputs by name, on the model's device and in its dtype.

        Parameters
        ----------
        inputs : array_like, mapping of str to array_like, or sequence of arrays
        model : nn.Module
        axes : int, optional
            Number of axes of a batch of the first input, where it is known.

        Raises
        ------
        InvalidInputError
            Names are missing or unknown, values are no finite real numbers, or there is nothing
            in them.
        """
        weight = next((p for p in model.parameters() if p.is_floating_point()), None)
        device = weight.device if weight is not None else _device(model)
        dtype = weight.dtype if weight is not None else None
        given = self._by_name(inputs)
        alone = len([one for one in given.values() if _is_array(one)]) == 1
        feeds = {}
        for name, values in given.items():
            if name not in self.names and not _is_array(values):
                feeds[name] = values
                continue
            tensor = _tensor(values, name)
            if tensor.is_floating_point() or (alone and not self.has_indices):
                tensor = tensor.to(dtype or (None if tensor.is_floating_point() else torch.float32))
            feeds[name] = tensor.to(device)
            _check(feeds[name], name)
        first = next(name for name, value in feeds.items() if isinstance(value, Tensor))
        if alone and self._is_single(feeds[first], axes):
            feeds[first] = feeds[first][None]
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
        generator = torch.Generator().manual_seed(0)
        open_axes = sum(size is None for size in self.shape[1:])
        sides: Sequence[int] = GUESSED.get(len(self.shape) - 2, (64,)) if open_axes else (0,)
        shapes = [tuple(side if size is None else size for size in self.shape) for side in sides]
        return [torch.randn(1, *shape[1:], generator=generator) for shape in shapes]

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
        if isinstance(inputs, tuple | list) and len(inputs) and all(map(_is_array, inputs)):
            if len(names) > 1 or (isinstance(inputs, tuple) and len(inputs) > 1):
                known = self.known or frozenset(names)
                most = max(len(names), len(known))
                if len(inputs) < len(names) or len(inputs) > most:
                    raise InvalidInputError(
                        f"there are {len(inputs)} inputs; the model takes {', '.join(names)}"
                    )
                return {str(i): value for i, value in enumerate(inputs)}
            inputs = _stacked(inputs)
        if len(names) > 1:
            raise InvalidInputError(
                f"the model has inputs {', '.join(names)}; pass a dict with an array for each"
            )
        return {names[0]: inputs}

    def _is_single(self, tensor: Tensor, axes: int | None) -> bool:
        if axes is not None:
            return bool(tensor.ndim == axes - 1)
        if self.shape is None or tensor.ndim != len(self.shape) - 1:
            return False
        return all(w in (None, s) for w, s in zip(self.shape[1:], tensor.shape, strict=True))


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


def picture_of(feeds: Feeds) -> str | None:
    """Return the name of the first input that is a picture, signal or volume, or None."""
    found = [n for n, v in feeds.items() if isinstance(v, Tensor) and v.is_floating_point()]
    return next((name for name in found if 3 <= feeds[name].ndim <= 5), None)


def _is_array(values: Any) -> bool:
    return isinstance(values, Tensor | np.ndarray) or hasattr(values, "__array__")


def _stacked(inputs: Sequence[Any]) -> Any:
    try:
        return torch.stack([torch.as_tensor(np.asarray(one)) for one in inputs])
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"the inputs are no batch of samples: {error}") from error


def _tensor(values: Any, name: str) -> Tensor:
    """Return a copy of the values as a tensor of real numbers."""
    try:
        if isinstance(values, Tensor):
            found = values.detach().clone()
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


def _exported_example(model: nn.Module) -> tuple[Any, ...]:
    example = getattr(model, "cfcam_example", None)
    if not example:
        return ()
    positional, named = example
    return (*positional, *named.values())


def _names(
    model: nn.Module, example: tuple[Any, ...]
) -> tuple[tuple[str, ...], frozenset[str] | None]:
    """Return the names of the inputs that must be given, and of all."""
    if example:
        positional, named = model.cfcam_example
        names = (*map(str, range(len(positional))), *named)
        return names, frozenset(names)
    if isinstance(model, torch.jit.ScriptModule):
        arguments = [one for one in model.forward.schema.arguments if one.name != "self"]
        names = tuple(one.name for one in arguments if not one.has_default_value())
        return names or ("0",), frozenset(one.name for one in arguments)
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
    names = tuple(p.name for p in plain if p.default is p.empty)
    main = getattr(model, "main_input_name", None)
    if not names and any(p.name == main for p in plain):
        names = (str(main),)
    elif not names:
        by_position = not plain or any(p.kind == p.VAR_POSITIONAL for p in parameters)
        names = ("0",) if by_position else (plain[0].name,)
    return names, None if any_name else frozenset(p.name for p in plain) | frozenset(names)


def _shape(
    model: nn.Module, modules: Sequence[nn.Module], example: tuple[Any, ...]
) -> Sizes | None:
    """Return the shape of the first input, as far as the model tells."""
    if example:
        first = next((one for one in example if isinstance(one, Tensor)), None)
        return None if first is None else (None, *first.shape[1:])
    weighing = (*CONVOLUTIONS, nn.Linear, nn.Embedding, nn.RNNBase)
    first_layer: Any = next((module for module in modules_in_order(model, weighing)), None)
    if isinstance(first_layer, nn.Linear):
        return (None, first_layer.in_features)
    if not isinstance(first_layer, tuple(CONVOLUTIONS)):
        return None
    axes = next(n for kind, n in CONVOLUTIONS.items() if isinstance(first_layer, kind))
    sizes = _image_size(modules) if axes == 2 else None
    return (None, first_layer.in_channels, *(sizes or (None,) * axes))


def modules_in_order(model: nn.Module, kinds: tuple[type, ...]) -> list[Any]:
    """Return the modules of some kinds in the order in which they were written."""
    return [module for module in model.modules() if isinstance(module, kinds)]


def _image_size(modules: Sequence[nn.Module]) -> tuple[int, int] | None:
    """Return the height and width that a configuration names."""
    for module in modules:
        config = getattr(module, "config", None)
        size = getattr(config, "image_size", None) or getattr(module, "image_size", None)
        if isinstance(size, int) and size > 0:
            return (size, size)
        if (
            isinstance(size, tuple | list)
            and len(size) == 2
            and all(isinstance(one, int) for one in size)
        ):
            return (size[0], size[1])
    return None
