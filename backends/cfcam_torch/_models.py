"""What users hand over, brought to one form: a plain module that runs eagerly."""

from __future__ import annotations

import warnings
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cfcam_core.errors import InvalidInputError

WRAPPERS = ("module.", "_orig_mod.")
"""What wrappers put in front of the names of the layers inside."""


def find_module(model: Any) -> nn.Module:
    """Return the module that is meant by a model, a wrapper of one, an exported program or a path.

    Raises
    ------
    InvalidInputError
        It is none of these, its weights are not there, or the file cannot be read.
    """
    if isinstance(model, str | PathLike):
        model = _read(Path(fspath(model)))
    if isinstance(model, torch.export.ExportedProgram):
        model = _unflattened(model)
    while (inside := _inside(model)) is not None:
        model = inside
    if not isinstance(model, nn.Module):
        what = (
            "a state dict, which holds weights and no model; build the model, load them into it"
            if isinstance(model, dict)
            else f"a {type(model).__module__}.{type(model).__qualname__}; build the model"
        )
        raise InvalidInputError(f"this is {what} and pass the torch.nn.Module")
    for name, weight in model.named_parameters():
        if nn.parameter.is_lazy(weight) or weight.is_meta:
            raise InvalidInputError(
                f"the weight {name!r} has no values yet; load the weights, or run the model once "
                "if it has lazy layers"
            )
    return model


def is_scripted(module: nn.Module) -> bool:
    """Return whether a module is TorchScript, into which no hook can look."""
    return isinstance(module, torch.jit.ScriptModule)


def is_compiled(module: nn.Module) -> bool:
    """Return whether calling this module, of itself, runs compiled code."""
    return (
        getattr(module, "_compiled_call_impl", None) is not None
        or getattr(module, "_orig_mod", None) is not None
    )


def plain_name(name: str) -> str:
    """Return a layer's name without what wrappers have put in front of it."""
    while (front := next((w for w in WRAPPERS if name.startswith(w)), None)) is not None:
        name = name.removeprefix(front)
    return name


def _inside(model: Any) -> Any:
    """Return what a wrapper wraps, or None."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return model.module
    return getattr(model, "_orig_mod", None) if isinstance(model, nn.Module) else None


def _read(path: Path) -> Any:
    if path.suffix.lower() != ".pt2":
        raise InvalidInputError(
            f"{str(path)!r} may hold weights alone, or a pickle that runs code when it is opened; "
            "build the model, load the weights into it and pass the model itself, or write it once "
            "with torch.export.save to a file ending in .pt2"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:
        raise InvalidInputError(
            f"{str(path)!r} cannot be read by torch.export.load: {error}; write it with "
            "torch.export.save, by a version of torch not newer than this one"
        ) from error


def _unflattened(program: torch.export.ExportedProgram) -> nn.Module:
    """Return an exported program as modules again, with its example inputs beside it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of its own parts
            module = torch.export.unflatten(program)
    except Exception as error:
        raise InvalidInputError(
            f"the exported program cannot be taken apart into its modules: {error}; pass the "
            "model that it was exported from"
        ) from error
    module.cfcam_example, module.cfcam_shape = program.example_inputs, _input_shape(program)
    return module


def _input_shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...] | None:
    """Return the shape of the first input of an exported program; None where any size is taken."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    value = next((node.meta.get("val") for node in nodes if names and node.name == names[0]), None)
    if not isinstance(value, torch.Tensor):
        return None
    return (None, *(size if isinstance(size, int) else None for size in value.shape[1:]))
