"""Sizes that are open, stale, inferred wrongly or found by a trial run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from cfcam_onnx import Limits
from cfcam_onnx._graph import Graph
from cfcam_onnx._model import prepare
from onnx import numpy_helper
from whole_models import CLOSE, images, numeric_gradient, opened

from cfcam_core import InvalidInputError


@pytest.mark.parametrize(("shape", "kernel"), [(("N", 3, 16), 3), (("N", 3, 6, 5, 4), 3)])
def test_signals_and_volumes(net: Any, shape: tuple[Any, ...], kernel: int) -> None:
    n, axes = net(*shape), len(shape) - 2
    size = [kernel] * axes
    hidden = n.add("Conv", n.x, n.normal(4, 3, *size), pads=[1] * 2 * axes, name="hidden")
    last = n.add(
        "Conv", n.add("Tanh", hidden), n.normal(6, 4, *size), strides=[2] + [1] * (axes - 1)
    )
    backend = opened(n.model(n.head(last, 6)))
    x = images(2, *shape[1:])
    assert backend.capture(x).input_size == shape[2:]
    slopes = numeric_gradient(backend, x, "hidden", 1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


def test_open_image_size_is_probed_and_stays_open(net: Any) -> None:
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.conv(n.x, 3, 4, strides=[2, 2]), name="a")
    shape = n.add("Shape", a)
    batch = n.add("Slice", shape, np.array([0]), np.array([1]), np.array([0]))
    flat = n.add("Concat", batch, np.array([4, -1]), axis=0)
    pooled = n.add("ReduceMean", n.add("Reshape", a, flat), axes=[2], keepdims=0)
    backend = opened(n.model(n.add("MatMul", pooled, n.normal(4, 5))))
    assert backend.input_shape == (None, 3, None, None)
    assert [(s.name, s.shape, s.is_default) for s in backend.layers()][-2:] == [
        ("a", (None, 4, None, None), True),
        ("reshape5", (None, 4, None), False),
    ]
    for size in ((16, 12), (21, 33)):
        capture = backend.capture(images(2, 3, *size))
        assert capture.input_size == size
        assert capture.gradients.shape == (2, 4, -(-size[0] // 2), -(-size[1] // 2))
        slopes = numeric_gradient(backend, images(2, 3, *size), "a", 0)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


def test_one_image_size_although_declared_open(net: Any) -> None:
    n = net("N", 3, "H", "W")
    a = n.conv(n.x, 3, 2, strides=[16, 16], name="a")
    flat = n.add("Flatten", a)
    backend = opened(n.model(n.add("MatMul", flat, n.normal(2 * 14 * 14, 5))))
    assert backend.capture(images(1, 3, 224, 224)).activations.shape == (1, 2, 14, 14)
    assert backend.input_shape == (None, 3, 224, 224)
    with pytest.raises(InvalidInputError, match=r"the model takes \(N, 3, 224, 224\)"):
        backend.capture(images(1, 3, 100, 100))


def test_square_images_of_any_size(net: Any) -> None:
    n = net("N", 3, "H", "W")
    a = n.conv(n.x, 3, 4, strides=[8, 8], name="a")
    square = n.add("MatMul", a, a)  # needs as many rows as columns
    backend = opened(n.model(n.head(square, 4)))
    for size in (40, 64):
        assert backend.capture(images(2, 3, size, size)).input_size == (size, size)
        slopes = numeric_gradient(backend, images(2, 3, size, size), "a", 0)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-3)


@pytest.mark.parametrize("pool", ["AveragePool", "MaxPool"])
def test_a_pool_that_rounds_up(net: Any, pool: str) -> None:
    """Here onnx infers three windows and onnxruntime makes two."""
    n = net("N", 3, 4)
    how = {"kernel_shape": [2], "strides": [2], "pads": [0, 1], "ceil_mode": 1}
    pooled = n.add("Tanh", n.add(pool, n.add("Tanh", n.x, name="a"), **how), name="pooled")
    backend = opened(n.model(n.head(pooled, 3)))
    assert backend.layers()[-1].shape[1:] == (3, 2)
    x = 0.6 * (-1) ** np.arange(24) + np.arange(24) / 100  # neighbours lie far from a tie
    slopes = numeric_gradient(backend, x.reshape(2, 3, 4), "a", 0)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


SAME = {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}


@pytest.mark.parametrize(
    ("op", "how", "grid"),
    [
        ("Resize", {"mode": "linear"}, (8, 7)),
        ("MaxPool", {**SAME, "dilations": [2, 2]}, (10, 8)),
        ("AveragePool", {**SAME, "dilations": [2, 2]}, (10, 8)),
        ("ConvTranspose", {**SAME, "strides": [2, 2], "output_padding": [1, 1]}, (24, 20)),
    ],
)
def test_what_onnx_infers_wrongly(net: Any, op: str, how: Any, grid: tuple[int, ...]) -> None:
    """The image size is fixed, and onnxruntime makes other sizes of it than onnx says."""
    n = net("N", 4, 12, 10)
    more = {"Resize": ["", np.float32([1, 1, 0.7, 0.7])], "ConvTranspose": [n.normal(4, 4, 3, 3)]}
    a = n.add("Neg", n.x, name="a")
    b = n.add("Sin", n.add(op, a, *more.get(op, []), **how), name="b")
    model = n.model(n.head(b, 4), opset=19)
    assert Graph(prepare(model)).shape("b")[2:] != grid
    backend = opened(model)
    assert {layer.name: layer.shape for layer in backend.layers()}["b"] == (None, 4, *grid)
    far = np.random.default_rng(0).permutation(960) / 10 - 48  # no two lie close to a tie
    x = far.reshape(2, 4, 12, 10)
    for layer in ("a", "b") if op != "AveragePool" else ("b",):
        slopes = numeric_gradient(backend, x, layer, 0)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize("size", [(45, 53), (32, 64), (33, 50)])
def test_sizes_that_are_equal_only_where_they_divide_evenly(net: Any, size: Any) -> None:
    """Halved, doubled, and brought to the size it had, as in a U-Net."""
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.x, name="a")
    half = n.conv(a, 3, 3, strides=[2, 2], name="half")
    doubled = n.add("Resize", half, "", np.float32([1, 1, 2, 2]), mode="nearest", name="doubled")
    whole = n.add("Resize", doubled, "", "", n.add("Shape", a), mode="linear")
    backend, x = opened(n.model(n.head(n.add("Mul", whole, a), 3))), images(2, 3, *size)
    for layer in ("a", "half", "doubled"):
        slopes = numeric_gradient(backend, x, layer, 0)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


def test_resizing_that_no_trial_run_has_shown(net: Any) -> None:
    """Only what is larger than all sizes tried is brought down to 400."""
    n = net("N", 2, "H", "W")
    a = n.add("Tanh", n.x, name="a")
    sizes = n.add("Min", n.add("Shape", a), np.array(400))
    small = n.add("Tanh", n.add("Resize", a, "", "", sizes, mode="linear"))
    backend = opened(n.model(n.head(small, 2)))
    for size in ((410, 3), (3, 4)):
        slopes = numeric_gradient(backend, 9 * images(1, 2, *size), "a", 0)
        np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("strides", "kernel", "tried"),
    [(1, 1, "224|21|331"), (1, 40, "224|96|331"), (4, 1, "224|96|320"), (4, 40, "224|96|320")],
)
def test_what_a_model_refuses_is_not_tried_on(
    net: Any, strides: int, kernel: int, tried: str
) -> None:
    """A large window needs large images; a skip past strides needs sizes that divide evenly."""
    n = net("N", 3, "H", "W")
    down = n.conv(n.x, 3, 3, kernel_shape=[3, 3], strides=[strides] * 2)
    up = n.add("Resize", down, "", np.float32([1, 1, strides, strides]), mode="nearest")
    both = n.add("Add", up, n.x)
    pooled = n.add("AveragePool", both, kernel_shape=[kernel] * 2)
    backend = opened(n.model(n.head(n.add("Reshape", pooled, n.add("Shape", pooled)), 3)))
    assert backend._model.graph.shape("x")[:3] == ("N", 3, tried)
    assert backend._model.graph.sample_shape("x") == (2, 3, 224, 256)


def test_sizes_noted_in_the_file_may_be_stale(small: Any) -> None:
    """Somebody has opened the batch axis of the input, and of nothing else."""
    model = onnx.shape_inference.infer_shapes(small(1, 3, 12, 10))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert model.graph.value_info[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 1
    backend, wanted = opened(model), opened(small())
    x = images()
    assert backend.layers() == wanted.layers()
    assert backend._model.batch is None  # not one by one
    np.testing.assert_array_equal(backend.capture(x).gradients, wanted.capture(x).gradients)


def test_what_depends_on_the_data_is_no_constant(net: Any) -> None:
    """On noise the maximum is always positive: the index looks fixed and is not."""
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.x, name="a")
    positive = n.add("Greater", n.add("ReduceMax", n.x, keepdims=0), np.float32(0))
    picked = n.add("Gather", a, n.add("Cast", positive, to=7), axis=1)
    pooled = n.add("ReduceMean", picked, axes=[2], keepdims=0)
    logits = n.add("MatMul", n.add("ReduceMean", pooled, axes=[1], keepdims=1), n.normal(1, 5))
    backend = opened(n.model(logits))
    for sign, row in ((1, 1), (-1, 0)):
        gradients = backend.capture(sign * np.ones((2, 3, 4, 5)), layer="a").gradients
        assert np.flatnonzero(gradients.any(axis=(0, 2, 3))).tolist() == [row]


@pytest.mark.parametrize(("bound", "limit"), [("Min", 100), ("Min", 28), ("Max", 300)])
def test_a_size_that_stays_within_bounds_is_no_constant(net: Any, bound: str, limit: int) -> None:
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.x, name="a")
    sizes = n.add("Slice", n.add("Shape", a), *map(np.array, ([2], [4], [0])))
    ends = n.add(bound, sizes, np.array(limit))
    part = n.add("Slice", a, np.array([0, 0]), ends, np.array([2, 3]))
    scaled = n.add("Mul", part, n.add("Cast", n.add("ReduceSum", ends), to=1))
    model = n.model(n.head(scaled, 3))
    backend, x = opened(model), images(1, 3, 8, 10)
    capture = backend.capture(x, layer="a", target=0)
    weight = numpy_helper.to_array(model.graph.initializer[-2])[:, 0]
    factor = (18 if bound == "Min" else 600) / 80
    wanted = np.broadcast_to(factor * weight[:, None, None], (1, 3, 8, 10))
    np.testing.assert_allclose(capture.gradients, wanted, **CLOSE)
    assert backend._model.graph.value(ends) is None


def test_a_negative_size_is_an_open_one(net: Any) -> None:
    n = net(-1, 3, -1, -1)
    backend = opened(n.model(n.head(n.conv(n.x, 3, 4), 4)))
    assert backend.input_shape == (None, 3, None, None)
    assert backend.capture(images(2, 3, 8, 9)).gradients.shape == (2, 4, 8, 9)


def test_open_volumes(net: Any) -> None:
    n = net("N", 2, "D", "H", "W")
    a = n.add("Conv", n.x, n.normal(4, 2, 3, 3, 3), pads=[1] * 6, strides=[2] * 3, name="a")
    backend = opened(n.model(n.head(a, 4)))
    assert backend.input_shape == (None, 2, None, None, None)
    assert backend.layers()[-1].shape == (None, 4, None, None, None)
    for size in ((6, 8, 10), (3, 9, 7)):
        assert backend.capture(images(1, 2, *size)).input_size == size


def test_images_too_large_for_a_trial_run(net: Any) -> None:
    n = net("N", 3, "H", "W")
    model = n.model(n.head(n.add("Tanh", n.conv(n.x, 3, 4), name="a"), 4))
    backend = opened(model, limits=Limits(trial_sample=100))
    assert not backend._model.graph.samples
    slopes = numeric_gradient(backend, images(2, 3, 7, 8), "a", 0)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)
