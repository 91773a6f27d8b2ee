"""A copy of a model with its weights in random order."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from cfcam_core.errors import InvalidInputError
from cfcam_core.shuffling import is_weight, shuffles


def weights_of(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the kernels and matrices by name, in the order in which they are registered.

    For most models that is the order in which they run. A weight that is shared counts once.
    """
    return {
        name: weight
        for name, weight in module.named_parameters()
        if weight.is_floating_point() and is_weight(weight.shape)
    }


def randomised(module: nn.Module, seed: int, last: int | None) -> nn.Module:
    """Return a copy with the values of its weights in random order; the module is left as it is.

    Raises
    ------
    InvalidInputError
        The module cannot be copied, or has no such weights.
    """
    try:
        copy = deepcopy(module)
    except Exception as error:
        raise InvalidInputError(
            f"the model cannot be copied ({type(error).__name__}: {error}), and it is not changed "
            "in place; pass models with other weights yourself, with randomised="
        ) from error
    weights = weights_of(copy)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    with torch.no_grad():
        for name, order in shuffles(sizes, seed, last):
            weight = weights[name]
            where = torch.from_numpy(order).to(weight.device)
            weight.copy_(weight.flatten()[where].reshape(weight.shape))
    return copy
