"""Nets and the oracle of `keras_engine_cases.py`, on whatever Keras runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

L, ops = keras.layers, keras.ops
ENGINE = keras.config.backend()
SHAPE = (12, 10, 3)
Head = Callable[[Any], Any]


def batch(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def value(x: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(x), np.float32)


def gradient(of: Head, at: Any, classes: Any) -> np.ndarray:
    """Differentiate the logit of a class a sample, by the framework."""
    rows, classes = np.arange(len(at)), np.asarray(classes)
    if ENGINE == "torch":
        import torch

        leaf = torch.tensor(value(at), requires_grad=True)
        return torch.autograd.grad(of(leaf)[rows, classes].sum(), leaf)[0].numpy()
    import jax

    return np.asarray(jax.grad(lambda x: of(x)[rows, classes].sum())(ops.convert_to_tensor(at)))


def close(found: Any, wanted: Any) -> None:
    scale = np.abs(wanted).max()
    assert scale > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


def first(array: Any) -> np.ndarray:
    return np.moveaxis(value(array), -1, 1)


class Net:
    """A base within a model, a branch in the base, soft-max at the end; and its parts."""

    def __init__(self, closing: str | None = "softmax") -> None:
        self.stem = L.Conv2D(8, 3, padding="same", activation="relu", name="stem")
        self.branch = L.Conv2D(8, 3, padding="same", activation="silu", name="branch")
        self.last = L.Conv2D(6, 3, activation="tanh", name="last")
        self.mean, self.dense = L.GlobalAveragePooling2D(), L.Dense(5, name="dense")
        start = keras.Input(SHAPE)
        x = self.stem(start)
        block = L.Add(name="block")([x, self.branch(x)])
        base = keras.Model(start, self.last(block), name="base")
        outer = keras.Input(SHAPE)
        scores = self.dense(L.Dropout(0.5)(self.mean(base(outer))))
        self.model = keras.Model(outer, L.Activation(closing)(scores) if closing else scores)

    def head(self, x: Any) -> Any:
        return self.dense(self.mean(x))

    def tail(self, x: Any) -> Any:
        return self.head(self.last(x + self.branch(x)))

    def maps(self, x: Any) -> Any:
        x = self.stem(x)
        return self.last(x + self.branch(x))


class Subclassed(keras.Model):
    """Layers in a list, one called twice, and a call in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [L.Conv2D(6, 3, padding="same", name=f"block_{i}") for i in range(2)]
        self.twice = L.Conv2D(6, 1, activation="tanh", name="twice")
        self.head = L.Dense(4, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = self.twice(block(x))
        return self.head(ops.mean(x, axis=(1, 2)))
