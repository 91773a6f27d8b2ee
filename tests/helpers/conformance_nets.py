"""What the conformance suite is made of: the golden nets, and what it must know of a framework.

A framework's builder makes a model of a net's weights and says how the model takes its inputs; it
knows nothing of what must come out. Each lives in a module of its own, for no process should import
two frameworks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

GOLDEN = Path(__file__).parents[1] / "golden" / "conformance.npz"
NETS = ("signal", "picture", "volume")
LAYERS = ("input", "stem", "inner", "block", "last")
"""Of every net, by the names that builders give them; a path runs past ``inner``."""

FRAMEWORKS = {
    "onnx": "conformance_onnx:framework",
    "torch": "conformance_torch:framework",
    "keras": "conformance_keras:functional",
    "keras-subclassed": "conformance_keras:subclassed",
    "keras-torch": "conformance_keras:on_torch",
    "keras-jax": "conformance_keras:on_jax",
    "flax": "conformance_flax:framework",
}
"""What ``--backend`` takes, and the function that returns its `Framework`."""


@dataclass(frozen=True, eq=False)
class Net:
    """One golden net; ``make_golden.py`` says what it looks like and how all this was computed."""

    name: str
    arrays: Mapping[str, Array] = field(repr=False)

    def __call__(self, fact: str) -> Array:
        return self.arrays[f"{self.name}/{fact}"]

    @cached_property
    def x(self) -> Array:
        """(N, C, *s), read-only: a backend that writes to its inputs fails."""
        x = self("x")
        x.flags.writeable = False
        return x

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return self.x.ndim - 2

    @property
    def pool(self) -> int:
        return int(self("pool"))

    def weights(self, part: str) -> tuple[Array, Array]:
        """Return kernel (O, I, *k) and bias (O,) of ``stem``, ``inner``, ``last`` or ``dense``."""
        return self(f"weights/{part}_w"), self(f"weights/{part}_b")

    def gradients(self, layer: str, coefficients: Array) -> Array:
        """Return the gradients (N, C, *s) of ``sum_k coefficients[n, k] * logits[n, k]``."""
        slopes = self(f"gradients/{layer}").astype(np.float64)
        return np.einsum("nk,kn...->n...", coefficients, slopes)


@lru_cache
def golden(name: str) -> Net:
    with np.load(GOLDEN) as arrays:
        return Net(name, dict(arrays))


@dataclass(frozen=True)
class Framework:
    """How one framework builds a net and takes its inputs."""

    build: Callable[..., Any]
    """Takes a net and ``softmax=``, whether it ends in one; layers are called as in `LAYERS`."""
    tensor: Callable[[Array], Any]
    """Makes a NumPy array the framework's own."""
    part: Callable[[Any, str], Any]
    """Takes a model and a layer's name; returns what else ``layer=`` takes for it."""
    channels_last: bool = False
    looks_through: bool = True
    """Whether the backend explains the logits behind a soft-max, not the probabilities."""
    several_layers: bool = True
    """Whether the backend has ``captures``."""
    randomises: bool = True
    """Whether the backend can copy the model with other weights."""
    takes_example: bool = True
    """Whether ``open_model`` takes ``example=``; else the model says itself what it takes."""

    def turned(self, x: Array) -> Array:
        """Return a batch (N, C, *s) as the framework has it."""
        return np.moveaxis(x, 1, -1) if self.channels_last else x


def framework(name: str) -> Framework:
    """Import one framework and return what the suite must know of it."""
    module, _, function = FRAMEWORKS[name].partition(":")
    made: Framework = getattr(importlib.import_module(module), function)()
    return made
