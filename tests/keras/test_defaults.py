"""Which layer is explained if none is named, and which are listed."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras_models import SHAPE, batch

import cfcam_core as cfcam

L = keras.layers

DEFAULTS = {
    "MobileNetV2": (96, "out_relu"),
    "ResNet50": (96, "conv5_block3_out"),
    "EfficientNetB0": (96, "top_activation"),
    "VGG16": (96, "block5_conv3"),
    "DenseNet121": (96, "relu"),
    "InceptionV3": (150, "mixed10"),
    "Xception": (96, "block14_sepconv2_act"),
}
"""Of each network a side on which its last map has at least three positions, and the default."""


@pytest.mark.parametrize("name", DEFAULTS)
def test_keras_applications(name: str) -> None:
    side, wanted = DEFAULTS[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=7)
    backend = cfcam.open_model(model)
    layers = backend.layers()
    assert [one.name for one in layers if one.is_default] == [wanted]
    assert backend.logits_behind == ("softmax",)
    assert backend.classes == 7


def test_all_paths_run_through_what_is_listed() -> None:
    model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=3)
    names = [one.name for one in cfcam.open_model(model).layers()]
    assert "conv2_block1_add" in names
    assert "conv2_block1_out" in names
    assert "pool1_pool" in names
    assert "conv2_block1_1_conv" not in names
    assert "conv2_block2_3_bn" not in names


def test_transfer_learning_with_preprocessing_in_front() -> None:
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    base.trainable = False
    model = keras.Sequential(
        [
            keras.Input((96, 96, 3)),
            L.RandomFlip(),
            L.Rescaling(1 / 127.5, offset=-1),
            base,
            L.GlobalAveragePooling2D(),
            L.Dropout(0.3),
            L.Dense(2, activation="softmax"),
        ]
    )
    backend = cfcam.open_model(model)
    x = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), np.uint8)
    found = backend.capture(x)
    assert (found.layer, found.activations.shape) == (base.name, (2, 1280, 3, 3))
    inner = backend.capture(x, layer="out_relu")
    assert inner.layer == f"{base.name}/out_relu"
    np.testing.assert_array_equal(inner.gradients, found.gradients)


def test_pools_paddings_and_moves_are_listed_but_not_the_default() -> None:
    model = keras.Sequential(
        [
            keras.Input((24, 20, 3)),
            L.Conv2D(4, 3, name="conv"),
            L.MaxPooling2D(name="pool"),
            L.ZeroPadding2D(name="pad"),
            L.Dropout(0.2, name="drop"),
            L.Permute((2, 1, 3), name="turned"),
            L.Flatten(),
            L.Dense(3),
        ]
    )
    layers = cfcam.open_model(model).layers()
    assert [one.name for one in layers] == ["conv", "pool", "pad", "turned"]
    assert [one.name for one in layers if one.is_default] == ["conv"]


class Residual(keras.Model):
    """What goes past a layer is not seen, only its effect."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.stem = L.Conv2D(4, 3, padding="same", name="stem")
        self.side = L.Conv2D(4, 3, padding="same", name="side")
        self.after = L.Conv2D(4, 3, padding="same", name="after")
        self.head, self.scale = L.Dense(3), scale

    def call(self, x: Any) -> Any:
        x = self.stem(x)
        x = self.after(self.scale * x + self.side(x))
        return self.head(keras.ops.mean(x, axis=(1, 2)))


@pytest.mark.parametrize(("scale", "listed"), [(1.0, False), (0.0, True)])
def test_what_goes_past_a_layer_unseen_is_found_by_trial(*, scale: float, listed: bool) -> None:
    names = [one.name for one in cfcam.open_model(Residual(scale), example=batch()).layers()]
    assert names == (["stem", "side", "after"] if listed else ["stem", "after"])


def test_only_one_of_two_outputs_counts() -> None:
    x = keras.Input(SHAPE)
    stem = L.Conv2D(4, 3, name="stem")(x)
    left = L.Conv2D(4, 3, name="left")(stem)
    right = L.Conv2D(4, 3, name="right")(stem)
    heads = [L.Dense(3)(L.GlobalAveragePooling2D()(one)) for one in (left, right)]
    model = keras.Model(x, heads)
    for output, wanted in ((0, "left"), (1, "right"), (model.output_names[1], "right")):
        layers = cfcam.open_model(model, output=output).layers()
        assert [one.name for one in layers] == ["stem", wanted]


def test_no_map_at_all() -> None:
    model = keras.Sequential([keras.Input((8,)), L.Dense(3)])
    backend = cfcam.open_model(model)
    assert backend.layers() == ()
    with pytest.raises(cfcam.errors.LayerNotFoundError, match="no layer with a spatial grid"):
        backend.capture(np.ones((2, 8)))
    with pytest.raises(cfcam.errors.LayerNotFoundError, match="is no picture or signal of floats"):
        backend.capture(np.ones((2, 8)), layer="input")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_signals_pictures_and_volumes_of_any_size(axes: int) -> None:
    conv = getattr(L, f"Conv{axes}D")
    pool = getattr(L, f"GlobalAveragePooling{axes}D")
    x = keras.Input((*(None,) * axes, 2))
    y = conv(5, 3, activation="relu", name="last")(conv(4, 3, strides=2, name="first")(x))
    backend = cfcam.open_model(keras.Model(x, L.Dense(3)(pool()(y))))
    assert [one.shape for one in backend.layers()][-1] == (None, *(None,) * axes, 5)
    size = (17, 15, 13)[:axes]
    found = backend.capture(np.random.default_rng(0).standard_normal((2, *size, 2)))
    assert found.activations.shape == (2, 5, *((n - 3) // 2 - 1 for n in size))
    assert found.input_size == size
    single = backend.capture(np.ones((*size, 2)))
    assert len(single.activations) == 1


@pytest.mark.parametrize("kind", ["pictures", "words", "pairs"])
def test_masks_are_no_paths(kind: str) -> None:
    if kind == "pictures":
        x = keras.Input((20, 3))
        masked = L.Masking(name="masked")(x)
    else:
        x = keras.Input((20,), dtype="int32")
        masked = L.Embedding(30, 4, mask_zero=True, name="masked")(x)
    y = L.LSTM(4, return_sequences=True, name="first")(masked)
    model = keras.Model(x, L.Dense(3)(L.LSTM(5)(y)))
    example = np.random.default_rng(0).integers(1, 2 if kind == "pairs" else 30, (2, 20, 3))
    example[:, 12:] = 0
    inputs = example if kind == "pictures" else example[..., 0]
    layers = cfcam.open_model(model, example=inputs).layers()
    assert [(one.name, one.is_default) for one in layers] == [("masked", False), ("first", True)]


def test_channels_that_are_moved_first() -> None:
    x = keras.Input((3, 14, 11))
    maps = L.Conv2D(4, 3, name="maps")(L.Permute((2, 3, 1))(x))
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(maps)))
    backend, inputs = cfcam.open_model(model), batch(2, (3, 14, 11))
    assert backend.input_layout == "channels_first"
    found = backend.captures(inputs, layers=["maps", "input"])
    assert [one.input_size for one in found] == [(14, 11), (14, 11)]
    np.testing.assert_array_equal(found[1].activations, inputs)
