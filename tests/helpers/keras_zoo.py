"""Writes a Keras classifier to an ``.onnx`` file, and beside it what TensorFlow says of gradients.

``python tests/helpers/keras_zoo.py MobileNetV2 FOLDER [--side 96]`` is run in a process of its own:
TensorFlow warns of what is not ours, and cfcam's ONNX path must not need it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

LAYERS = {
    "MobileNetV2": ("out_relu", "block_2_add"),
    "ResNet50": ("conv5_block3_out", "conv2_block3_out"),
    "EfficientNetB0": ("top_activation", "block2b_add"),
}
"""Of each network the layer that should be the default, and an early one."""

TARGETS = [[3], [7]]


def built(name: str, side: int) -> Any:
    """Build a classifier with seeded weights; batch norms have the statistics of random images."""
    keras.utils.set_random_seed(0)
    model = bare(name, side)
    rng = np.random.default_rng(0)
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.1, norm.beta.shape))
        norm.momentum = 0.0
    model(images(8, side), training=True)
    for norm in norms:  # a channel that hardly varies would blow up rounding
        variance = norm.moving_variance.numpy()
        norm.moving_variance.assign(variance + 0.1 * variance.mean())
    return model


def bare(name: str, side: int) -> Any:
    return getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3))


def images(samples: int, side: int) -> Any:
    """Return coarse patches of colour under noise, from 0 to 255, channels last."""
    rng = np.random.default_rng(1)
    coarse = tf.image.resize(rng.uniform(0, 255, (samples, 5, 5, 3)), (side, side), "nearest")
    noise = rng.uniform(0, 255, (samples, side, side, 3))
    return tf.cast(0.7 * tf.cast(coarse, tf.float64) + 0.3 * noise, tf.float32)


def reference(model: Any, x: Any, layer: str) -> dict[str, np.ndarray]:
    """Differentiate the logit of a class a sample with respect to a layer's output."""
    model.layers[-1].activation = keras.activations.linear  # the logits behind the soft-max
    probe = keras.Model(model.inputs, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        tape.watch(x)
        activations, logits = probe(x, training=False)
        chosen = tf.reduce_sum(tf.gather(logits, TARGETS, axis=1, batch_dims=1))
    gradients = tape.gradient(chosen, activations)
    return {"activations": activations, "gradients": gradients, "scores": logits}


def write(name: str, side: int, folder: Path) -> None:
    """Export by Keras itself and by tf2onnx, with the gradients at both layers beside them."""
    import tf2onnx

    model, x = built(name, side), images(2, side)
    model.export(folder / f"{name}-keras.onnx", format="onnx", verbose=False)
    signature = (tf.TensorSpec((None, side, side, 3), tf.float32, name="images"),)
    tf2onnx.convert.from_function(
        tf.function(lambda images: model(images, training=False)),
        input_signature=signature,
        opset=17,
        output_path=folder / f"{name}-tf2onnx.onnx",
    )
    keras.config.set_dtype_policy("float64")
    twin = bare(name, side)
    twin.set_weights(model.get_weights())
    found = {"x": x.numpy(), "layers": np.array(LAYERS[name])}
    found["parameters"] = np.array(model.count_params())
    for label, layer in zip(("last", "early"), LAYERS[name], strict=True):
        found |= {f"{label}_{k}": v.numpy() for k, v in reference(model, x, layer).items()}
        exact = reference(twin, tf.cast(x, tf.float64), layer)["gradients"]
        found[f"{label}_gradients64"] = exact.numpy()
    np.savez(folder / f"{name}.npz", **found)


def main() -> None:
    """Write one network."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=LAYERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=224)
    arguments = parser.parse_args()
    write(arguments.name, arguments.side, arguments.folder)


if __name__ == "__main__":
    main()
