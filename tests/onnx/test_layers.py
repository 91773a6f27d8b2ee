"""Layers: which are listed, which is the default, how one is named; channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from whole_models import CLOSE, default_of, images, numeric_gradient, opened

from cfcam_core import LayerNotFoundError


def test_layers_are_the_cut_points(small: Any) -> None:
    layers = opened(small()).layers()
    names = [layer.name for layer in layers]
    assert names == ["conv0", "stem", "block", "gated", "conv9", "last"]  # not inner, not gate
    assert [layer.shape for layer in layers][-1] == (None, 6, 6, 5)
    assert [layer.kind for layer in layers] == ["Conv", "Tanh", "Add", "Mul", "Conv", "Softplus"]
    assert [layer.name for layer in layers if layer.is_default] == ["last"]


@pytest.mark.parametrize(
    ("size", "after", "wanted"),
    [
        (8, [("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})], "unit"),
        (8, [("AveragePool", {"kernel_shape": [2, 2]}), ("Dropout", {})], "unit"),
        (3, [("Relu", {})], "relu2"),
        (2, [("Relu", {})], "relu2"),
    ],
)
def test_default_layer_is_before_pools(
    net: Any, size: int, after: list[tuple[str, dict[str, Any]]], wanted: str
) -> None:
    n = net("N", 3, size, size)
    x = n.add("Relu", n.conv(n.x, 3, 4), name="unit")
    for op, attrs in after:
        x = n.add(op, x, **attrs)
    assert default_of(opened(n.model(n.head(x, 4)))) == wanted


def test_default_layer_prefers_three_by_three(net: Any) -> None:
    n = net("N", 3, 6, 6)
    fine = n.add("Relu", n.conv(n.x, 3, 4, strides=[2, 2]), name="fine")
    coarse = n.add("Relu", n.conv(fine, 4, 4, strides=[2, 2]), name="coarse")
    single = n.add("Relu", n.conv(coarse, 4, 4, strides=[2, 2]), name="single")
    backend = opened(n.model(n.head(single, 4)))
    assert default_of(backend) == "fine"
    assert "single" not in [layer.name for layer in backend.layers()]  # a grid of 1 x 1
    assert backend.capture(images(1, 3, 6, 6), layer="single").gradients.shape == (1, 4, 1, 1)


def test_default_layer_is_before_maps_of_single_classes(net: Any) -> None:
    n = net("N", 3, 6, 6)
    mixed = n.add("Relu", n.conv(n.x, 3, 4), name="mixed")
    maps = n.add("Relu", n.conv(mixed, 4, 5, 1))
    backend = opened(n.model(n.add("Flatten", n.add("GlobalAveragePool", maps))))
    assert default_of(backend) == "mixed"


def test_a_model_without_spatial_layers(net: Any) -> None:
    n = net("N", 7)
    backend = opened(n.model(n.add("MatMul", n.add("Relu", n.x), n.normal(7, 5))))
    assert backend.layers() == []
    with pytest.raises(LayerNotFoundError, match="no layer with spatial axes"):
        backend.capture(images(2, 7))


def test_a_layer_by_name_node_index_or_itself(small: Any) -> None:
    backend, x = opened(small()), images()
    wanted = backend.capture(x, layer="gated")
    for layer in ("node_gated", 3, -3, np.int64(3), backend.layers()[3]):
        capture = backend.capture(x, layer=layer)
        assert capture.layer == "gated"
        np.testing.assert_array_equal(capture.gradients, wanted.gradients)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("gatd", "no layer 'gatd'; the closest names are gated"),
        ("something else", "the closest names are "),
        (6, "layer 6 is out of range: the model has 6 layers"),
        (-7, "out of range"),
        (2.5, "a float; pass a name, an index or None"),
        (True, "a bool"),
        ("flatten12", r"float32 of shape \(N, 6\); wanted a float tensor"),
        ("dead", "the logits do not depend on layer 'dead'"),
    ],
)
def test_a_layer_that_is_not_there(net: Any, small: Any, layer: Any, message: str) -> None:
    model = small()
    model.graph.node.append(onnx.helper.make_node("Relu", ["stem"], ["dead"]))
    with pytest.raises(LayerNotFoundError, match=message):
        opened(model).capture(images(), layer=layer)


def test_layers_without_a_gradient_are_not_listed(net: Any) -> None:
    n = net("N", 3, 8, 8)
    first = n.add("Relu", n.conv(n.x, 3, 4), name="first")
    summed = n.add("CumSum", first, np.array(2), name="summed")
    last = n.add("Relu", n.conv(summed, 4, 4, name="conv"), name="last")
    backend = opened(n.model(n.head(last, 4)))
    assert [layer.name for layer in backend.layers()] == ["summed", "conv", "last"]
    assert default_of(backend) == "last"
    assert backend.capture(images(1, 3, 8, 8), layer=0).layer == "summed"


def test_a_zero_gradient_stops_what_lies_before_it(net: Any) -> None:
    """Behind Round there is a gradient; an operator without a rule before it does not matter."""
    n = net("N", 3, 8, 8)
    first = n.add("Relu", n.conv(n.x, 3, 4), name="first")
    whole = n.add("Round", n.add("CumSum", first, np.array(2)), name="whole")
    backend = opened(n.model(n.head(n.conv(whole, 4, 4, name="conv"), 4)))
    assert [layer.name for layer in backend.layers()] == ["whole", "conv"]


# ------------------------------------------------------------------------------------ channels last


def test_channels_last(net: Any) -> None:
    """H, W and C all differ, inside and outside; the twin is the same net with channels first."""
    n = net("N", 12, 10, 3)
    x = n.add("Transpose", n.x, perm=[0, 3, 1, 2])
    unit = n.add("Tanh", n.conv(x, 3, 7, strides=[2, 2]), name="unit")
    back = n.add("Transpose", unit, perm=[0, 2, 3, 1], name="back")
    last = n.add("Softplus", back, name="last")
    pooled = n.add("ReduceMean", last, axes=[1, 2], keepdims=0)
    dense = n.normal(7, 5)
    backend = opened(n.model(n.add("MatMul", pooled, dense)))
    assert backend.input_layout == "channels_last"
    assert backend.input_shape == (None, 12, 10, 3)
    assert default_of(backend) == "last"
    x_last = images(2, 12, 10, 3)
    capture = backend.capture(x_last, target=1)
    assert capture.activations.shape == (2, 7, 6, 5)
    assert capture.input_size == (12, 10)
    wanted = np.broadcast_to(dense[:, 1, None, None] / 30, (2, 7, 6, 5))
    np.testing.assert_allclose(capture.gradients, wanted, **CLOSE)
    for layer in ("unit", "back", "last"):
        slopes = numeric_gradient(backend, x_last, layer, 2)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)
    np.testing.assert_array_equal(
        backend.capture(x_last, layer="unit").activations,
        backend.capture(x_last, layer="back").activations,
    )
