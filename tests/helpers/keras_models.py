"""One small classifier built in every way that Keras has, and what a tape says of its layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
SHAPE = (14, 11, 3)
CLASSES = 5


def batch(samples: int = 3, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((samples, *shape)).astype(np.float32)


def parts(head: str | None = None) -> dict[str, Any]:
    """Return the layers, among them a norm with statistics and a dropout that must do nothing."""
    keras.utils.set_random_seed(0)  # from here on come the seeds of all weights
    norm = L.BatchNormalization(name="norm")
    norm.build((None, None, None, 6))
    rng = np.random.default_rng(0)
    norm.set_weights([rng.uniform(0.5, 1.5, 6).astype(np.float32) for _ in range(4)])
    return {
        "stem": L.Conv2D(6, 3, strides=2, name="stem"),
        "norm": norm,
        "branch": L.Conv2D(6, 3, padding="same", activation="tanh", name="branch"),
        "block": L.Add(name="block"),
        "drop": L.Dropout(0.5, name="drop"),
        "last": L.Conv2D(8, 3, padding="same", activation="softplus", name="last"),
        "mean": L.GlobalAveragePooling2D(name="mean"),
        "head": L.Dense(CLASSES, activation=head, name="head"),
    }


def features(p: dict[str, Any], x: Any) -> Any:
    x = p["norm"](p["stem"](x))
    return p["last"](p["drop"](p["block"]([x, p["branch"](x)])))


def functional(head: str | None = None) -> keras.Model:
    p, x = parts(head), keras.Input(SHAPE)
    return keras.Model(x, p["head"](p["mean"](features(p, x))), name="whole")


def nested(head: str | None = None) -> keras.Model:
    """Build it as one learns to do transfer learning: a base model is one layer of another."""
    p, x = parts(head), keras.Input(SHAPE)
    base = keras.Model(x, features(p, x), name="base")
    x = keras.Input(SHAPE)
    return keras.Model(x, p["head"](p["mean"](base(x))))


def nested_sequential(head: str | None = None) -> keras.Model:
    p, x = parts(head), keras.Input(SHAPE)
    base = keras.Model(x, features(p, x), name="base")
    return keras.Sequential([keras.Input(SHAPE), base, p["mean"], p["head"]])


class Features(L.Layer):
    """A layer of somebody's own that has layers, and computes something itself."""

    def __init__(self, p: dict[str, Any]) -> None:
        super().__init__(name="features")
        self.first = [p["stem"], p["norm"]]
        self.rest = {"branch": p["branch"], "last": p["last"]}
        self.drop = p["drop"]

    def call(self, x: Any) -> Any:
        for one in self.first:
            x = one(x)
        return self.rest["last"](self.drop(x + self.rest["branch"](x)))


class Subclassed(keras.Model):
    def __init__(self, head: str | None = None) -> None:
        super().__init__(name="subclassed")
        p = parts(head)
        self.features, self.mean, self.head = Features(p), p["mean"], p["head"]

    def call(self, x: Any) -> Any:
        return self.head(self.mean(self.features(x)))


def subclassed(head: str | None = None) -> keras.Model:
    model = Subclassed(head)
    model(np.zeros((1, *SHAPE), np.float32))
    return model


KINDS = {
    "functional": functional,
    "nested": nested,
    "nested_sequential": nested_sequential,
    "subclassed": subclassed,
}

PATHS = {
    "functional": "",
    "nested": "base/",
    "nested_sequential": "base/",
    "subclassed": "features/",
}
"""What stands before the name of a layer."""


def built(kind: str, head: str | None = None) -> keras.Model:
    """Build one kind; all have the same weights."""
    return KINDS[kind](head)


def tape(
    model: keras.Model, x: Any, layer: str, cotangents: Any, logits: Any = None
) -> tuple[np.ndarray, ...]:
    """Return activations, gradients (both channels first) and scores of a functional model."""
    outputs = [model.get_layer(layer).output, model.output if logits is None else logits]
    split = keras.Model(model.input, outputs)
    with tf.GradientTape() as recorded:
        activations, scores = split(tf.constant(x), training=False)
        explained = tf.reduce_sum(scores * tf.cast(cotangents, scores.dtype))
    gradients = recorded.gradient(explained, activations)
    first = [np.moveaxis(one.numpy(), -1, 1) for one in (activations, gradients)]
    return (*first, scores.numpy())


def one_hot(targets: Any, classes: int = CLASSES) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.asarray(targets)]


def close(found: Any, wanted: Any, within: float = 1e-5) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(
        found, wanted, rtol=0, atol=within * max(1e-12, np.abs(wanted).max())
    )
