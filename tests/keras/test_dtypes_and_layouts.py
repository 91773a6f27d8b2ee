"""Half and double precision, whole numbers, and pictures with their channels first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_models import SHAPE, batch, close, functional, one_hot, tape

import cfcam_core as cfcam

L = keras.layers


@pytest.fixture
def policy() -> Iterator[Any]:
    before, floats = keras.config.dtype_policy(), keras.config.floatx()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
    keras.config.set_floatx(floats)


@pytest.mark.parametrize(("name", "within"), [("mixed_float16", 2e-2), ("mixed_bfloat16", 1e-1)])
def test_mixed_precision(policy: Any, name: str, within: float) -> None:
    plain, x = functional(), batch()
    policy(name)
    half = functional()
    half.set_weights(plain.get_weights())
    head = L.Activation("softmax", dtype="float32")(half.outputs[0])
    model = keras.Model(half.input, head)
    backend = cfcam.open_model(model)
    assert backend.logits_behind == ("softmax",)
    for layer in ("last", "stem"):
        found = backend.capture(x, layer=layer, target=2)
        activations, gradients, scores = tape(plain, x, layer, one_hot([2, 2, 2]))
        assert found.gradients.dtype == np.float32
        close(found.activations, activations, within)
        close(found.gradients, gradients, within)
        close(found.scores, scores, within)
        exact = tape(half, x, layer, one_hot([2, 2, 2]))[1]
        close(found.gradients, exact.astype(np.float32), 1e-6)
    assert [one.name for one in backend.layers() if one.is_default] == ["last"]
    close(backend.scores_from(found.activations, x, layer="stem"), found.scores, 1e-6)


def test_a_float32_head_on_a_half_precision_body(policy: Any) -> None:
    policy("mixed_float16")
    x = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="tanh", name="last")(x))
    model = keras.Model(x, L.Dense(4, activation="softmax", dtype="float32")(y))
    backend = cfcam.open_model(model)
    shares = np.exp(backend.scores(batch()))
    close(shares / shares.sum(axis=1, keepdims=True), model(batch()).numpy(), 1e-3)
    assert backend.logits_behind == ("softmax",)


def test_double_precision(policy: Any) -> None:
    policy("float64")
    keras.config.set_floatx("float64")
    model, x = functional(), batch().astype(np.float64)
    backend = cfcam.open_model(model)
    assert backend.input_dtype == np.float64
    _, gradients, scores = tape(model, x, "branch", one_hot([1, 1, 1]))
    found = backend.capture(x, layer="branch", target=1)
    close(found.gradients, gradients, 1e-7)
    close(found.scores, scores, 1e-7)


def test_quantized_to_int8() -> None:
    x = keras.Input(SHAPE)
    y = L.Conv2D(6, 3, activation="tanh", name="last")(x)
    y = L.Dense(8, activation="tanh", name="wide")(y)
    head = L.Dense(4, activation="softmax", name="head")
    model = keras.Model(x, head(L.GlobalAveragePooling2D()(y)))
    wanted = np.log(model(batch()).numpy())
    for name in ("wide", "head"):
        model.get_layer(name).quantize("int8")
    backend = cfcam.open_model(model)
    assert backend.logits_behind == ("softmax",)
    scores = backend.scores(batch())
    close(scores - scores.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), 5e-2)
    for layer in ("last", "wide"):
        assert np.abs(backend.capture(batch(), layer=layer).gradients).max() > 0
    assert not {"call", "quantized_call"} & vars(head).keys()


def test_words() -> None:
    model = keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            L.Embedding(50, 8, name="words"),
            L.Conv1D(6, 3, activation="relu", name="last"),
            L.GlobalMaxPooling1D(),
            L.Dense(3),
        ]
    )
    backend = cfcam.open_model(model)
    words = np.random.default_rng(0).integers(0, 50, (2, 20))
    assert [one.name for one in backend.layers()] == ["words", "last"]
    assert backend.capture(words, layer="words").activations.shape == (2, 8, 20)
    assert backend.capture(words).layer == "last"
    with pytest.raises(cfcam.InvalidInputError, match="cannot hold"):
        backend.capture(words + 0.5)


def test_pixels_as_whole_numbers() -> None:
    x = keras.Input(SHAPE, dtype="uint8")
    y = L.Conv2D(4, 3, name="last")(L.Rescaling(1 / 255)(x))
    backend = cfcam.open_model(keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y))))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE))
    found = backend.capture(pixels)
    assert (found.layer, found.input_size, backend.input_dtype) == ("last", SHAPE[:2], np.uint8)
    with pytest.raises(cfcam.errors.LayerNotFoundError, match="is no picture or signal of floats"):
        backend.capture(pixels, layer="input")


def test_masks_survive() -> None:
    x = keras.Input((12,), dtype="int32")
    y = L.Embedding(50, 8, mask_zero=True, name="words")(x)
    base = keras.Model(x, L.Dense(6, activation="tanh", name="wide")(y), name="base")
    x = keras.Input((12,), dtype="int32")
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(base(x))))
    words = np.random.default_rng(0).integers(1, 50, (2, 12))
    words[:, 7:] = 0
    backend = cfcam.open_model(model)
    for layer in ("words", "wide", "base"):
        found = backend.capture(words, layer=layer)
        close(found.scores, model(words).numpy(), 1e-6)
        assert np.abs(found.gradients[:, :, :7]).min(axis=(0, 1)).max() > 0
        assert np.abs(found.gradients[:, :, 7:]).max() == 0


def test_channels_first() -> None:
    first = {"data_format": "channels_first"}
    x = keras.Input((3, 14, 11))
    y = L.Conv2D(6, 3, **first, name="stem")(x)
    y = L.ReLU(name="relu")(L.BatchNormalization(axis=1, name="norm")(y))
    y = L.Conv2D(7, 3, activation="tanh", **first, name="last")(y)
    turned = L.Permute((2, 3, 1), name="turned")(y)
    model = keras.Model(x, L.Dense(4, name="head")(L.GlobalAveragePooling2D()(turned)))
    backend, images = cfcam.open_model(model), batch().transpose(0, 3, 1, 2)
    assert backend.input_layout == "channels_first"
    found = backend.capture(images, target=1)
    assert found.layer == "last"
    split = keras.Model(x, [y, model.output])
    with tf.GradientTape() as recorded:
        last, scores = split(images)
        explained = tf.reduce_sum(scores[:, 1])
    close(found.gradients, recorded.gradient(explained, last).numpy())
    assert backend.capture(images, layer="relu").activations.shape == (3, 6, 12, 9)
    assert backend.capture(images, layer="input").activations.shape == (3, 3, 14, 11)
    close(backend.capture(images, layer="turned").activations, found.activations, 1e-6)
    assert found.input_size == (14, 11)
    close(backend.scores_from(found.activations, images), found.scores, 1e-6)


def test_channels_moved_to_the_front() -> None:
    x = keras.Input(SHAPE)
    y = L.Permute((3, 1, 2), name="first")(L.Conv2D(4, 3, name="conv")(x))
    backend = cfcam.open_model(keras.Model(x, L.Dense(2)(L.Flatten()(y))))
    found = backend.captures(batch(), layers=["conv", "first"], target=1)
    close(found[0].gradients, found[1].gradients, 0)
