"""SavedModels of every make: other axes, inputs, authors and precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cfcam_tensorflow._saved_model import open_saved_model
from keras_tape import batch, close, first, reference

import cfcam_core as cfcam
from cfcam_core import (
    InvalidInputError,
)

L = keras.layers


class Written(tf.Module):
    """A net in TensorFlow alone, its layers scopes that somebody chose."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.standard_normal((3, 3, 2, 6)), dtype=tf.float32)
        self.weight = tf.Variable(rng.standard_normal((6, 4)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2), tf.float32, name="image")])
    def __call__(self, image: Any) -> Any:
        with tf.name_scope("body"):
            with tf.name_scope("conv"):
                x = tf.nn.conv2d(image, self.kernel, 2, "SAME")
            with tf.name_scope("act"):
                x = tf.nn.softplus(x)
        with tf.name_scope("head"):
            return tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ self.weight)


class ClassToken(L.Layer):
    """Puts a learned token in front of the others."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal")

    def call(self, x: Any) -> Any:
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x], axis=1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[1] + 1, shape[2])


def test_nested_models_shared_layers_and_names_with_numbers(saved: Any) -> None:
    base = keras.Sequential(
        [keras.Input((12, 10, 3)), L.Conv2D(4, 3, name="k"), L.Conv2D(5, 3, name="k_1")],
        name="base",
    )
    start = keras.Input((12, 10, 3))
    shared = L.Conv2D(3, 1, name="shared")
    x = base(shared(shared(start)))
    model = keras.Model(start, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    backend, inputs = open_saved_model(saved(model)), batch(2, 12, 10, 3)
    for name in ("base.k", "base/k", "k"):
        close(
            backend.capture(inputs, layer=name).activations,
            first(base.layers[0](shared(shared(inputs))).numpy()),
        )
    for name in ("base", "base.k_1", "k_1"):
        close(
            backend.capture(inputs, layer=name).activations,
            first(base(shared(shared(inputs))).numpy()),
        )
    close(
        backend.capture(inputs, layer="shared").activations, first(shared(shared(inputs)).numpy())
    )
    assert backend.capture(inputs).layer == backend.capture(inputs, layer="k_1").layer


def test_subclassed_models(saved: Any) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = L.Conv2D(5, 3, activation="relu", name="mine"), L.Dense(3)

        def call(self, x: Any) -> Any:
            return keras.ops.softmax(self.head(keras.ops.mean(self.conv(x), axis=(1, 2))))

    model, x = Net(), batch(2, 9, 7, 3)
    model(x)
    backend = open_saved_model(saved(model))
    with tf.GradientTape() as tape:
        maps = model.conv(x)
        tape.watch(maps)
        logits = model.head(keras.ops.mean(maps, axis=(1, 2)))[:, 1]
    capture = backend.capture(x, target=1)
    close(capture.activations, first(maps.numpy()))
    close(capture.gradients, first(tape.gradient(logits, maps).numpy()))
    close(backend.capture(x, layer="mine", target=1).gradients, capture.gradients)


def test_channels_first(saved: Any) -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        x = start = keras.Input((3, 12, 16))
        x = L.Conv2D(8, 3, padding="same", activation="tanh", name="stem")(x)
        x = L.BatchNormalization(axis=1)(x)
        x = L.Conv2D(5, 3, padding="same", activation="gelu", name="last")(L.MaxPooling2D()(x))
        model = keras.Model(start, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
        backend = open_saved_model(saved(model))
    finally:
        keras.config.set_image_data_format("channels_last")
    inputs = batch(2, 3, 12, 16)
    assert backend.input_layout == "channels_first"
    for layer in ("stem", "last"):
        activations, gradients, _ = reference(model, layer, inputs, [1, 2])
        capture = backend.capture(inputs, layer=layer, target=[1, 2])
        close(capture.activations, activations)
        close(capture.gradients, gradients)
        assert capture.input_size == (12, 16)


@pytest.mark.parametrize(
    ("conv", "pool", "shape"),
    [
        (L.Conv1D, L.GlobalAveragePooling1D, (24, 3)),
        (L.Conv3D, L.GlobalAveragePooling3D, (6, 8, 10, 2)),
        (L.Conv1D, lambda: L.LSTM(6), (24, 3)),
    ],
)
def test_signals_and_volumes(saved: Any, conv: Any, pool: Any, shape: tuple[int, ...]) -> None:
    start = keras.Input(shape)
    x = conv(5, 3, activation="tanh", name="last")(start)
    model = keras.Model(start, L.Dense(4)(pool()(x)))
    backend, inputs = open_saved_model(saved(model)), batch(2, *shape)
    activations, gradients, _ = reference(model, "last", inputs, [1, 2])
    capture = backend.capture(inputs, target=[1, 2])
    close(capture.activations, first(activations))
    close(capture.gradients, first(gradients))
    assert capture.input_size == shape[:-1]


def test_patches_are_laid_out(saved: Any) -> None:
    x = start = keras.Input((12, 16, 3))
    x = L.Reshape((12, 8))(L.Conv2D(8, 4, strides=4, name="embed")(x))
    x = ClassToken()(x)
    x = L.Add(name="mixed")([x, L.MultiHeadAttention(2, 4)(x, x)])
    x = L.Add(name="dense")([x, L.Dense(8, activation="gelu")(L.LayerNormalization()(x))])
    model = keras.Model(start, L.Dense(4)(L.GlobalAveragePooling1D()(x)))
    backend, inputs = open_saved_model(saved(model)), batch(2, 12, 16, 3)
    activations, gradients, logits = reference(model, "dense", inputs, [1, 2])
    capture = backend.capture(inputs, layer="dense", target=[1, 2])
    close(capture.activations, first(activations[:, 1:].reshape(2, 3, 4, 8)))
    close(capture.gradients, first(gradients[:, 1:].reshape(2, 3, 4, 8)))
    close(backend.scores_from(capture.activations, inputs, layer="dense"), logits)
    assert backend.capture(inputs).activations.shape == (2, 8, 3, 4)


def test_several_inputs_by_name_and_in_order(saved: Any) -> None:
    picture, facts = keras.Input((8, 10, 3), name="picture"), keras.Input((4,), name="facts")
    x = L.Conv2D(6, 3, activation="tanh", name="last")(picture)
    joined = L.Concatenate()([L.GlobalAveragePooling2D()(x), L.Dense(3)(facts)])
    model = keras.Model({"picture": picture, "facts": facts}, L.Dense(4)(joined))
    backend = open_saved_model(saved(model))
    inputs = {"facts": batch(2, 4), "picture": batch(2, 8, 10, 3)}
    assert sorted(backend.input_names) == ["facts", "picture"]
    capture = backend.capture(inputs, target=1)
    close(capture.scores, model(inputs).numpy())
    assert capture.activations.shape == (2, 6, 6, 8)
    in_order = [inputs[name] for name in backend.input_names]
    close(backend.capture(in_order, target=1).gradients, capture.gradients)
    assert backend.capture(inputs, layer="input").activations.shape == (2, 3, 8, 10)
    with pytest.raises(InvalidInputError, match="facts, picture"):
        backend.scores(inputs["picture"])
    with pytest.raises(InvalidInputError, match="the model's are"):
        backend.scores({"picture": inputs["picture"]})


def test_of_two_pictures_the_first_is_explained(saved: Any) -> None:
    pictures = [keras.Input((8, 10, 3), name="one"), keras.Input((16, 12, 3), name="two")]
    maps = [L.Conv2D(4 + i, 3, name=f"conv_{i}")(x) for i, x in enumerate(pictures)]
    pooled = L.Concatenate()([L.GlobalAveragePooling2D()(x) for x in maps])
    backend = open_saved_model(saved(keras.Model(pictures, L.Dense(4)(pooled))))
    inputs = [batch(2, 8, 10, 3), batch(2, 16, 12, 3)]
    assert backend.capture(inputs).activations.shape == (2, 4, 6, 8)
    assert backend.capture(inputs).input_size == (8, 10)
    assert backend.capture(inputs, layer="conv_1").activations.shape == (2, 5, 14, 10)
    assert backend.capture(inputs, layer="conv_1").input_size == (16, 12)


class Pairs(tf.Module):
    """A net that takes two samples at a time."""

    @tf.function(input_signature=[tf.TensorSpec((2, 6, 5, 3), tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        return tf.reduce_mean(tf.nn.softplus(x, name="last") ** 2, [1, 2])


def test_a_batch_that_is_fixed(tmp_path: Path) -> None:
    tf.saved_model.save(Pairs(), tmp_path / "saved")
    backend, x = cfcam.open_model(tmp_path / "saved"), batch(5, 6, 5, 3)
    capture = backend.capture(x, layer="last", target=[0, 1, 2, 0, 1])
    maps = np.log1p(np.exp(first(x)))
    close(capture.activations, maps)
    close(capture.scores, (maps**2).mean(axis=(2, 3)))
    wanted = np.zeros_like(maps)
    for i, target in enumerate(capture.targets):
        wanted[i, target] = 2 * maps[i, target] / 30
    close(capture.gradients, wanted)
    close(backend.scores_from(capture.activations, x, layer="last"), capture.scores)
    assert backend.layers()[-1].shape[0] == 2


def test_half_precision(saved: Any) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        start = keras.Input((9, 11, 3))
        x = L.Conv2D(5, 3, activation="relu", name="last")(start)
        model = keras.Model(start, L.Dense(4, dtype="float32")(L.GlobalAveragePooling2D()(x)))
    finally:
        keras.config.set_dtype_policy("float32")
    backend, inputs = open_saved_model(saved(model)), batch(5, 9, 11, 3)
    capture = backend.capture(inputs)
    np.testing.assert_allclose(capture.scores, model(inputs).numpy(), atol=1e-3)
    assert capture.activations.shape == (5, 5, 7, 9)
    assert capture.activations.dtype == np.float32
    assert np.abs(capture.gradients).max() > 0


def test_models_of_tensorflow_alone(tmp_path: Path) -> None:
    module, x = Written(), batch(2, 10, 14, 2)
    tf.saved_model.save(module, tmp_path / "folder")
    image = tf.constant(x)
    with tf.GradientTape() as tape:
        maps = tf.nn.softplus(tf.nn.conv2d(image, module.kernel, 2, "SAME"))
        tape.watch(maps)
        logits = tf.reduce_mean(maps, [1, 2]) @ module.weight
        chosen = logits[:, 3]
    gradients = tape.gradient(chosen, maps).numpy()
    loaded = tf.saved_model.load(tmp_path / "folder")
    function = loaded.__call__.get_concrete_function(tf.TensorSpec((None, None, None, 2)))
    main = tmp_path / "folder" / "saved_model.pb"
    for model in (tmp_path / "folder", str(tmp_path / "folder"), main, loaded, function):
        backend = cfcam.open_model(model)
        assert backend.input_names == ("image",)
        assert [one.module for one in backend.layers()] == ["body.conv", "body.act"]
        for layer in (None, "act", "body/act", "body", "body.act"):
            capture = backend.capture(x, layer=layer, target=3)
            close(capture.activations, first(maps.numpy()))
            close(capture.gradients, first(gradients))
            close(capture.scores, logits.numpy())


class Turned(tf.Module):
    """A net that goes on with its channels first, in operations that do not say so."""

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 5, 3), tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        x = tf.transpose(tf.nn.avg_pool2d(x, 2, 1, "SAME"), [0, 3, 2, 1])
        return tf.reduce_mean(tf.nn.softplus(x, name="last"), [2, 3])


def test_channels_are_followed_through_transpositions(tmp_path: Path) -> None:
    tf.saved_model.save(Turned(), tmp_path / "saved")
    x = batch(2, 6, 5, 3)
    capture = cfcam.open_model(tmp_path / "saved").capture(x, layer="last")
    pooled = tf.nn.avg_pool2d(x, 2, 1, "SAME").numpy()
    close(capture.activations, np.log1p(np.exp(pooled.transpose(0, 3, 2, 1))))


@pytest.mark.real
def test_a_real_model_is_explained_as_its_keras_file_is(saved: Any, real_data: Path) -> None:
    path = real_data / "models" / "vww_96.keras"
    folder = saved(keras.saving.load_model(path, compile=False))
    kept, exported = cfcam.open_model(path), cfcam.open_model(folder)
    x = np.random.default_rng(0).random((2, 96, 96, 3))
    wanted, found = kept.capture(x), exported.capture(x)
    close(found.activations, wanted.activations)
    close(found.gradients, wanted.gradients)
    close(found.scores, wanted.scores)
    (default,) = [one for one in exported.layers() if one.is_default]
    assert default.module == wanted.layer
