"""Which output of a SavedModel is explained, what a trial runs on, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cfcam_tensorflow
import keras
import numpy as np
import pytest
import tensorflow as tf
from cfcam_tensorflow._saved_model import open_saved_model
from keras_tape import batch, close

from cfcam_core import (
    BackendUnavailableError,
    InvalidInputError,
    LayerNotFoundError,
    UnsupportedOpError,
)

L = keras.layers


def segmenter() -> keras.Model:
    start = keras.Input((8, 10, 3))
    x = L.Conv2D(6, 3, padding="same", activation="tanh", name="body")(start)
    return keras.Model(start, L.Conv2D(4, 1, name="classes")(x))


def test_outputs_can_be_chosen_or_made(saved: Any, tmp_path: Path) -> None:
    model, x = segmenter(), batch(2, 8, 10, 3)
    path = saved(model)
    with pytest.raises(InvalidInputError, match=r"\(N, 8, 10, 4\)"):
        open_saved_model(path).scores(x)
    with pytest.raises(InvalidInputError, match="callable target"):
        open_saved_model(path).capture(x, target=1)
    made = open_saved_model(path, output=lambda raw: tf.reduce_mean(raw, [1, 2]))
    capture = made.capture(x, layer="body", target=2)
    close(capture.scores, model(x).numpy().mean(axis=(1, 2)))
    raw = open_saved_model(path).capture(
        x, layer="body", target=lambda raw: tf.reduce_mean(raw[..., 2], [1, 2])
    )
    close(raw.gradients, capture.gradients)
    assert raw.scores is None
    assert raw.targets.tolist() == [-1, -1]
    total = open_saved_model(path).capture(
        x, layer="body", target=lambda raw: tf.reduce_sum(tf.reduce_mean(raw[..., 2], [1, 2]))
    )
    close(total.gradients, capture.gradients)
    for wrong in (lambda raw: raw, lambda raw: 1.0, lambda raw: tf.constant(1.0)):
        with pytest.raises(InvalidInputError, match=r"the target made|what the target made"):
            open_saved_model(path).capture(x, layer="body", target=wrong)


def test_one_of_several_outputs(saved: Any) -> None:
    x = start = keras.Input((8, 10, 3))
    x = L.Conv2D(6, 3, activation="tanh", name="last")(start)
    pooled = L.GlobalAveragePooling2D()(x)
    heads = {"kind": L.Dense(4)(pooled), "age": L.Dense(2)(pooled), "map": x}
    model, inputs = keras.Model(start, heads), batch(2, 8, 10, 3)
    path, outputs = saved(model), model(inputs)
    for output in ("kind", "age"):
        close(open_saved_model(path, output=output).scores(inputs), outputs[output].numpy())
    close(open_saved_model(path).scores(inputs), outputs["age"].numpy())
    for output in ("colour", "map", 7, 1.5):
        with pytest.raises(InvalidInputError, match="output"):
            open_saved_model(path, output=output)


def test_sizes_that_are_open_are_tried_on_the_example(saved: Any) -> None:
    start = keras.Input((None, None, 3))
    x = L.Conv2D(6, 3, activation="tanh", name="first")(start)
    x = L.Reshape((40, 60))(x)  # 10 x 40 alone
    model = keras.Model(start, L.Dense(4)(L.GlobalAveragePooling1D()(x)))
    path, inputs = saved(model), batch(2, 12, 42, 3)
    with pytest.raises(InvalidInputError, match="example="):
        open_saved_model(path).layers()
    for backend in (open_saved_model(path, example=inputs), open_saved_model(path)):
        assert backend.capture(inputs, layer=0).activations.shape == (2, 6, 10, 40)
        assert backend.layers()[0].shape == (None, None, None, 6)


def test_what_cannot_be_opened_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read as a SavedModel"):
        open_saved_model(tmp_path)
    with pytest.raises(InvalidInputError, match="no signatures"):
        open_saved_model(object())
    empty = tf.Module()
    tf.saved_model.save(empty, tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="get_concrete_function"):
        open_saved_model(tmp_path / "empty")


def test_tensorflow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("cfcam_tensorflow._saved_model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(BackendUnavailableError, match="pip install"):
        cfcam_tensorflow.open_model(tmp_path)


class Looking(tf.Module):
    """A net that looks its inputs up in a table."""

    def __init__(self) -> None:
        super().__init__()
        pairs = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [2.0, 1.0, 0.5], tf.int64)
        self.table = tf.lookup.StaticHashTable(pairs, 0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 5, 2), tf.int64)])
    def __call__(self, x: Any) -> Any:
        return tf.reduce_mean(self.table.lookup(x), [1, 2])


class Reading(tf.Module):
    """A net that takes text."""

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def __call__(self, x: Any) -> Any:
        return tf.strings.to_number(x)[:, None] * tf.ones((1, 3))


@pytest.mark.parametrize("module", [Looking, Reading])
def test_tables_and_text_are_refused(tmp_path: Path, module: Any) -> None:
    tf.saved_model.save(module(), tmp_path / "saved")
    with pytest.raises(UnsupportedOpError, match=r"pass the \.keras file"):
        open_saved_model(tmp_path / "saved")


class Rounding(tf.Module):
    """A net whose last operation but the head has no gradient anywhere."""

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 5, 2), tf.float32, name="x")])
    def __call__(self, x: Any) -> Any:
        bits = tf.bitcast(tf.sinh(x, name="before"), tf.int32)
        return tf.reduce_mean(tf.cast(bits, tf.float32), [1, 2])


def test_layers_without_a_gradient_or_a_grid_are_refused(tmp_path: Path, saved: Any) -> None:
    tf.saved_model.save(Rounding(), tmp_path / "rounding")
    backend, x = open_saved_model(tmp_path / "rounding"), batch(2, 6, 5, 2)
    with pytest.raises((LayerNotFoundError, UnsupportedOpError), match="gradient"):
        backend.capture(x, layer="before")
    backend, x = open_saved_model(saved(segmenter())), batch(2, 8, 10, 3)
    with pytest.raises(LayerNotFoundError, match="body"):
        backend.capture(x, layer="bodi")
    with pytest.raises(LayerNotFoundError, match="out of range"):
        backend.capture(x, layer=99)
    with pytest.raises(InvalidInputError, match="NaN"):
        backend.capture(np.full_like(x, np.nan), layer="body", target=tf.reduce_sum)
    with pytest.raises(InvalidInputError, match=r"the model takes \(N, 8, 10, 3\)"):
        backend.capture(x[:, :5], layer="body", target=tf.reduce_sum)
