"""Thousands of damaged models: each is explained or refused with an error of ours.

That the process survives is part of what is shown. The time limit of a run is short, so that no
mutant is waited for; a longer campaign is the same with other seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from cfcam_onnx import Limits
from mutating import damaged_bytes, damaged_model
from onnx import helper

import cfcam_core

LIMITS = Limits(trial_seconds=1, loop_seconds=1, memory=256 << 20)

ELEMENTS = 100_000
"""Numbers that an input may have; a larger one is not fed."""


def explained(model: Any) -> str:
    """Open and explain a model, and say how far that went."""
    reached = "refused"
    try:
        backend = cfcam_onnx.open_model(model, threads=1, cache=False, limits=LIMITS)
        reached = "opened"
        backend.layers()
        feeds = {}
        for one in backend._model.inputs:
            shape = [size or 12 for size in one.shape]
            if np.prod(shape, dtype=float) > ELEMENTS:
                return reached
            feeds[one.name] = np.ones(shape, one.dtype)
        backend.scores(feeds)
        backend.capture(feeds)
    except cfcam_core.CfcamError:
        return reached
    return "explained"


@pytest.fixture
def models(net: Any, small: Callable[..., onnx.ModelProto]) -> list[onnx.ModelProto]:
    """A residual net in three guises, one with arithmetic on shapes, and one with attention."""
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.conv(n.x, 3, 4, strides=[2, 2]))
    batch = n.add("Slice", n.add("Shape", a), np.array([0]), np.array([1]), np.array([0]))
    flat = n.add("Reshape", a, n.add("Concat", batch, np.array([4, -1]), axis=0))
    pooled = n.add("ReduceMean", flat, axes=[2], keepdims=0)
    shaped = n.model(n.add("MatMul", pooled, n.normal(4, 5)))
    n = net(2, 3, 8, 8)
    t = n.add("MatMul", n.add("Transpose", n.x, perm=[0, 2, 3, 1]), n.normal(3, 6))
    t = n.add("LayerNormalization", t, n.normal(6), n.normal(6), axis=-1)
    t = n.add("Reshape", t, np.array([0, 64, 6]))
    scaled = n.add("Softmax", n.add("MatMul", t, n.add("Transpose", t, perm=[0, 2, 1])), axis=-1)
    t = n.add("Gather", n.add("MatMul", scaled, t), np.array(0), axis=1)
    attending = n.model(n.add("Gemm", t, n.normal(6, 5), n.normal(5)))
    n = net("N", 3, 8, 8)
    a = n.add("MaxPool", n.add("Relu", n.conv(n.x, 3, 8)), kernel_shape=[2, 2])
    a = n.add("DepthToSpace", a, blocksize=2)
    a = n.add("Resize", a, "", np.float32([1, 1, 0.5, 0.5]), mode="linear")
    a = n.add("AveragePool", a, kernel_shape=[2, 2], pads=[1, 1, 0, 0])
    a = n.add("Pad", a, np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    resized = n.model(n.head(n.add("Clip", a, np.float32(0), np.float32(6)), 2), opset=16)
    return [small(), small(opset=9), small(closing="Softmax", opset=20), shaped, attending, resized]


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file(seed: int, models: list[onnx.ModelProto]) -> None:
    files = [model.SerializeToString() for model in models]
    found = Counter(
        explained(damaged_bytes(np.random.default_rng([seed, i]), files[i % len(files)]))
        for i in range(150)
    )
    assert found["explained"] > 0
    assert found["refused"] > found["explained"]


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_graph(seed: int, models: list[onnx.ModelProto]) -> None:
    found = Counter(
        explained(damaged_model(np.random.default_rng([seed, i]), models[i % len(models)]))
        for i in range(150)
    )
    assert found["explained"] > 0
    assert found["refused"] > found["explained"]


def test_an_operator_of_every_name(net: Any) -> None:
    """Each stands where a convolution could, with what the small nets have to offer."""
    names = sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})
    for name in names:
        for count in (0, 1, 2, 3):
            n = net("N", 3, 6, 6)
            n.nodes.append(helper.make_node(name, ["x"] * count, ["y"]))
            explained(n.model(n.head(n.add("Add", n.conv(n.x, 3, 3), "y"), 3)))
