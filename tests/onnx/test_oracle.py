"""Gradients of small nets against onnx-ad, which shares no line with ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from other_gradients import gradient_by_onnx_ad
from whole_models import images, opened


def residual(n: Any, x: str) -> str:
    """Strides, groups, a gate by squeeze and excitation, two kinds of pooling."""
    stem = n.add("Softplus", n.conv(x, 4, 8, strides=[2, 2]))
    inner = n.add("Add", stem, n.add("Tanh", n.conv(stem, 2, 8, group=4)))
    gate = n.add("Sigmoid", n.conv(n.add("GlobalAveragePool", inner), 8, 8, 1))
    pooled = n.add("AveragePool", n.add("Mul", inner, gate), kernel_shape=[3, 3], pads=[1] * 4)
    return n.head(n.add("MaxPool", pooled, kernel_shape=[2, 2]), 8)


def dense(n: Any, x: str) -> str:
    norm = [n.normal(4), n.normal(4), n.normal(4), np.abs(n.normal(4)) + 0.5]
    more = n.conv(n.add("Elu", n.add("BatchNormalization", x, *norm)), 4, 4)
    return n.head(n.add("LRN", n.add("Concat", x, more, axis=1), size=3, alpha=0.1), 8)


def transformer(n: Any, x: str) -> str:
    """One block with one head: LayerNormalization, Softmax, Gelu written out, Gather at the end."""
    tokens = n.add("Transpose", n.add("Reshape", x, np.array([0, 4, -1])), perm=[0, 2, 1])
    normed = n.add("LayerNormalization", tokens, n.normal(4), n.normal(4))
    q, k, v = (n.add("MatMul", normed, n.normal(4, 4)) for _ in range(3))
    scores = n.add("Softmax", n.add("MatMul", q, n.add("Transpose", k, perm=[0, 2, 1])))
    tokens = n.add("Add", tokens, n.add("MatMul", scores, v))
    wide = n.add("MatMul", tokens, n.normal(4, 8))
    erf = n.add("Add", n.add("Erf", n.add("Div", wide, np.float32(2**0.5))), np.float32(1))
    bent = n.add("Mul", n.add("Mul", wide, erf), np.float32(0.5))
    first = n.add("Gather", bent, np.array(0), axis=1)
    return n.add("Gemm", first, n.normal(8, 5), n.normal(5))


def upsampling(n: Any, x: str) -> str:
    grown = n.add("ConvTranspose", x, n.normal(4, 3, 2, 2), strides=[2, 2])
    parts = n.add("Split", grown, np.array([1, 2]), axis=1, outputs=2)
    both = n.add("Concat", n.add("Sin", parts), n.add("Exp", f"{parts}_1"), axis=1)
    cut = n.add("Slice", both, np.array([1]), np.array([-2]), np.array([2]))
    return n.head(n.add("Pad", cut, np.array([0, 0, 1, 0, 0, 0, 0, 2])), 3)


NETS: dict[str, Callable[[Any, str], str]] = {
    "residual": residual,
    "dense": dense,
    "transformer": transformer,
    "upsampling": upsampling,
}


@pytest.mark.parametrize("name", NETS)
def test_gradient_is_that_of_onnx_ad(net: Any, name: str) -> None:
    n = net("N", 3, 10, 8)
    a = n.add("Tanh", n.conv(n.x, 3, 4), name="a")
    model = n.model(NETS[name](n, a))
    x = images(3, 3, 10, 8)
    capture = opened(model).capture(x, layer="a", target=2)
    wanted = gradient_by_onnx_ad(model, capture, x, 2)
    assert np.abs(wanted).max() > 1e-4
    np.testing.assert_allclose(
        capture.gradients, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max()
    )


def test_attention_may_be_one_operator(net: Any) -> None:
    """ONNX's own, since operator set 23, is written out; the judge is the same by hand."""
    found = []
    for whole in (True, False):
        n = net("N", 6, 4, 4)
        a = n.add("Tanh", n.conv(n.x, 6, 6), name="a")
        tokens = n.add("Transpose", n.add("Reshape", a, np.array([0, 6, -1])), perm=[0, 2, 1])
        q, k, v = (n.add("MatMul", tokens, n.normal(6, 6)) for _ in range(3))
        if whole:
            y = n.add("Attention", q, k, v, q_num_heads=2, kv_num_heads=2)
        else:
            heads = [n.add("Reshape", t, np.array([0, -1, 2, 3])) for t in (q, k, v)]
            q, k, v = (n.add("Transpose", t, perm=[0, 2, 1, 3]) for t in heads)
            scores = n.add("MatMul", q, n.add("Transpose", k, perm=[0, 1, 3, 2]))
            weights = n.add("Softmax", n.add("Mul", scores, np.float32(3**-0.5)))
            y = n.add("Transpose", n.add("MatMul", weights, v), perm=[0, 2, 1, 3])
            y = n.add("Reshape", y, np.array([0, -1, 6]))
        logits = n.add("MatMul", n.add("ReduceMean", y, np.array([1]), keepdims=0), n.normal(6, 5))
        backend = opened(n.model(logits, opset=23, ir=10))
        x = np.random.default_rng(0).standard_normal((3, 6, 4, 4))
        found.append(backend.capture(x, layer="a", target=1).gradients)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-8)
