"""Which module is meant by what users pass as a layer, and how its output lies."""

from __future__ import annotations

from typing import Any

from torch import nn

from cfcam_core.errors import LayerNotFoundError
from cfcam_core.layers import find_layer, unknown_layer
from cfcam_core.layout import Layout
from cfcam_torch._explaining import INPUT
from cfcam_torch._models import is_scripted, plain_name
from cfcam_torch._trial import Facts


def find_place(model: nn.Module, layer: Any, facts: Facts) -> Layout:
    """Return the layer that a user means.

    Parameters
    ----------
    model : nn.Module
    layer : str, int, nn.Module, Layer or None
    facts : Facts

    Raises
    ------
    LayerNotFoundError
        There is none, it did not run in the trial, or what it returns is no map.
    """
    if is_scripted(model) and layer != INPUT:
        raise LayerNotFoundError(
            'the model is TorchScript, into which nothing can look; pass layer="input", or '
            "open the model that it was made from, or what torch.export.export makes of it"
        )
    if isinstance(layer, nn.Module):
        layer = _name_of(model, layer)
    name = find_layer(layer, facts.layers)
    if name == INPUT:
        if facts.input is None:
            raise LayerNotFoundError("none of the model's inputs is a picture or a signal")
        return facts.input
    for one in (name, plain_name(name)):
        if one in facts.layouts:
            return facts.layouts[one]
    module = _module_or_none(model, plain_name(name))
    if module is None:
        raise unknown_layer(name, facts.layouts)
    own = _name_of(model, module)
    if own in facts.layouts:
        return facts.layouts[own]
    if own not in facts.returned:
        why = (
            "is inside TorchScript, into which nothing can look"
            if any(map(is_scripted, _around(model, own)))
            else "did not run"
        )
        raise LayerNotFoundError(f"layer {own!r} {why}; name a module that runs as it was written")
    raise LayerNotFoundError(
        f"layer {own!r} returns {facts.returned[own]}; wanted floating-point numbers that have a "
        "gradient, with axes for samples, channels and one to three spatial ones. Name another "
        "layer, such as one of layers()"
    )


def module_of(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of a layer that was found; None for the input itself."""
    return None if name == INPUT else model.get_submodule(name)


def _around(model: nn.Module, name: str) -> list[nn.Module]:
    """Return a module and those around it, the model first."""
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:n])) for n in range(len(parts) + 1)]


def _name_of(model: nn.Module, module: nn.Module) -> str:
    inside = getattr(module, "_orig_mod", None)
    for name, one in model.named_modules():
        if name and (one is module or one is inside):
            return str(name)
    raise LayerNotFoundError(
        f"the {type(module).__name__} that came as layer is none of the model's modules; pass one "
        "of them or its name"
    )


def _module_or_none(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name) if name else None
    except AttributeError:
        return None
