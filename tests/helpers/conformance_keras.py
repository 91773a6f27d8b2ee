"""The golden nets in Keras, functional and subclassed, on each of its three backends."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from conformance_nets import Framework, Net

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", JAX_PLATFORMS="cpu")


def functional(engine: str = "tensorflow") -> Framework:
    os.environ["KERAS_BACKEND"] = engine  # read when Keras is imported
    import keras

    assert keras.backend.backend() == engine
    return Framework(
        functional_model,
        tensor=keras.ops.convert_to_tensor,
        part=lambda model, name: model.get_layer(name),
        channels_last=True,
    )


def subclassed() -> Framework:
    return replace(functional(), build=subclassed_model, randomises=False)


def on_torch() -> Framework:
    import torch

    torch.set_num_threads(1)
    return functional("torch")


def on_jax() -> Framework:
    return functional("jax")


def parts(net: Net, *, softmax: bool) -> dict[str, Any]:
    """Return the layers by name, and beside them the weights that they will get."""
    from keras import layers

    def kind(name: str) -> Any:
        return getattr(layers, f"{name}{net.axes}D")

    def conv(name: str, weights: str, **how: Any) -> Any:
        return kind("Conv")(len(net.weights(weights)[1]), 3, name=name, **how)

    return {
        "stem": conv("stem", "stem", strides=2),
        "skip": layers.ReLU(name="skip"),
        "inner_in": conv("inner_in", "inner", padding="same"),
        "inner": layers.ReLU(name="inner"),
        "block": layers.Add(name="block"),
        "pooled": kind("AveragePooling")(net.pool, name="pooled"),
        "last_in": conv("last_in", "last", padding="same"),
        "last": layers.ReLU(name="last"),
        "means": kind("GlobalAveragePooling")(name="means"),
        "dense": layers.Dense(
            len(net("weights/dense_b")), activation="softmax" if softmax else None, name="dense"
        ),
    }


def run(p: dict[str, Any], x: Any) -> Any:
    skip = p["skip"](p["stem"](x))
    x = p["pooled"](p["block"]([skip, p["inner"](p["inner_in"](skip))]))
    return p["dense"](p["means"](p["last"](p["last_in"](x))))


def fill(p: dict[str, Any], net: Net) -> None:
    for name, weights in {"stem": "stem", "inner_in": "inner", "last_in": "last"}.items():
        kernel, bias = net.weights(weights)
        p[name].set_weights([np.moveaxis(kernel, (0, 1), (-1, -2)), bias])
    kernel, bias = net.weights("dense")
    p["dense"].set_weights([kernel.T, bias])


def functional_model(net: Net, *, softmax: bool) -> Any:
    import keras

    p, x = parts(net, softmax=softmax), keras.Input((*net.x.shape[2:], net.x.shape[1]))
    model = keras.Model(x, run(p, x))
    fill(p, net)
    return model


def subclassed_model(net: Net, *, softmax: bool) -> Any:
    import keras

    class Residual(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in parts(net, softmax=softmax).items():
                setattr(self, name, layer)

        def call(self, x: Any) -> Any:
            return run(vars(self), x)

    model = Residual()
    model(np.moveaxis(net.x, 1, -1))
    fill({name: getattr(model, name) for name in parts(net, softmax=softmax)}, net)
    return model
