"""What TensorFlow's tape says of a functional Keras model, and how arrays are compared with it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def batch(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def reference(
    model: keras.Model, layer: str, x: Any, classes: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a layer's activations, gradients of logits and the logits, by a tape on the model."""
    x = tf.constant(x)
    closing = model.layers[-1].activation
    model.layers[-1].activation = keras.activations.linear
    probe = keras.Model(model.input, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        tape.watch(x)
        activations, logits = probe(x, training=False)
        chosen = tf.reduce_sum(tf.gather(logits, np.array(classes)[:, None], batch_dims=1))
    gradients = tape.gradient(chosen, activations)
    model.layers[-1].activation = closing
    return activations.numpy(), gradients.numpy(), logits.numpy()


def close(found: Any, wanted: Any) -> None:
    scale = np.abs(wanted).max()
    assert scale > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * scale)


def first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 1)
