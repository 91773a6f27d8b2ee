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


def rolled(n: Any, x: str) -> str:
    """Return the rows of `x` one on, as PyTorch exports it."""
    ends = [np.array([value]) for value in (1, 1 << 60, 2)]
    first = n.add("Slice", x, np.array([0]), np.array([1]), np.array([2]))
    return str(n.add("Concat", n.add("Slice", x, *ends), first, axis=2))


def padded_and_cut(n: Any, x: str) -> str:
    wide = n.add("Pad", x, np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    return str(n.add("Slice", wide, np.array([1, 1]), np.array([-1, -1]), np.array([2, 3])))


MOVES = {
    "rolled": rolled,
    "rolled and pooled": lambda n, x: n.add("MaxPool", rolled(n, x), kernel_shape=[2, 2]),
    "padded and cut": padded_and_cut,
    "channels shuffled": lambda n, x: n.add("Gather", x, np.array([3, 1, 0, 2]), axis=1),
}


@pytest.mark.parametrize("move", MOVES)
def test_default_layer_is_before_moves(net: Any, move: str) -> None:
    n = net("N", 3, 8, 8)
    moved = MOVES[move](n, n.add("Relu", n.conv(n.x, 3, 4), name="unit"))
    assert default_of(opened(n.model(n.head(moved, 4)))) == "unit"


def test_a_concatenation_of_branches_is_no_move(net: Any) -> None:
    n = net("N", 3, 8, 8)
    x = n.add("Relu", n.conv(n.x, 3, 4))
    both = n.add("Concat", n.conv(x, 4, 4), n.add("MaxPool", x, kernel_shape=[1, 1]), axis=1)
    n.add("Identity", both)
    assert default_of(opened(n.model(n.head(both, 8)))) == both


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


def test_a_picture_without_maps_explains_its_input(net: Any) -> None:
    """What the error says works."""
    n = net("N", 3, 4, 4)
    hidden = n.add("Tanh", n.add("MatMul", n.add("Flatten", n.x), n.normal(48, 7)))
    backend = opened(n.model(n.add("MatMul", hidden, n.normal(7, 5))))
    with pytest.raises(LayerNotFoundError, match=r'name a tensor .*or pass layer="input"'):
        backend.capture(images(2, 3, 4, 4))
    assert backend.capture(images(2, 3, 4, 4), layer="input").gradients.any()


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
        ("stem.0", "the closest names are stem, .*; this file holds no module paths"),
        ("/flatten", "the closest names are (?!.*flatten)"),
        (6, "layer 6 is out of range: the model has 6 layers, 0 to 5"),
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
    gated = n.add("QuickGelu", first, name="gated", domain="com.microsoft")
    last = n.add("Relu", n.conv(gated, 4, 4, name="conv"), name="last")
    backend = opened(n.model(n.head(last, 4)))
    assert [layer.name for layer in backend.layers()] == ["gated", "conv", "last"]
    assert default_of(backend) == "last"
    assert backend.capture(images(1, 3, 8, 8), layer=0).layer == "gated"


def test_a_zero_gradient_stops_what_lies_before_it(net: Any) -> None:
    """Behind Round there is a gradient; an operator without a rule before it does not matter."""
    n = net("N", 3, 8, 8)
    first = n.add("Relu", n.conv(n.x, 3, 4), name="first")
    whole = n.add("Round", n.add("QuickGelu", first, domain="com.microsoft"), name="whole")
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


def test_a_map_cut_out_of_tokens_keeps_its_channels_last(net: Any) -> None:
    """A norm says where the channels of (N, T, C) are; those of (N, H, W, C) follow from it."""
    n = net("N", 3, 14, 14)
    tokens = n.add("Reshape", n.conv(n.x, 3, 64, 2, strides=[2, 2], pads=[0] * 4), [0, 64, 49])
    normed = n.add("Transpose", tokens, perm=[0, 2, 1])
    normed = n.add("LayerNormalization", normed, n.normal(64), n.normal(64))
    maps = n.add("Tanh", n.add("Reshape", normed, [0, 7, 7, 64]), name="maps")
    flat = n.add("Flatten", n.add("Sub", maps, n.normal(7, 7, 64), name="last"))
    backend = opened(n.model(n.add("MatMul", flat, n.normal(49 * 64, 5))))
    assert default_of(backend) == "last"
    for layer in ("maps", "last"):
        assert backend.capture(images(1, 3, 14, 14), layer=layer).gradients.shape == (1, 64, 7, 7)


# ---------------------------------------------------------------------------------- several inputs


def test_layers_of_a_picture_beside_a_table(net: Any) -> None:
    """What joins late does not hide the picture's layers, whichever input comes first."""
    n = net("N", 7)
    picture = n.input("picture", "N", 3, 8, 8)
    last = n.add("Relu", n.conv(picture, 3, 4, name="conv"), name="last")
    pooled = n.add("Flatten", n.add("GlobalAveragePool", last))
    joined = n.add("Concat", pooled, n.add("Tanh", n.x), axis=1)
    backend = opened(n.model(n.add("MatMul", joined, n.normal(11, 5))))
    assert [layer.name for layer in backend.layers()] == ["conv", "last"]
    assert default_of(backend) == "last"
    feeds = {"x": images(2, 7), "picture": images(2, 3, 8, 8)}
    capture = backend.capture(feeds)
    assert capture.input_size == (8, 8)
    np.testing.assert_allclose(backend.scores_from(capture.activations, feeds), capture.scores)
    assert (backend.capture({**feeds, "x": feeds["x"] + 1}).scores != capture.scores).all()


def test_layers_of_two_pictures(net: Any) -> None:
    """Those of either are listed; the default is of the first."""
    n = net("N", 3, 8, 8)
    other = n.input("other", "N", 1, 6, 6)
    left = n.add("Relu", n.conv(n.x, 3, 4), name="left")
    right = n.add("Relu", n.conv(other, 1, 4), name="right")
    both = n.add("Add", n.head(left, 4), n.head(right, 4))
    backend = opened(n.model(both))
    assert {"left", "right"} < {layer.name for layer in backend.layers()}
    assert default_of(backend) == "left"
    feeds = {"x": images(2, 3, 8, 8), "other": images(2, 1, 6, 6)}
    assert backend.capture(feeds, layer="right").input_size == (6, 6)


def test_layers_behind_where_two_pictures_meet(net: Any) -> None:
    n = net("N", 3, 8, 8)
    other = n.conv(n.input("other", "N", 1, 8, 8), 1, 4)
    met = n.add("Add", n.conv(n.x, 3, 4), other)
    last = n.add("Relu", n.conv(met, 4, 4), name="last")
    assert default_of(opened(n.model(n.head(last, 4)))) == "last"
