"""What TensorFlow's graphs hold besides layers: branches, loops, tables, gradients of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cfcam_tensorflow._saved_model import open_saved_model
from keras_tape import batch, close, first

from cfcam_core import LayerNotFoundError

L = keras.layers
KERNEL = np.random.default_rng(0).standard_normal((3, 3, 3, 4)).astype(np.float32)


class Net(tf.Module):
    """A convolution in the scope ``conv``, and anything behind it."""

    def __init__(self, tail: Callable[[Any], Any]) -> None:
        super().__init__()
        self.kernel, self.tail = tf.Variable(KERNEL), tail
        pairs = tf.lookup.KeyValueTensorInitializer([0, 1, 2, 3], list("abcd"), tf.int64)
        self.names = tf.lookup.StaticHashTable(pairs, "?")

    def conv(self, x: Any) -> Any:
        with tf.name_scope("conv"):
            return tf.nn.conv2d(x, self.kernel, 1, "SAME")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        logits = self.tail(self.conv(x))
        tf.debugging.assert_less(tf.reduce_max(x), 1e6)
        return {"label": self.names.lookup(tf.argmax(logits, 1)), "logits": logits}


def meant(x: Any) -> Any:
    return tf.reduce_mean(tf.tanh(x), [1, 2])


def branching(x: Any) -> Any:
    return meant(tf.cond(tf.reduce_mean(x) > 0, lambda: 2 * x, lambda: tf.sin(x)))


def looping(x: Any) -> Any:
    steps = tf.shape(x)[1]
    body = lambda i, y: (i + 1, tf.sin(1.1 * y))  # noqa: E731
    return meant(tf.while_loop(lambda i, _: i < steps, body, [0, x])[1])


@tf.custom_gradient
def turned(x: Any) -> Any:
    return tf.identity(x), lambda cotangent: -3 * cotangent


@tf.custom_gradient
def swish(x: Any) -> Any:
    s = tf.sigmoid(x)  # the gradient reads it
    return x * s, lambda cotangent: cotangent * s * (1 + x * (1 - s))


@pytest.mark.parametrize(
    "tail",
    [meant, branching, looping, lambda x: meant(turned(x)), lambda x: meant(swish(turned(x)))],
)
def test_gradients_are_those_of_a_tape_and_labels_are_left_alone(tmp_path: Path, tail: Any) -> None:
    net, x = Net(tail), batch(2, 8, 10, 3)
    tf.saved_model.save(net, tmp_path / "saved")
    backend = open_saved_model(tmp_path / "saved")
    with tf.GradientTape() as tape:
        maps = net.conv(tf.constant(x))
        tape.watch(maps)
        logits = tail(maps)
        chosen = logits[0, 3] + logits[1, 1]
    capture = backend.capture(x, layer="conv", target=[3, 1])
    close(capture.activations, first(maps.numpy()))
    close(capture.gradients, first(tape.gradient(chosen, maps).numpy()))
    close(capture.scores, logits.numpy())
    close(backend.scores_from(capture.activations, x, layer="conv"), logits.numpy())
    assert backend.layers()[0].module == "conv"


def test_scopes_are_told_apart_by_whole_names(tmp_path: Path) -> None:
    def tail(x: Any) -> Any:
        for name, factor in (("block_1", 2.0), ("block_10", 3.0), ("block_2", 5.0)):
            with tf.name_scope(name):
                x = factor * x
        return tf.reduce_mean(x, [1, 2])

    tf.saved_model.save(Net(tail), tmp_path / "saved")
    backend, x = open_saved_model(tmp_path / "saved"), batch(1, 4, 5, 3)
    start = backend.capture(x, layer="conv").activations
    for name, factor in (("block_1", 2), ("block_10", 6), ("block_2", 30)):
        close(backend.capture(x, layer=name).activations, factor * start)
    for name in ("block", "block_3", "block_1:x", ""):
        with pytest.raises(LayerNotFoundError, match="block_1"):
            backend.capture(x, layer=name)


def test_steps_of_a_signal_are_no_patches_of_a_picture_beside_it(saved: Any) -> None:
    picture, signal = keras.Input((8, 12, 3), name="picture"), keras.Input((6, 4), name="signal")
    x = L.Conv2D(4, 3, padding="same", strides=4, activation="tanh", name="on_picture")(picture)
    y = L.Conv1D(5, 1, activation="tanh", name="on_signal")(signal)
    joined = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.GlobalAveragePooling1D()(y)])
    backend = open_saved_model(saved(keras.Model([picture, signal], L.Dense(3)(joined))))
    inputs = {"picture": batch(2, 8, 12, 3), "signal": batch(2, 6, 4)}
    capture = backend.capture(inputs, layer="on_signal")
    assert (capture.activations.shape, capture.input_size) == ((2, 5, 6), (6,))
    capture = backend.capture(inputs)
    assert (capture.activations.shape, capture.input_size) == ((2, 4, 2, 3), (8, 12))
