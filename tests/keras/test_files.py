"""Models by path: Keras' own formats, older files, and what is none of these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras_models import SHAPE, batch, close, functional

import cfcam_core as cfcam
from cfcam_core.errors import InvalidInputError

L = keras.layers


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_saved_and_opened_by_path(tmp_path: Path, suffix: str) -> None:
    model, x = functional("softmax"), batch()
    model.compile("adam", "categorical_crossentropy")
    path = tmp_path / f"model{suffix}"
    model.save(path)
    content = path.read_bytes()
    found = cfcam.open_model(path).capture(x, target=1)
    wanted = cfcam.open_model(model).capture(x, target=1)
    close(found.gradients, wanted.gradients, 1e-6)
    assert cfcam.open_model(str(path)).logits_behind == ("softmax",)
    assert path.read_bytes() == content


def older(path: Path) -> None:
    """Write into a file what tf.keras 2 wrote of its layers besides."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] in {"DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose"}:
                layer["config"]["groups"] = 1
            if layer["class_name"] == "SeparableConv2D":
                layer["config"] |= {"kernel_initializer": {"class_name": "GlorotUniform"}}
                layer["config"] |= {"kernel_regularizer": None, "kernel_constraint": None}
        file.attrs["model_config"] = json.dumps(config)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_what_keras_2_wrote_besides(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            L.DepthwiseConv2D(3, name="deep"),
            L.SeparableConv2D(4, 3, name="apart"),
            L.Conv2DTranspose(3, 3, name="up"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )
    path = tmp_path / "model.h5"
    model.save(path)
    older(path)
    with pytest.raises(TypeError, match="groups"):
        keras.saving.load_model(path, compile=False)
    backend = cfcam.open_model(path)
    close(backend.scores(batch()), model(batch()).numpy(), 1e-6)
    assert [one.kind for one in backend.layers()] == [
        "DepthwiseConv2D",
        "SeparableConv2D",
        "Conv2DTranspose",
    ]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_files_that_are_none(tmp_path: Path) -> None:
    weights = tmp_path / "model.weights.h5"
    functional().save_weights(weights)
    with pytest.raises(InvalidInputError, match="weights alone are no model"):
        cfcam.open_model(weights)
    weights = weights.rename(tmp_path / "model.h5")
    with pytest.raises(InvalidInputError, match="weights alone are no model"):
        cfcam.open_model(weights)
    for suffix in (".keras", ".h5"):
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(b"nothing of the kind" * 100)
        with pytest.raises(InvalidInputError, match=r"damaged.* holds no model of Keras"):
            cfcam.open_model(damaged)
    with pytest.raises(InvalidInputError, match="there is no model file"):
        cfcam.open_model(tmp_path / "nowhere.keras")


def test_layers_of_ones_own_in_a_file(tmp_path: Path) -> None:
    class Own(L.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    model = keras.Sequential([keras.Input(SHAPE), Own(), L.GlobalMaxPooling2D(), L.Dense(2)])
    path = tmp_path / "own.keras"
    model.save(path)
    with pytest.raises(InvalidInputError, match=r"custom_objects=.*and pass the model"):
        cfcam.open_model(path)


def test_what_is_no_model_of_keras_3() -> None:
    two = type("Model", (), {"__module__": "tf_keras.src.engine.training"})()
    with pytest.raises(InvalidInputError, match=r"one of Keras 2 \(tf_keras\): save it as .h5"):
        cfcam.open_model(two, backend="keras")
    with pytest.raises(InvalidInputError, match="no model of Keras 3; pass a"):
        cfcam.open_model(3.5, backend="keras")
    import tensorflow as tf

    with pytest.raises(InvalidInputError, match="calls no Keras model"):
        cfcam.open_model(tf.function(lambda x: x + 1))


@pytest.mark.real
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_visual_wake_words(real_data: Path, suffix: str) -> None:
    backend = cfcam.open_model(real_data / "models" / f"vww_96.{suffix}")
    x = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
    found = backend.capture(x)
    assert (found.layer, found.activations.shape) == ("activation_26", (2, 256, 3, 3))
    assert backend.logits_behind == ("softmax",)
    assert backend.classes == 2
    twin = keras.saving.load_model(real_data / "models" / "vww_96.keras", compile=False)
    shares = np.exp(found.scores) / np.exp(found.scores).sum(axis=1, keepdims=True)
    close(shares, twin([x]).numpy(), 1e-4)
