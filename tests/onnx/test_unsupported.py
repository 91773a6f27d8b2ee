"""Operators without a gradient: all are named, with a layer that works where there is one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from cfcam_onnx._gradient import sweep
from onnx import TensorProto
from whole_models import images, opened

from cfcam_core import UnsupportedOpError


def test_all_unsupported_operators_are_listed_with_a_layer_that_works(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    flow = n.add("Tanh", n.conv(a, 4, 2, pads=[1] * 4))
    grid = n.add("Transpose", flow, perm=[0, 2, 3, 1])
    b = n.add("GridSample", n.add("GridSample", a, grid), grid, name="b")
    c = n.add("QuickGelu", b, name="c", domain="com.microsoft")
    d = n.add("Tanh", c, name="d")
    backend = opened(n.model(n.head(n.conv(d, 4, 4, name="e"), 4)))
    x = images(2, 3, 6, 6)
    with pytest.raises(UnsupportedOpError) as caught:
        backend.capture(x, layer="a")
    message = str(caught.value)
    assert re.search(r"GridSample \(2x, first at 'node_gridsample\d'\): no gradient rule;", message)
    assert "com.microsoft.QuickGelu (1x, first at 'node_c'): no gradient rule; pass" in message
    assert "The nearest later layer that works is 'c'" in message
    assert backend.capture(x, layer="c").gradients.any()
    assert backend.capture(x).layer == "e"  # what lies before the layer does not matter


def test_a_refused_attribute_is_named(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    roi, scales = np.zeros(8, np.float32), np.array([1, 1, 2, 2], np.float32)
    how = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    backend = opened(n.model(n.head(n.add("Resize", a, roi, scales, **how), 4)))
    with pytest.raises(UnsupportedOpError, match=r"Resize \(1x.*cropping"):
        backend.capture(images(2, 3, 6, 6), layer="a")


def test_an_output_that_has_no_rule(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    norm = n.add("LayerNormalization", a, n.normal(6), outputs=2)  # with the means
    model = n.model(n.head(n.add("Add", norm, f"{norm}_1"), 4))
    with pytest.raises(UnsupportedOpError, match="depend on an output other than the first"):
        opened(model).capture(images(2, 3, 6, 6), layer="a")


def test_no_gradient_for_a_computed_mean(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    mean = n.add("ReduceMean", n.add("Tanh", a), axes=[0, 2, 3], keepdims=0)
    norm = n.add("BatchNormalization", a, n.normal(4), n.normal(4), mean, np.ones(4, np.float32))
    with pytest.raises(UnsupportedOpError, match="no gradient with respect to input 3"):
        opened(n.model(n.head(norm, 4))).capture(images(1, 3, 6, 6), layer="a")


def recurrent(n: Any, x: str) -> str:
    """(N, 4, 8, 8) to (N, 4): an LSTM over rows; its output is no map."""
    steps = n.add("Transpose", n.add("Reshape", x, np.array([0, 0, -1])), perm=[2, 0, 1])
    out = n.add("LSTM", steps, n.normal(1, 16, 4), n.normal(1, 16, 4), hidden_size=4, outputs=2)
    return n.add("Squeeze", f"{out}_1", np.array([0]))


def test_no_later_layer_is_suggested_that_is_no_map(net: Any) -> None:
    n = net("N", 4, 8, 8)
    a = n.add("Relu", n.conv(n.x, 4, 4), name="a")
    rows = n.add("Reshape", a, np.array([0, 256]))
    bent = n.add("QuickGelu", rows, domain="com.microsoft")
    backend = opened(n.model(n.add("MatMul", bent, n.normal(256, 5))))
    message = r"QuickGelu \(1x.*No later layer works"
    with pytest.raises(UnsupportedOpError, match=message):
        backend.capture(images(1, 4, 8, 8), layer="a")


def test_a_model_in_which_no_layer_has_a_gradient(net: Any) -> None:
    n = net("N", 4, 8, 8)
    a = n.add("Relu", n.conv(n.x, 4, 4), name="a")
    backend = opened(n.model(n.add("MatMul", recurrent(n, a), n.normal(4, 5))))
    assert backend.layers() == []
    with pytest.raises(UnsupportedOpError, match=r"no layer can be explained: LSTM \(1x, first at"):
        backend.capture(images(1, 4, 8, 8))


def rounded(n: Any, x: str) -> str:
    whole = n.add("Cast", x, to=TensorProto.INT32)
    return n.add("Cast", n.add("Mul", whole, np.int32(2)), to=TensorProto.FLOAT)


def test_layers_before_integers_are_refused_with_the_reason(net: Any) -> None:
    n = net("N", 3, 8, 8)
    a = n.add("Relu", n.conv(n.x, 3, 4), name="a")
    b = n.conv(rounded(n, a), 4, 4, name="b")
    backend = opened(n.model(n.head(b, 4)))
    assert [layer.name for layer in backend.layers()] == ["cast4", "b"]
    message = (
        r"layer 'a' .*Cast \(1x, first at 'node_cast2'\): no gradient gets "
        r"through integers. The nearest later layer that works is 'cast4'"
    )
    with pytest.raises(UnsupportedOpError, match=message):
        backend.capture(images(1, 3, 8, 8), layer="a")
    n = net("N", 3, 8, 8)
    flat = n.add("Flatten", n.add("GlobalAveragePool", n.add("Relu", n.conv(n.x, 3, 4))))
    backend = opened(n.model(n.add("Gemm", rounded(n, flat), n.normal(4, 5))))
    assert backend.layers() == []
    with pytest.raises(UnsupportedOpError, match=r"no layer can be explained: Cast \(1x"):
        backend.capture(images(1, 3, 8, 8))


def test_the_advice_costs_few_sweeps(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    n = net("N", 3, 6, 6)
    x = n.conv(n.x, 3, 4, name="first")
    for _ in range(20):
        x = n.conv(x, 4, 4)
    bent = n.add("QuickGelu", x, name="bent", domain="com.microsoft")
    backend = opened(n.model(n.head(n.conv(bent, 4, 4), 4)))
    swept: list[str] = []

    def counted(emit: Any, targets: list[str], *rest: Any) -> Any:
        swept.extend(targets)
        return sweep(emit, targets, *rest)

    monkeypatch.setattr("cfcam_onnx._programs.sweep", counted)
    with pytest.raises(UnsupportedOpError, match="nearest later layer that works is 'bent'"):
        backend.capture(images(1, 3, 6, 6), layer="first")
    assert swept == ["first", "first"]
