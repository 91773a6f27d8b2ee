"""Gradients of whole models: against slopes, against torch, for the families that are in use."""

from __future__ import annotations

from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from whole_models import images, numeric_gradient, opened


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
