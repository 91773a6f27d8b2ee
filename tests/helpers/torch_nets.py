"""Small PyTorch nets, and autograd on their halves: what the backend is held against."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

SIZES = {1: (40,), 2: (12, 17), 3: (6, 9, 7)}
"""Of inputs with one, two and three spatial axes; no two axes of a net are alike."""


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Any, **named: Any) -> Any:
        return self.function(*x, **named)


def mean(x: Any) -> Any:
    return x.flatten(2).mean(-1)


UNITS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "relu in place": partial(nn.ReLU, inplace=True),
    "function in place": partial(Apply, torch.relu_),
    "method in place": partial(Apply, lambda x: x.mul_(2).relu_()),
}


def convolution(axes: int, before: int, after: int, stride: int = 1) -> nn.Module:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](before, after, 3, stride, 1)


def chain(
    axes: int = 2, unit: Callable[[], nn.Module] = nn.ReLU, *closing: nn.Module
) -> nn.Sequential:
    """Build three convolutions, each with a unit behind it, and a dense layer; five classes."""
    parts: dict[str, nn.Module] = {
        "stem": convolution(axes, 3, 6, 2),
        "bend": unit(),
        "inner": convolution(axes, 6, 8),
        "bend2": unit(),
        "last": convolution(axes, 8, 7),
        "bend3": unit(),
        "pool": Apply(mean),
        "dense": nn.Linear(7, 5),
        **{f"closing{i}": one for i, one in enumerate(closing)},
    }
    return nn.Sequential(OrderedDict(parts)).eval()


MAPS = ("stem", "bend", "inner", "bend2", "last", "bend3")
"""Those parts of a `chain` that make maps."""


def batch(axes: int = 2, samples: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(samples, channels, *SIZES[axes])


@dataclass(frozen=True, eq=False, slots=True)
class Truth:
    """What autograd says of a layer's output, in the model's own dtype and layout."""

    activations: torch.Tensor
    gradients: torch.Tensor
    scores: torch.Tensor


def by_halves(model: nn.Sequential, name: str, x: torch.Tensor, classes: Any = None) -> Truth:
    """Run what stands before a layer and, from its output, what stands behind.

    No hooks: a Sequential is cut in two.
    """
    cut = [child for child, _ in model.named_children()].index(name) + 1
    return of_halves(model[:cut], model[cut:], x, classes)


def of_halves(front: Any, back: Any, x: Any, classes: Any = None) -> Truth:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [one.clone() for one in (x if isinstance(x, tuple) else (x,))]
        activations = front(*inputs).detach().clone().requires_grad_()
        scores = back(activations.clone())
        rows = torch.arange(len(scores))
        wanted = scores.argmax(1) if classes is None else torch.as_tensor(classes)
        (gradients,) = torch.autograd.grad(scores[rows, wanted].sum(), activations)
    return Truth(activations.detach(), gradients, scores.detach())


def agree(capture: Any, truth: Truth, *, tolerance: float = 1e-5) -> None:
    """Hold a capture against autograd; a gradient of zeros agrees with nothing."""
    assert truth.gradients.any()
    for name in ("activations", "gradients", "scores"):
        found, wanted = getattr(capture, name), getattr(truth, name).float().numpy()
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_allclose(
            found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(), err_msg=name
        )


def same(one: Any, other: Any, *, tolerance: float = 1e-5) -> None:
    """Hold two captures against each other."""
    assert np.abs(other.gradients).max() > 0
    for name in ("activations", "gradients", "scores"):
        found, wanted = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(
            found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(), err_msg=name
        )
    np.testing.assert_array_equal(one.targets, other.targets)
    assert one.input_size == other.input_size
