"""What a model takes, told by its signature, its first layers and its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cfcam_torch._inputs import Inputs, Sizes
from cfcam_torch._running import modules_of

CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Layers that tell what the input of the model looks like, and how many spatial axes they have."""


def inputs_of(model: nn.Module) -> Inputs:
    """Return what a model takes, as far as it can be told without running it."""
    modules = modules_of(model)
    example = _exported_example(model)
    names, known, places = _names(model, example)
    indices = any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in modules)
    return Inputs(names, known, places, _shape(model, modules, example), indices, example)


def _exported_example(model: nn.Module) -> tuple[Any, ...]:
    example = getattr(model, "cfcam_example", None)
    if not example:
        return ()
    positional, named = example
    return (*positional, *named.values())


def _names(
    model: nn.Module, example: tuple[Any, ...]
) -> tuple[tuple[str, ...], frozenset[str] | None, tuple[str, ...]]:
    """Return the names of the inputs that must be given, of all, and of those in order."""
    if example:
        positional, named = model.cfcam_example
        names = (*map(str, range(len(positional))), *named)
        return names, frozenset(names), names
    if isinstance(model, torch.jit.ScriptModule):
        arguments = model.forward.schema.arguments[1:]  # the first is the model
        every = tuple(one.name for one in arguments)
        names = tuple(one.name for one in arguments if not one.has_default_value())
        return names or every[:1], frozenset(every), every
    try:
        parameters = list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # no function, or none of Python's
        parameters = []
    plain = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    names = tuple(p.name for p in plain if p.default is p.empty)
    main = getattr(model, "main_input_name", None)
    if not names and any(p.name == main for p in plain):
        names = (str(main),)
    by_place = any(p.kind in {p.VAR_POSITIONAL, p.POSITIONAL_ONLY} for p in parameters)
    if not names:
        names = ("0",) if by_place or not plain else (plain[0].name,)
    any_name = any(p.kind == p.VAR_KEYWORD for p in parameters)
    places = () if by_place else tuple(p.name for p in plain if p.kind != p.KEYWORD_ONLY)
    return names, None if any_name else frozenset(p.name for p in plain) | frozenset(names), places


def _shape(
    model: nn.Module, modules: Sequence[nn.Module], example: tuple[Any, ...]
) -> Sizes | None:
    """Return the shape of the first input, as far as the model tells."""
    if example:
        return getattr(model, "cfcam_shape", None)
    weighing = (*CONVOLUTIONS, nn.Linear, nn.Embedding, nn.RNNBase)
    first_layer: Any = next((module for module in _in_order(model, weighing)), None)
    if isinstance(first_layer, nn.Linear):
        return (None, first_layer.in_features)
    axes = next((n for kind, n in CONVOLUTIONS.items() if isinstance(first_layer, kind)), None)
    if axes is None:
        return None
    sizes = _image_size(modules) if axes == 2 else None
    return (None, first_layer.in_channels, *(sizes or (None,) * axes))


def _in_order(model: nn.Module, kinds: tuple[type, ...]) -> list[Any]:
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
