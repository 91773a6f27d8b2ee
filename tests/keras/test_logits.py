"""A closing softmax or sigmoid is looked through, however it is written; what is none is not."""

from __future__ import annotations

from typing import Any

import cfcam_tensorflow
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import KINDS, SHAPE, batch, built, close, functional, one_hot, tape

import cfcam_core as cfcam

L = keras.layers


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "log_softmax"])
@pytest.mark.parametrize("kind", KINDS)
def test_activation_of_the_last_layer(kind: str, head: str) -> None:
    plain, x = functional(), batch()
    model = built(kind, head)
    backend = cfcam.open_model(model)
    found = backend.capture(x, target=2)
    _, gradients, scores = tape(plain, x, "last", one_hot([2, 2, 2]))
    close(found.scores, scores)
    close(found.gradients, gradients)
    close(backend.scores(x), scores)
    assert backend.logits_behind == (head,)
    assert model.layers[-1].activation is getattr(keras.activations, head)


def test_not_looked_through_if_asked() -> None:
    model, x = functional("softmax"), batch()
    backend = cfcam.open_model(model, look_through=False)
    close(backend.scores(x), model(x).numpy())
    assert backend.logits_behind == ()
    _, gradients, _ = tape(model, x, "last", one_hot([1, 1, 1]))
    close(backend.capture(x, target=1).gradients, gradients)


def closings() -> dict[str, Any]:
    return {
        "layer": L.Softmax(),
        "activation": L.Activation("sigmoid"),
        "half": L.Activation("softmax", dtype="float32"),
        "operation": keras.ops.softmax,
        "function": keras.activations.softmax,
        "log": keras.ops.log_softmax,
    }


@pytest.mark.parametrize("how", closings())
def test_activation_of_its_own(how: str) -> None:
    plain, x = functional(), batch()
    model = keras.Model(plain.inputs, closings()[how](plain.outputs[0]))
    backend = cfcam.open_model(model)
    close(backend.scores(x), plain(x).numpy())
    assert backend.logits_behind in {("softmax",), ("sigmoid",), ("log_softmax",)}
    wanted = cfcam.open_model(plain).capture(x, target=1)
    close(backend.capture(x, target=1).gradients, wanted.gradients)


def test_softmax_as_a_function_in_a_subclassed_model() -> None:
    class Net(keras.Model):
        def __init__(self, closing: Any) -> None:
            super().__init__()
            self.inner, self.closing = functional(), closing

        def call(self, x: Any) -> Any:
            return self.closing(self.inner(x))

    x = batch()
    backend = cfcam.open_model(Net(keras.ops.softmax), example=x)
    close(backend.scores(x), functional()(x).numpy())
    assert backend.logits_behind == ("softmax",)
    unseen = cfcam.open_model(Net(tf.nn.softmax), example=x)
    close(unseen.scores(x), tf.nn.softmax(functional()(x)).numpy())
    assert unseen.logits_behind == ()


def test_convolution_as_the_last_layer() -> None:
    x = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D(keepdims=True)(L.Conv2D(6, 3, activation="relu", name="last")(x))
    last = L.Conv2D(4, 1, activation="softmax", name="head")
    model = keras.Model(x, last(y))
    images = batch()
    backend = cfcam.open_model(model)
    wanted = (backend.capture(images, layer="last").activations.mean((2, 3))) @ np.squeeze(
        last.kernel.numpy()
    )
    close(backend.scores(images), wanted + last.bias.numpy())
    assert backend.classes == 4
    assert backend.logits_behind == ("softmax",)


def test_one_sigmoid() -> None:
    x = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu", name="last")(x))
    model = keras.Model(x, L.Dense(1, activation="sigmoid")(y))
    backend, images = cfcam.open_model(model), batch()
    close(1 / (1 + np.exp(-backend.scores(images))), model(images).numpy())
    found = backend.capture(images)
    assert (backend.classes, found.targets.tolist()) == (1, [0, 0, 0])
    kernel = model.layers[-1].kernel.numpy()[:, 0]
    close(found.gradients[:, :, 0, 0], np.broadcast_to(kernel / (12 * 9), (3, 6)))


def test_an_activation_that_does_not_close_is_left_alone() -> None:
    class Gate(L.Layer):
        """Has an activation that is a sigmoid, and ends in something else."""

        def __init__(self) -> None:
            super().__init__()
            self.dense, self.activation = L.Dense(4), keras.activations.sigmoid

        def call(self, x: Any) -> Any:
            return 3 * self.activation(self.dense(x)) - 1

    x = keras.Input(SHAPE)
    model = keras.Model(x, Gate()(L.GlobalAveragePooling2D()(L.Conv2D(6, 3)(x))))
    backend = cfcam.open_model(model)
    close(backend.scores(batch()), model(batch()).numpy())
    assert backend.logits_behind == ()


@pytest.mark.parametrize("how", ["softmax", "log_softmax"])
def test_activation_used_before_the_end_too(how: str) -> None:
    softmax, x = L.Activation(how), keras.Input(SHAPE)
    y = softmax(L.Conv2D(4, 3, name="conv")(x))
    logits = L.Dense(3, name="head")(L.GlobalAveragePooling2D()(y))
    model, plain = keras.Model(x, softmax(logits)), keras.Model(x, logits)
    close(cfcam.open_model(model).scores(batch()), plain(batch()).numpy())


def test_user_sees_the_activation_in_other_threads_meanwhile() -> None:
    model, x = functional("softmax"), batch(1)
    backend = cfcam_tensorflow.open_model(model, example=x)
    import threading

    seen: list[Any] = []
    head = model.get_layer("head")

    def look(_: Any) -> int:
        thread = threading.Thread(target=lambda: seen.append(model(x).numpy()))
        thread.start()
        thread.join()
        return 0

    backend.capture(x, target=look)
    close(seen[0], model(x).numpy(), 0)
    assert head.activation is keras.activations.softmax


@pytest.mark.parametrize(
    "moved",
    [
        [L.Lambda(keras.ops.softmax)],
        [L.Reshape((1, 1, 5)), L.Softmax(), L.Reshape((5,))],
        [L.Softmax(), L.Dropout(0.5), L.Reshape((5, 1)), L.Flatten()],
    ],
)
def test_activation_within_a_layer_or_before_one_that_moves(moved: list[Any]) -> None:
    plain, x = functional(), batch()
    y = plain.outputs[0]
    for one in moved:
        y = one(y)
    backend = cfcam.open_model(keras.Model(plain.inputs, y))
    found = backend.capture(x, target=2)
    _, gradients, scores = tape(plain, x, "last", one_hot([2, 2, 2]))
    close(found.scores, scores)
    close(found.gradients, gradients)
    assert backend.logits_behind == ("softmax",)
