"""The golden nets in Flax NNX, for the example of a plugin."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from conformance_nets import Framework, Net

os.environ["JAX_PLATFORMS"] = "cpu"  # read when JAX is imported

import jax.numpy as jnp
from flax import nnx


def framework() -> Framework:
    return Framework(
        build,
        tensor=jnp.asarray,
        part=getattr,
        channels_last=True,
        looks_through=False,
        several_layers=False,
        randomises=False,
    )


class Relu(nnx.Module):
    def __call__(self, x: Any) -> Any:
        return nnx.relu(x)


class Sum(nnx.Module):
    def __call__(self, a: Any, b: Any) -> Any:
        return a + b


class Residual(nnx.Module):
    def __init__(self, net: Net, *, softmax: bool) -> None:
        self.stem = conv(net, "stem", strides=2, padding="VALID")
        self.inner_in, self.inner = conv(net, "inner"), Relu()
        self.skip, self.block = Relu(), Sum()
        self.last_in, self.last = conv(net, "last"), Relu()
        kernel, bias = net.weights("dense")
        self.dense = filled(nnx.Linear(*reversed(kernel.shape), rngs=nnx.Rngs(0)), kernel.T, bias)
        self.cells, self.softmax = (net.pool,) * net.axes, softmax

    def __call__(self, x: Any) -> Any:
        skip = self.skip(self.stem(x))
        x = self.block(skip, self.inner(self.inner_in(skip)))
        x = self.last(self.last_in(nnx.avg_pool(x, self.cells, strides=self.cells)))
        logits = self.dense(x.mean(axis=tuple(range(1, x.ndim - 1))))
        return nnx.softmax(logits) if self.softmax else logits


def conv(net: Net, part: str, **how: Any) -> nnx.Module:
    kernel, bias = net.weights(part)
    outputs, inputs, *size = kernel.shape
    made = nnx.Conv(inputs, outputs, tuple(size), rngs=nnx.Rngs(0), **how)
    return filled(made, np.moveaxis(kernel, (0, 1), (-1, -2)), bias)


def filled(layer: Any, kernel: Any, bias: Any) -> Any:
    layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
    return layer


def build(net: Net, *, softmax: bool) -> nnx.Module:
    return Residual(net, softmax=softmax)
