"""Tokens of transformers written in Keras layers come as rows and columns of patches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import close

import cfcam_core as cfcam

L = keras.layers
WIDTH = 12


class ClassToken(L.Layer):
    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.place = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="place")

    def call(self, x: Any) -> Any:
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1) + self.place


def vit(*, pooled: bool, size: tuple[int, int] = (24, 32)) -> keras.Model:
    x = start = keras.Input((*size, 3))
    x = L.Conv2D(WIDTH, 8, strides=8, name="patches")(x)
    x = L.Reshape((-1, WIDTH), name="tokens")(x)
    if not pooled:
        x = ClassToken(name="class")(x)
    for n in range(2):
        y = L.LayerNormalization(name=f"norm{n}")(x)
        x = L.Add(name=f"mixed{n}")([x, L.MultiHeadAttention(2, 6, name=f"attention{n}")(y, y)])
        y = L.Dense(WIDTH, activation="gelu", name=f"wide{n}")(L.LayerNormalization()(x))
        x = L.Add(name=f"block{n}")([x, y])
    x = L.LayerNormalization(name="final")(x)
    x = L.GlobalAveragePooling1D()(x) if pooled else x[:, 0]
    return keras.Model(start, L.Dense(5, name="head")(x))


@pytest.mark.parametrize("pooled", [True, False])
def test_patches_are_laid_out(*, pooled: bool) -> None:
    model, x = vit(pooled=pooled), np.random.default_rng(0).standard_normal((2, 24, 32, 3))
    backend = cfcam.open_model(model)
    found = backend.capture(x, layer="block0", target=1)
    split = keras.Model(model.input, [model.get_layer("block0").output, model.output])
    with tf.GradientTape() as tape:
        tokens, scores = split(x.astype(np.float32))
        explained = tf.reduce_sum(scores[:, 1])
    for own, wanted in (
        (found.activations, tokens.numpy()),
        (found.gradients, tape.gradient(explained, tokens).numpy()),
    ):
        close(own, wanted[:, not pooled :].transpose(0, 2, 1).reshape(2, WIDTH, 3, 4))
    close(backend.scores_from(found.activations, x, layer="block0"), found.scores, 1e-6)


@pytest.mark.parametrize(("pooled", "wanted"), [(True, "final"), (False, "block0")])
def test_default(*, pooled: bool, wanted: str) -> None:
    """With a class token that is read alone, the last patches it looks at."""
    backend = cfcam.open_model(vit(pooled=pooled))
    layers = backend.layers()
    names = [one.name for one in layers]
    default = next(one for one in layers if one.is_default)
    assert names[:2] == ["patches", "tokens"]
    assert "attention0" not in names
    assert "mixed0" in names
    x = np.random.default_rng(0).standard_normal((1, 24, 32, 3))
    if pooled:
        assert default.name == wanted
    else:
        assert np.abs(backend.capture(x).gradients).max() > 0
    assert backend.capture(x).activations.shape == (1, WIDTH, 3, 4)


class Token(L.Layer):
    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

    def call(self, x: Any) -> Any:
        return keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))


def test_what_does_not_depend_on_the_picture_goes_past_nothing() -> None:
    x = keras.Input((24, 32, 3))
    y = L.Reshape((-1, 6), name="tokens")(L.Conv2D(6, 8, strides=8, name="patches")(x))
    token = Token(name="token")(y)
    y = L.Concatenate(axis=1)([token, L.LayerNormalization(name="norm")(y)])
    model = keras.Model(x, L.Dense(2)(L.GlobalAveragePooling1D()(y)))
    assert "norm" in [one.name for one in cfcam.open_model(model).layers()]


def test_tokens_on_no_grid_stay_in_a_row() -> None:
    x = keras.Input((14, 11, 3))
    y = L.Dense(4, activation="tanh", name="odd")(L.Reshape((77, 6))(x))
    model = keras.Model(x, L.Dense(2)(L.GlobalAveragePooling1D()(y)))
    found = cfcam.open_model(model).capture(np.ones((2, 14, 11, 3)), layer="odd")
    assert (found.activations.shape, found.input_size) == ((2, 4, 77), None)


def test_windows_are_no_maps_of_samples() -> None:
    class Windows(L.Layer):
        def build(self, shape: Any) -> None:
            self.mix = L.Dense(shape[-1], name="mix")
            self.mix.build(shape)

        def call(self, x: Any) -> Any:
            _, h, w, c = x.shape
            cut = keras.ops.reshape(x, (-1, h // 2, 2, w // 2, 2, c))
            cut = keras.ops.reshape(keras.ops.transpose(cut, (0, 1, 3, 2, 4, 5)), (-1, 4, c))
            return keras.ops.reshape(self.mix(cut), (-1, h, w, c))

    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(Windows(name="windows")(x))))
    backend = cfcam.open_model(model)
    assert [one.name for one in backend.layers()] == ["windows"]
    with pytest.raises(cfcam.errors.LayerNotFoundError, match="of one sample"):
        backend.capture(np.ones((2, 8, 8, 3)), layer="windows/mix")
