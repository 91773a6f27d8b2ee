"""Whole models: gradients against slopes and torch, layers, logits, batches, threads."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from cfcam_onnx import OnnxBackend
from cfcam_onnx._gradient import sweep
from cfcam_onnx._graph import reads
from onnx import numpy_helper

from cfcam_core import Backend, InvalidInputError, LayerNotFoundError, UnsupportedOpError

RNG = np.random.default_rng(5)
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def images(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape or (3, 3, 12, 10)).astype(np.float32)


def opened(model: Any, **how: Any) -> OnnxBackend:
    return cfcam_onnx.open_model(model, threads=1, **how)


def numeric_gradient(backend: OnnxBackend, x: np.ndarray, layer: str, klass: int) -> np.ndarray:
    """Central differences of one logit and the gradient, both along a few random directions."""
    capture = backend.capture(x, layer=layer, target=klass)
    step, found = 1e-2, []
    for _ in range(8):
        v = RNG.standard_normal(capture.activations.shape).astype(np.float32)
        ahead = backend.scores_from(capture.activations + step * v, x, layer=layer)
        behind = backend.scores_from(capture.activations - step * v, x, layer=layer)
        slope = ((ahead - behind) / (2 * step))[:, klass]
        found.append([slope, (capture.gradients * v).reshape(len(x), -1).sum(axis=1)])
    return np.array(found)


# ---------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("layer", ["stem", "inner", "block", "gated", "last"])
def test_gradient_is_the_slope_of_the_logit(small: Any, layer: str) -> None:
    slopes = numeric_gradient(opened(small()), images(), layer, 2)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


@pytest.mark.parametrize("layer", ["x", "stem", "inner", "block", "gated", "last"])
def test_gradient_is_torch_autograd(small: Any, layer: str) -> None:
    model, x = small(), images()
    weights = [torch.tensor(numpy_helper.to_array(w)) for w in model.graph.initializer]
    f = torch.nn.functional
    seen = {"x": torch.tensor(x, requires_grad=True)}
    seen["stem"] = torch.tanh(f.conv2d(seen["x"], *weights[0:2], stride=2, padding=1))
    seen["inner"] = torch.sigmoid(f.conv2d(seen["stem"], *weights[2:4], padding=1, groups=4))
    seen["block"] = seen["stem"] + seen["inner"]
    gate = torch.sigmoid(f.conv2d(seen["block"].mean((2, 3), keepdim=True), *weights[4:6]))
    seen["gated"] = seen["block"] * gate
    seen["last"] = f.softplus(f.conv2d(seen["gated"], *weights[6:8]))
    logits = seen["last"].mean((2, 3)) @ weights[8] + weights[9]
    (wanted,) = torch.autograd.grad(logits[:, 3].sum(), seen[layer])
    capture = opened(model).capture(x, layer=layer, target=3)
    np.testing.assert_allclose(capture.gradients, wanted, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(capture.activations, seen[layer].detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(capture.scores, logits.detach(), rtol=1e-4, atol=1e-6)


def test_a_tensor_read_three_times_and_broadcast(net: Any) -> None:
    n = net("N", 4, 5, 6)
    a = n.add("Tanh", n.x, name="a")
    rows = n.add("ReduceMean", a, axes=[2], keepdims=1)  # (N, 4, 1, 6), broadcast back over rows
    both = n.add("Add", n.add("Mul", a, rows), n.add("Mul", a, a))
    backend = opened(n.model(n.head(both, 4)))
    slopes = numeric_gradient(backend, images(2, 4, 5, 6), "a", 1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


def test_an_empty_slice(net: Any) -> None:
    """A roll by nothing is exported as the join of an empty and a whole part."""
    n = net("N", 4, 5, 6)
    a = n.add("Tanh", n.x, name="a")
    nothing = n.add("Slice", a, *map(np.array, ([5], [3], [2])))
    backend = opened(n.model(n.head(n.add("Concat", nothing, a, axis=2), 4)))
    slopes = numeric_gradient(backend, images(2, 4, 5, 6), "a", 1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


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
    slopes = numeric_gradient(backend, np.arange(24.0).reshape(2, 3, 4) / 12 - 1, "a", 0)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


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


@pytest.mark.parametrize("bound", ["Min", "Max"])
def test_a_size_that_stays_within_bounds_is_no_constant(net: Any, bound: str) -> None:
    n = net("N", 3, "H", "W")
    a = n.add("Tanh", n.x, name="a")
    sizes = n.add("Slice", n.add("Shape", a), *map(np.array, ([2], [4], [0])))
    ends = n.add(bound, sizes, np.array(100 if bound == "Min" else 300))
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


def test_images_too_large_for_a_trial_run(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfcam_onnx._probe.LARGEST_SAMPLE", 100)
    n = net("N", 3, "H", "W")
    backend = opened(n.model(n.head(n.add("Tanh", n.conv(n.x, 3, 4), name="a"), 4)))
    slopes = numeric_gradient(backend, images(2, 3, 7, 8), "a", 0)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


def channels_shuffled(n: Any, x: str, channels: int) -> str:
    """ShuffleNet: Reshape by the batch that Shape reads, Transpose, Reshape back."""
    batch = n.add("Gather", n.add("Shape", x), np.array([0]), axis=0)
    apart = n.add("Concat", batch, np.array([2, channels // 2, -1, 6]), axis=0)
    together = n.add("Concat", batch, np.array([channels, -1, 6]), axis=0)
    turned = n.add("Transpose", n.add("Reshape", x, apart), perm=[0, 2, 1, 3, 4])
    return n.add("Reshape", turned, together)


def vgg(n: Any, x: str) -> str:
    x = n.add("MaxPool", n.add("Relu", n.conv(x, 6, 8)), kernel_shape=[2, 2], strides=[2, 2])
    x = n.add("Relu", n.add("Gemm", n.add("Flatten", x), n.normal(7, 72), n.normal(7), transB=1))
    return n.add("Gemm", n.add("Dropout", x), n.normal(7, 5), n.normal(5))


def squeezenet(n: Any, x: str) -> str:
    wide = n.add("Relu", n.conv(x, 6, 4)), n.add("Relu", n.conv(x, 6, 4, 1))
    x = n.add("Relu", n.conv(n.add("Dropout", n.add("Concat", *wide, axis=1)), 8, 5, 1))
    return n.add("Flatten", n.add("GlobalAveragePool", x))


def densenet(n: Any, x: str) -> str:
    norm = [n.normal(6), n.normal(6), n.normal(6), np.abs(n.normal(6)) + 0.5]
    more = n.conv(n.add("Relu", n.add("BatchNormalization", x, *norm)), 6, 4)
    x = n.add("Concat", x, more, axis=1)
    x = n.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return n.head(n.add("LRN", x, size=3, alpha=0.1), 10)


def mobilenet(n: Any, x: str) -> str:
    wide = n.add("HardSwish", n.conv(x, 6, 12, 1))
    deep = n.add("Clip", n.conv(wide, 1, 12, 5, group=12), np.float32(0), np.float32(6))
    small = n.conv(n.add("ReduceMean", deep, axes=[2, 3], keepdims=1), 12, 12, 1)
    deep = n.add("Mul", deep, n.add("HardSigmoid", small, alpha=1 / 6))
    return n.head(n.add("Add", x, n.conv(deep, 12, 6, 1)), 6)


def efficientnet(n: Any, x: str) -> str:
    padded = n.add("Pad", x, np.array([0, 0, 0, 0, 0, 0, 1, 1]))
    deep = n.conv(padded, 1, 6, 3, group=6, strides=[2, 2], pads=[0] * 4)
    return n.head(n.add("Mul", deep, n.add("Sigmoid", deep)), 6)


def convnext(n: Any, x: str) -> str:
    x = n.add("Transpose", n.conv(x, 1, 6, 7, group=6), perm=[0, 2, 3, 1])
    x = n.add("LayerNormalization", x, n.normal(6), n.normal(6))
    erf = n.add("Erf", n.add("Div", n.add("MatMul", x, n.normal(6, 12)), np.float32(2**0.5)))
    return n.head(n.add("Transpose", erf, perm=[0, 3, 1, 2]), 12)


def shufflenet(n: Any, x: str) -> str:
    left = n.add("Split", x, np.array([3, 3]), axis=1, outputs=2)
    x = n.add("Concat", left, n.conv(f"{left}_1", 3, 3), axis=1)
    return n.head(channels_shuffled(n, x, 6), 6)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize(
    "tail", [vgg, squeezenet, densenet, mobilenet, efficientnet, convnext, shufflenet]
)
def test_the_tails_of_known_families(net: Any, tail: Any, batch: Any) -> None:
    n = net(batch, 6, 6, 6)
    backend = opened(n.model(n.add("Identity", tail(n, n.add("Tanh", n.x, name="a")))))
    rng, step = np.random.default_rng(1), 1e-3
    x = rng.standard_normal((2, 6, 6, 6)).astype(np.float32)
    capture = backend.capture(x, layer="a", target=2)
    errors = []
    for _ in range(15):
        v = rng.standard_normal(x.shape).astype(np.float32)
        ahead, behind = (
            backend.scores_from(capture.activations + s * v, x, layer="a")[:, 2]
            for s in (step, -step)
        )
        errors += list((ahead - behind) / (2 * step) - (capture.gradients * v).sum((1, 2, 3)))
    # a unit may cross its kink within the step, but not in most directions
    assert np.median(np.abs(errors)) < 1e-3 * max(1, np.linalg.norm(capture.gradients))


def runtime_alone(model: Any, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize("scales_are", ["fixed", "computed"])
@pytest.mark.parametrize(
    ("opset", "mode", "factors"),
    [
        (9, "nearest", (2, 3)),
        (9, "linear", (2, 1.5)),
        (10, "nearest", (2, 1.25)),
        (10, "nearest", (0.5, 0.5)),
        (10, "nearest", (0.6, 0.4)),
        (10, "nearest", (1.7, 0.6)),
        (10, "linear", (0.6, 1.5)),
    ],
)
def test_resizes_from_before_operator_set_11(
    net: Any, opset: int, mode: str, factors: tuple[float, float], scales_are: str
) -> None:
    n = net("N", 3, 12, 10)
    a = n.add("Tanh", n.x, name="a")
    scales: Any = np.array([1, 1, *factors], np.float32)
    if scales_are == "computed":  # as torch writes it
        scales = n.add("Mul", n.add("Cast", n.add("Add", np.ones(4, int), 0), to=1), scales)
    sized = n.add("Upsample" if opset < 10 else "Resize", a, scales, mode=mode)
    places = int(12 * factors[0] + 1e-6) * int(10 * factors[1] + 1e-6)
    flat = n.add("Flatten", sized)
    model = n.model(n.add("Gemm", flat, n.normal(3 * places, 5), n.normal(5)), opset=opset)
    backend, x = opened(model), images()
    np.testing.assert_allclose(backend.scores(x), runtime_alone(model, x), rtol=1e-5, atol=1e-6)
    slopes = numeric_gradient(backend, x, "a", 2)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=5e-3)


# ------------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("closing", ["Softmax", "LogSoftmax"])
def test_logits_behind_a_closing_softmax(small: Any, closing: str, opset: int) -> None:
    x, plain = images(), opened(small()).capture
    backend = opened(small(closing=closing, opset=opset, ir=3 if opset < 9 else 8))
    assert backend.logits_behind == (closing,)
    assert opened(small()).logits_behind == ()
    np.testing.assert_allclose(backend.capture(x).gradients, plain(x).gradients, **CLOSE)
    np.testing.assert_allclose(backend.scores(x), plain(x).scores, rtol=1e-5, atol=1e-6)


def written_out(n: Any, x: str, *, shifted: bool) -> str:
    if shifted:
        x = n.add("Sub", x, n.add("ReduceMax", x, axes=[1], keepdims=1))
    e = n.add("Exp", x)
    return n.add("Div", e, n.add("ReduceSum", e, np.array([1]), keepdims=1))


CLOSINGS = {
    "sigmoid": (lambda n, x: n.add("Sigmoid", x), "Sigmoid"),
    "sigmoid, cast": (lambda n, x: n.add("Cast", n.add("Sigmoid", x), to=1), "Sigmoid"),
    "softmax, reshape": (
        lambda n, x: n.add("Reshape", n.add("Softmax", x), np.array([-1, 5])),
        "Softmax",
    ),
    "softmax, identity, dropout": (
        lambda n, x: n.add("Dropout", n.add("Identity", n.add("Softmax", x))),
        "Softmax",
    ),
    "4-D softmax": (
        lambda n, x: n.add("Softmax", n.add("Unsqueeze", x, np.array([2, 3])), axis=1),
        "Softmax",
    ),
    "4-D softmax, flatten": (
        lambda n, x: n.add(
            "Flatten", n.add("Softmax", n.add("Unsqueeze", x, np.array([2, 3])), axis=1)
        ),
        "Softmax",
    ),
    "written out": (lambda n, x: written_out(n, x, shifted=False), "Softmax"),
    "written out, shifted": (lambda n, x: written_out(n, x, shifted=True), "Softmax"),
}


@pytest.mark.parametrize("closing", CLOSINGS)
def test_logits_behind_other_closings(net: Any, closing: str) -> None:
    close, behind = CLOSINGS[closing]
    models = []
    for finish in (lambda _, x: x, close):
        n = net("N", 3, 8, 8)
        models.append(n.model(finish(n, n.head(n.add("Tanh", n.conv(n.x, 3, 4)), 4))))
    plain, backend = map(opened, models)
    x = images(2, 3, 8, 8)
    assert backend.logits_behind == (behind,)
    assert backend.classes == 5
    np.testing.assert_allclose(backend.scores(x), plain.scores(x), **CLOSE)
    np.testing.assert_allclose(backend.capture(x).gradients, plain.capture(x).gradients, **CLOSE)


def test_a_gate_is_not_taken_for_a_closing_sigmoid(net: Any) -> None:
    n = net("N", 3, 8, 8)
    logits = n.head(n.conv(n.x, 3, 4), 4)
    swish = n.add("Mul", logits, n.add("Sigmoid", logits))
    assert opened(n.model(swish)).logits_behind == ()


def test_other_quotients_are_not_taken_for_a_softmax(net: Any) -> None:
    n = net("N", 3, 8, 8)
    one, other = (n.add("Exp", n.head(n.conv(n.x, 3, 4), 4)) for _ in range(2))
    quotient = n.add("Div", one, n.add("ReduceSum", other, np.array([1]), keepdims=1))
    assert opened(n.model(quotient)).logits_behind == ()


def test_a_shift_by_something_else_belongs_to_the_logits(net: Any) -> None:
    n = net("N", 3, 8, 8)
    hidden = n.conv(n.x, 3, 4)
    x, other = n.head(hidden, 4), n.head(hidden, 4)
    shifted = n.add("Sub", x, n.add("ReduceMax", other, axes=[1], keepdims=1))
    backend = opened(n.model(written_out(n, shifted, shifted=False)))
    assert backend.logits_behind == ("Softmax",)
    assert backend._model.logits == shifted


def test_the_output_can_be_chosen(net: Any) -> None:
    n = net("N", 3, 8, 8)
    hidden = n.conv(n.x, 3, 4)
    first, second = n.head(hidden, 4), n.head(hidden, 4, classes=7)
    model = n.model(hidden, first, second)
    assert opened(model).classes == 5
    assert opened(model, output=second).classes == 7
    with pytest.raises(InvalidInputError, match=f"no output 'logits'; it has {hidden}, {first}"):
        opened(model, output="logits")
    with pytest.raises(InvalidInputError, match="not a classifier"):
        opened(model, output=hidden)


# ------------------------------------------------------------------------------------- layers


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


def default_of(backend: OnnxBackend) -> str:
    (name,) = [layer.name for layer in backend.layers() if layer.is_default]
    return name


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


def recurrent(n: Any, x: str) -> str:
    """(N, 4, 8, 8) to (N, 4): an LSTM over rows; its output is no map."""
    steps = n.add("Transpose", n.add("Reshape", x, np.array([0, 0, -1])), perm=[2, 0, 1])
    out = n.add("LSTM", steps, n.normal(1, 16, 4), n.normal(1, 16, 4), hidden_size=4, outputs=2)
    return n.add("Squeeze", f"{out}_1", np.array([0]))


def test_no_later_layer_is_suggested_that_is_no_map(net: Any) -> None:
    n = net("N", 4, 8, 8)
    a = n.add("Relu", n.conv(n.x, 4, 4), name="a")
    best = n.add("TopK", n.add("Reshape", a, np.array([0, 4, 64])), np.array([9]), outputs=2)
    pooled = n.add("ReduceMean", n.add("Tanh", best, name="t"), axes=[2], keepdims=0)
    backend = opened(n.model(n.add("MatMul", pooled, n.normal(4, 5))))
    message = r"TopK \(1x.*No later layer works"
    with pytest.raises(UnsupportedOpError, match=message):
        backend.capture(images(1, 4, 8, 8), layer="a")


def test_a_model_in_which_no_layer_has_a_gradient(net: Any) -> None:
    n = net("N", 4, 8, 8)
    a = n.add("Relu", n.conv(n.x, 4, 4), name="a")
    backend = opened(n.model(n.add("MatMul", recurrent(n, a), n.normal(4, 5))))
    assert backend.layers() == []
    with pytest.raises(UnsupportedOpError, match=r"no layer can be explained: LSTM \(1x, first at"):
        backend.capture(images(1, 4, 8, 8))


def quantized(n: Any, x: str) -> str:
    step, zero = np.float32(0.05), np.int8(0)
    whole = n.add("QuantizeLinear", x, step, zero)
    return n.add("DequantizeLinear", whole, step, zero)


def test_quantized_layers_are_refused_with_the_reason(net: Any) -> None:
    n = net("N", 3, 8, 8)
    a = n.add("Relu", n.conv(n.x, 3, 4), name="a")
    b = n.conv(quantized(n, a), 4, 4, name="b")
    backend = opened(n.model(n.head(b, 4)))
    assert [layer.name for layer in backend.layers()] == ["dequantizelinear3", "b"]
    message = (
        r"layer 'a' .*QuantizeLinear \(1x, first at 'node_quantizelinear2'\): no gradient gets "
        r"through integers. The nearest later layer that works is 'dequantizelinear3'"
    )
    with pytest.raises(UnsupportedOpError, match=message):
        backend.capture(images(1, 3, 8, 8), layer="a")
    n = net("N", 3, 8, 8)
    flat = n.add("Flatten", n.add("GlobalAveragePool", n.add("Relu", n.conv(n.x, 3, 4))))
    backend = opened(n.model(n.add("Gemm", quantized(n, flat), n.normal(4, 5))))
    assert backend.layers() == []
    with pytest.raises(UnsupportedOpError, match=r"no layer can be explained: QuantizeLinear \(1x"):
        backend.capture(images(1, 3, 8, 8))


def test_the_advice_costs_few_sweeps(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    n = net("N", 3, 6, 6)
    x = n.conv(n.x, 3, 4, name="first")
    for _ in range(20):
        x = n.conv(x, 4, 4)
    summed = n.add("CumSum", x, np.array(2), name="summed")
    backend = opened(n.model(n.head(n.conv(summed, 4, 4), 4)))
    swept: list[str] = []

    def counted(emit: Any, target: str, *rest: Any) -> Any:
        swept.append(target)
        return sweep(emit, target, *rest)

    monkeypatch.setattr("cfcam_onnx._programs.sweep", counted)
    with pytest.raises(UnsupportedOpError, match="nearest later layer that works is 'summed'"):
        backend.capture(images(1, 3, 6, 6), layer="first")
    assert swept == ["first", "first"]


# ------------------------------------------------------------------------------- channels last


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


# ------------------------------------------------------------------------------------ targets


def test_targets(small: Any) -> None:
    backend, x = opened(small()), images()
    top = backend.capture(x)
    np.testing.assert_array_equal(top.targets, backend.scores(x).argmax(axis=1))
    for target in (top.targets, list(top.targets), lambda scores: scores.argmax(axis=1)):
        same = backend.capture(x, target=target)
        np.testing.assert_array_equal(same.gradients, top.gradients)
        np.testing.assert_array_equal(same.targets, top.targets)
    one, two = (backend.capture(x, target=k).gradients for k in (1, 2))
    both = backend.capture(x, target=lambda s: np.tile([0, 1.0, -2.0, 0, 0], (len(s), 1)))
    np.testing.assert_allclose(both.gradients, one - 2 * two, rtol=1e-4, atol=1e-7)
    assert both.targets.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("target", [5, -1, [0, 1], "dog", 1.5])
def test_a_target_that_is_not_a_class(small: Any, target: Any) -> None:
    with pytest.raises(InvalidInputError, match="target"):
        opened(small()).capture(images(), target=target)


# ------------------------------------------------------------------------------------ batches


def test_a_batch_gives_what_its_samples_give(small: Any) -> None:
    backend, x = opened(small()), images()
    batch = backend.capture(x)
    for i in range(len(x)):
        single = backend.capture(x[i])  # without the batch axis
        np.testing.assert_allclose(single.gradients[0], batch.gradients[i], **CLOSE)
        np.testing.assert_allclose(single.scores[0], batch.scores[i], **CLOSE)


@pytest.mark.parametrize("fixed", [1, 2, 4])
def test_a_fixed_batch_takes_any_number_of_samples(small: Any, fixed: int) -> None:
    backend, x = opened(small(fixed, 3, 12, 10)), images(5, 3, 12, 10)
    wanted = opened(small()).capture(x, target=[0, 1, 2, 3, 4])
    capture = backend.capture(x, target=[0, 1, 2, 3, 4])
    assert backend.input_shape[0] == fixed
    np.testing.assert_allclose(capture.gradients, wanted.gradients, **CLOSE)
    np.testing.assert_allclose(backend.scores(x), wanted.scores, rtol=1e-5, atol=1e-6)
    tail = backend.scores_from(capture.activations, x)
    np.testing.assert_allclose(tail, wanted.scores, rtol=1e-5, atol=1e-6)


def test_many_threads_at_once(small: Any) -> None:
    backend, x = opened(small()), images()
    jobs = [(layer, k) for k in range(5) for layer in (None, "stem", "block", 0)]
    alone = [opened(small()).capture(x, layer=layer, target=k) for layer, k in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: backend.capture(x, layer=job[0], target=job[1]), jobs))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.gradients, b.gradients)


# -------------------------------------------------------------------------------- scores_from


def test_scores_from_follows_paths_around_the_layer(small: Any) -> None:
    backend, x = opened(small()), images()
    scores = backend.scores(x)
    for layer in ("x", "stem", "inner", "gated", None):
        activations = backend.capture(x, layer=layer).activations
        same = backend.scores_from(activations, x, layer=layer)
        np.testing.assert_allclose(same, scores, rtol=1e-5, atol=1e-6)
        assert abs(backend.scores_from(activations * 0, x, layer=layer) - scores).max() > 1e-3
    with pytest.raises(InvalidInputError, match="activations of 2 samples and inputs of 3"):
        backend.scores_from(activations[:2], x)
    with pytest.raises(InvalidInputError, match=r"the model takes \(N, 6, 6, 5\)"):
        backend.scores_from(activations[:, :4], x)


def test_scores_from_one_of_several_outputs(net: Any) -> None:
    n = net("N", 4, 5, 6)
    left = n.add("Split", n.add("Tanh", n.x), np.array([2, 2]), axis=1, outputs=2, name="left")
    both = n.add("Concat", left, n.add("Exp", f"{left}_1"), axis=1)
    backend, x = opened(n.model(n.head(both, 4))), images(2, 4, 5, 6)
    activations = backend.capture(x, layer="left").activations
    np.testing.assert_array_equal(
        backend.scores_from(activations, x, layer="left"), backend.scores(x)
    )
    slopes = numeric_gradient(backend, x, "left", 1)
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=5e-3, atol=2e-4)


# ------------------------------------------------------------------------- what is left alone


def test_nothing_is_written_to_the_model(small: Any, tmp_path: Path) -> None:
    model, path = small(closing="Softmax", opset=11), tmp_path / "model.onnx"
    onnx.save(model, path)
    before = path.read_bytes()
    for source in (model, path, str(path), before):
        backend = opened(source)
        assert isinstance(backend, Backend)
        backend.capture(images())
        backend.scores_from(backend.capture(images()).activations, images())
    assert path.read_bytes() == before
    assert model.SerializeToString() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_graph_stays_standard_onnx(small: Any) -> None:
    backend = opened(small())
    program = backend._program("gradient", "stem")
    onnx.checker.check_model(program, full_check=True)
    assert {node.domain for node in program.graph.node} == {""}
    forward = [node.SerializeToString() for node in small().graph.node]
    assert [node.SerializeToString() for node in program.graph.node][: len(forward)] == forward


def test_no_training_framework_is_imported() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, tensorflow=None, keras=None, jax=None); "
        "import cfcam_onnx; assert cfcam_onnx.open_model"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_runtimes_are_warned_of(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(small())
    monkeypatch.setattr(cfcam_onnx, "_is_installed", lambda _: True)
    with pytest.warns(UserWarning, match="onnxruntime and onnxruntime-gpu are both installed"):
        opened(small())


# ----------------------------------------------------------------------- other kinds of model


def test_float16(small: Any) -> None:
    x = images()
    backend = opened(small(dtype=np.float16, closing="Softmax"))
    wanted = opened(small(closing="Softmax")).capture(x, layer="stem", target=1)
    assert backend.input_dtype == np.float16
    capture = backend.capture(x, layer="stem", target=1)
    assert capture.gradients.dtype == np.float32
    error = np.linalg.norm(capture.gradients - wanted.gradients)
    assert error < 5e-3 * np.linalg.norm(wanted.gradients)


def test_float64(small: Any, net: Any) -> None:
    n = net("N", 4, 5, 6, dtype=np.float64)
    a = n.add("Tanh", n.x, name="a")
    pooled = n.add("ReduceMean", a, axes=[2, 3], keepdims=0)
    backend = opened(n.model(n.add("MatMul", pooled, n.normal(4, 5))))
    assert backend.capture(images(2, 4, 5, 6), layer="a").gradients.dtype == np.float32


def test_several_inputs(net: Any) -> None:
    n = net("N", 3, 6, 6)
    other = n.input("mask", "N", 1, 6, 6)
    a = n.add("Mul", n.conv(n.x, 3, 4), other, name="a")
    backend = opened(n.model(n.head(a, 4)))
    feeds = {"x": images(2, 3, 6, 6), "mask": images(2, 1, 6, 6)}
    assert backend.input_names == ("x", "mask")
    assert backend.capture(feeds).activations.shape == (2, 4, 6, 6)
    np.testing.assert_allclose(
        backend.scores_from(backend.capture(feeds).activations, feeds),
        backend.scores(feeds),
        **CLOSE,
    )
    with pytest.raises(InvalidInputError, match="inputs x, mask; pass a dict"):
        backend.capture(feeds["x"])
    with pytest.raises(InvalidInputError, match="inputs are named x; the model's are x, mask"):
        backend.capture({"x": feeds["x"]})
    with pytest.raises(InvalidInputError, match=r"hold \[1, 2\] samples"):
        backend.capture({"x": feeds["x"][:1], "mask": feeds["mask"]})


def test_the_input_size_is_that_of_the_layers_own_input(net: Any) -> None:
    n = net("N", 3, 6, 6)
    other = n.input("other", "N", 3, 9, 7)
    left, right = n.conv(n.x, 3, 4, name="left"), n.conv(other, 3, 4, name="right")
    pooled = n.add("Add", n.head(left, 4), n.head(right, 4))
    backend = opened(n.model(pooled))
    feeds = {"x": images(2, 3, 6, 6), "other": images(2, 3, 9, 7)}
    sizes = {name: backend.capture(feeds, layer=name).input_size for name in ("left", "right")}
    assert sizes == {"left": (6, 6), "right": (9, 7)}
    assert backend.capture(feeds, layer="other").input_size == (9, 7)


def test_tokens_have_no_input_size(net: Any) -> None:
    n = net("N", 3, 6, 6)
    tokens = n.add("Reshape", n.conv(n.x, 3, 4), np.array([0, 4, 36]), name="tokens")
    backend = opened(n.model(n.add("MatMul", n.add("Flatten", tokens), n.normal(144, 5))))
    assert backend.capture(images(1, 3, 6, 6), layer="tokens").input_size is None


def test_programs_of_ours_are_models_too(small: Any) -> None:
    backend, x = opened(small()), images()
    wanted = backend.capture(x)
    for kind in ("forward", "gradient"):
        again = opened(backend._program(kind, "last"))
        feeds: Any = {"x": x}
        if kind == "gradient":
            feeds["cfcam/cotangent"] = np.zeros((len(x), 5), np.float32)
            feeds["cfcam/explain_top"] = np.array(True)
        assert list(again.input_names) == list(feeds)
        np.testing.assert_allclose(again.capture(feeds).gradients, wanted.gradients, **CLOSE)


@pytest.mark.parametrize("name", ["cotangent", "explain_top", "gradient", "ArgMax_1", "shape_0"])
def test_tensors_called_as_ours_are(net: Any, name: str) -> None:
    found = []
    for called in ("a", f"cfcam/{name}"):
        n = net("N", 3, "H", "W")
        a = n.add("Tanh", n.conv(n.x, 3, 4), name=called)
        backend = opened(n.model(n.head(a, 4)))
        found.append(backend.capture(np.ones((1, 3, 8, 8)), layer=called))
        assert backend.scores_from(found[-1].activations, np.ones((1, 3, 8, 8))).shape == (1, 5)
        assert backend._model.graph.samples  # the trial run has run
    np.testing.assert_array_equal(found[0].gradients, found[1].gradients)


def test_integer_images(net: Any) -> None:
    n = net("N", 6, 6, 3)
    n.inputs[0] = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["N", 6, 6, 3])
    x = n.add("Transpose", n.add("Cast", n.x, to=1), perm=[0, 3, 1, 2])
    backend = opened(n.model(n.head(n.conv(x, 3, 4, name="a"), 4)))
    assert backend.input_dtype == np.uint8
    assert backend.capture(np.full((2, 6, 6, 3), 200), layer="a").gradients.shape == (2, 4, 6, 6)
    with pytest.raises(InvalidInputError, match="values that uint8 cannot hold"):
        backend.capture(np.full((2, 6, 6, 3), 0.5))
    with pytest.raises(LayerNotFoundError, match="'x' is uint8"):
        backend.capture(np.full((2, 6, 6, 3), 200), layer="x")


# ----------------------------------------------------------------------- unsupported operators


def test_all_unsupported_operators_are_listed_with_a_layer_that_works(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    b = n.add("CumSum", n.add("CumSum", a, np.array(2)), np.array(3), name="b")
    c = n.add("Hardmax", b, name="c")
    d = n.add("Tanh", c, name="d")
    backend = opened(n.model(n.head(n.conv(d, 4, 4, name="e"), 4)))
    x = images(2, 3, 6, 6)
    with pytest.raises(UnsupportedOpError) as caught:
        backend.capture(x, layer="a")
    message = str(caught.value)
    assert "CumSum (2x, first at 'node_cumsum1'): no gradient rule" in message
    assert "Hardmax (1x, first at 'node_c'): no gradient rule" in message
    assert "The nearest later layer that works is 'c'" in message
    assert backend.capture(x, layer="c").gradients.any()
    assert backend.capture(x).layer == "e"  # what lies before the layer does not matter


def test_a_refused_attribute_is_named(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    pooled = n.add("MaxPool", a, outputs=2, kernel_shape=[2, 2], storage_order=1)
    backend = opened(n.model(n.head(pooled, 4)))
    with pytest.raises(UnsupportedOpError, match=r"MaxPool \(1x.*storage_order=1"):
        backend.capture(images(2, 3, 6, 6), layer="a")


def test_an_output_that_has_no_rule(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.conv(n.x, 3, 4, name="a")
    norm = n.add("LayerNormalization", a, n.normal(6), outputs=2)  # with the means
    model = n.model(n.head(n.add("Add", norm, f"{norm}_1"), 4))
    with pytest.raises(UnsupportedOpError, match="depend on an output other than the first"):
        opened(model).capture(images(2, 3, 6, 6), layer="a")


def test_what_a_subgraph_reads() -> None:
    inside = onnx.helper.make_node("Sum", ["weight", "given", "outer"], ["made"])
    weight = numpy_helper.from_array(np.zeros(2, np.float32), "weight")
    info = onnx.helper.make_tensor_value_info
    given, made = (info(name, onnx.TensorProto.FLOAT, [2]) for name in ("given", "made"))
    body = onnx.helper.make_graph([inside], "body", [given], [made], [weight])
    node = onnx.helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    assert list(reads(node)) == ["x", "outer"]


def test_no_gradient_for_a_computed_kernel(net: Any) -> None:
    n = net(1, 3, 6, 6)
    a = n.add("Tanh", n.x, name="a")
    b = n.add("Conv", n.add("Relu", n.x), n.add("Slice", a, *map(np.array, ([0], [2], [2]))))
    model = n.model(n.add("Flatten", n.add("GlobalAveragePool", b)))
    with pytest.raises(UnsupportedOpError, match="no gradient with respect to input 1"):
        opened(model).capture(images(1, 3, 6, 6), layer="a")


def test_an_output_of_split_that_nobody_reads_may_have_no_name() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
        "d": rng.normal(size=(2, 4)).astype(np.float32),
        "sizes": np.array([2, 2, 2]),
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx.helper.make_node("Split", ["c", "sizes"], ["a", "", "b"], axis=1),
        onnx.helper.make_node("Add", ["a", "b"], ["ab"]),
        onnx.helper.make_node("GlobalAveragePool", ["ab"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 9, 9])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    backend = cfcam_onnx.open_model(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )
    found = backend.capture(rng.normal(size=(2, 3, 9, 9)), layer="c", target=1)
    wanted = np.zeros(6)
    wanted[[0, 1, 4, 5]] = np.tile(weights["d"][:, 1], 2) / 49
    np.testing.assert_allclose(found.gradients[0, :, 3, 3], wanted, rtol=1e-5)
