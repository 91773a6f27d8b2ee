"""Quantized models: straight through where they are written in QDQ, refused clearly otherwise.

The gradient is by definition that of the float model in which every pair of QuantizeLinear and
DequantizeLinear is a Clip to what the integers can hold, half a step more at either end.
"""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from whole_models import default_of, images, opened

from cfcam_core import UnsupportedOpError

STEP = np.float32(0.05)
TYPES = {np.uint8: (0, 255), np.int8: (-128, 127), np.uint16: (0, 65535), np.int16: (-32768, 32767)}


def clipped(x: Any, kind: Any, zero: int, step: Any) -> list[Any]:
    low, high = TYPES[kind]
    return [np.float32((end - zero) * step) for end in (low - 0.5, high + 0.5)]


MOVES = {
    "nothing": lambda n, x: x,
    "Reshape": lambda n, x: n.add("Reshape", x, np.array([0, 3, -1, 4])),
    "Transpose": lambda n, x: n.add("Transpose", x, perm=[0, 1, 3, 2]),
    "MaxPool": lambda n, x: n.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]),
    "Concat": lambda n, x: n.add("Concat", x, x, axis=2),
    "Slice": lambda n, x: n.add("Slice", x, np.array([1]), np.array([6]), np.array([2])),
    "Identity": lambda n, x: n.add("Identity", x),
    "Gather": lambda n, x: n.add("Gather", x, np.array([0, 3, 3]), axis=2),
    "Flatten": lambda n, x: n.add("Reshape", n.add("Flatten", x), np.array([0, 3, 8, 8])),
    "Split": lambda n, x: f"{n.add('Split', x, np.array([3, 5]), axis=2, outputs=2)}_1",
}


def pair(n: Any, x: str, zero: Any, step: Any, move: str = "nothing", **how: Any) -> str:
    whole = n.add("QuantizeLinear", x, step, zero, **how)
    return n.add("DequantizeLinear", MOVES[move](n, whole), step, zero, **how)


def on_the_grid(*shape: int) -> np.ndarray:
    """Multiples of the step, all different, some beyond the range of eight bits."""
    count = int(np.prod(shape))
    return (STEP * (np.random.default_rng(4).permutation(count) - count // 2)).reshape(shape)


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 100), (np.int8, -7)])
def test_a_pair_has_the_gradient_of_a_clip(net: Any, move: str, kind: Any, zero: int) -> None:
    found = []
    for quantized in (True, False):
        n = net("N", 3, 8, 8)
        x = n.add("Mul", n.x, np.float32(1), name="a")
        if quantized:
            x = pair(n, x, kind(zero), STEP, move)
        else:
            x = MOVES[move](n, n.add("Clip", x, *clipped(x, kind, zero, STEP)))
        backend = opened(n.model(n.head(n.conv(x, 3, 4), 4)))
        found.append(backend.capture(on_the_grid(2, 3, 8, 8), layer="a", target=1).gradients)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-8)
    assert (found[0] == 0).mean() > 0.1
    assert (found[0] != 0).mean() > 0.01


BY_HAND = {
    "Cast": lambda n, q: n.add("Cast", q, to=onnx.TensorProto.FLOAT),
    "two casts": lambda n, q: n.add("Cast", n.add("Cast", q, to=onnx.TensorProto.INT32), to=1),
    "CastLike": lambda n, q: n.add("CastLike", q, np.float32(0)),
    "Cast, moved": lambda n, q: n.add("Cast", MOVES["MaxPool"](n, q), to=1),
}


@pytest.mark.parametrize("way", BY_HAND)
def test_integers_that_are_made_floats_by_hand(net: Any, way: str) -> None:
    found = []
    for quantized in (True, False):
        n = net("N", 3, 8, 8)
        x = n.add("Mul", n.x, np.float32(1), name="a")
        if quantized:
            whole = BY_HAND[way](n, n.add("QuantizeLinear", x, STEP, np.int8(-7)))
            x = n.add("Mul", n.add("Sub", whole, np.float32(-7)), STEP)
        else:
            x = n.add("Clip", x, *clipped(x, np.int8, -7, STEP))
            x = MOVES["MaxPool"](n, x) if "moved" in way else x
        backend = opened(n.model(n.head(n.conv(x, 3, 4), 4)))
        found.append(backend.capture(on_the_grid(2, 3, 8, 8), layer="a", target=1).gradients)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-8)
    assert (found[0] != 0).mean() > 0.01


@pytest.mark.parametrize("axis", [1, -1])
def test_a_pair_may_have_one_scale_a_channel(net: Any, axis: int) -> None:
    n = net("N", 3, 8, 8)
    a = n.add("Mul", n.x, np.float32(1), name="a")
    size = {1: 3, -1: 8}[axis]
    steps = np.linspace(0.01, 0.05, size).astype(np.float32)
    zeros = np.arange(size, dtype=np.int8) - 2
    x = pair(n, a, zeros, steps, axis=axis)
    weight = n.normal(1, 3, 8, 8)
    backend = opened(
        n.model(n.add("ReduceSum", n.add("Mul", x, weight), np.array([2, 3]), keepdims=0))
    )
    at = on_the_grid(2, 3, 8, 8)
    shape = [1, 3, 1, 1] if axis == 1 else [1, 1, 1, 8]
    low, high = (((end - zeros) * steps).reshape(shape) for end in (-128.5, 127.5))
    wanted = np.where((at > low) & (at < high), weight, 0)
    wanted[:, [0, 2]] = 0
    found = backend.capture(at, layer="a", target=1).gradients
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_sixteen_bits(net: Any, kind: Any) -> None:
    n = net("N", 3, 8, 8)
    x = pair(n, n.add("Mul", n.x, np.float32(1), name="a"), kind(5), STEP)
    backend = opened(n.model(n.head(n.conv(x, 3, 4), 4), opset=21, ir=10))
    m = net("N", 3, 8, 8)
    x = m.add("Clip", m.add("Mul", m.x, np.float32(1), name="a"), *clipped(x, kind, 5, STEP))
    float_model = opened(m.model(m.head(m.conv(x, 3, 4), 4)))
    at = 400 * images(2, 3, 8, 8)
    found, wanted = (b.capture(at, layer="a", target=1).gradients for b in (backend, float_model))
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)


def test_eight_bit_floats_and_blocks_are_refused(net: Any) -> None:
    for zero, how, reason in (
        (onnx.numpy_helper.to_array(onnx.helper.make_tensor("z", 17, [], [0])), {}, "FLOAT8E4M3FN"),
        (np.zeros((1, 3, 4, 8), np.int8), {"block_size": 2, "axis": 2}, "in blocks"),
    ):
        n = net(1, 3, 8, 8)
        step = np.full(zero.shape, STEP, np.float32)
        x = pair(n, n.add("Mul", n.x, np.float32(1), name="a"), zero, step, **how)
        model = n.model(n.head(n.conv(x, 3, 4), 4), opset=21, ir=10)
        with pytest.raises(UnsupportedOpError, match=f"QuantizeLinear .*{reason}"):
            opened(model).capture(images(1, 3, 8, 8), layer="a")


# ------------------------------------------------------------------------- onnxruntime's quantizer


class Calibration(CalibrationDataReader):
    def __init__(self, x: np.ndarray, name: str = "x") -> None:
        self.feeds = iter([{name: row} for row in x[:, None]])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def classifier(n: Any) -> onnx.ModelProto:
    stem = n.add("Relu", n.conv(n.x, 3, 8), name="stem")
    pooled = n.add("MaxPool", stem, kernel_shape=[2, 2], strides=[2, 2], name="pooled")
    left = n.add("Relu", n.conv(pooled, 8, 8), name="left")
    block = n.add("Add", left, n.conv(pooled, 1, 8, group=8), name="block")
    last = n.add("Relu", n.conv(n.add("Concat", block, pooled, axis=1), 16, 8), name="last")
    return n.model(n.head(last, 8))


def quantized(model: onnx.ModelProto, folder: Path, **how: Any) -> onnx.ModelProto:
    onnx.save(model, folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int.onnx", Calibration(photographs(24)), **how)
    return onnx.load(folder / "int.onnx")


def photographs(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 16, 16)).astype(np.float32)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8])
def test_the_gradient_is_close_to_that_of_the_float_model(
    net: Any, tmp_path: Path, activations: QuantType, *, per_channel: bool
) -> None:
    model = classifier(net("N", 3, 16, 16))
    how = {"activation_type": activations, "weight_type": QuantType.QInt8}
    whole = quantized(model, tmp_path, quant_format=QuantFormat.QDQ, per_channel=per_channel, **how)
    assert "QuantizeLinear" in {node.op_type for node in whole.graph.node}
    before, after, x = opened(model), opened(whole), photographs(8)
    for layer, least in (("x", 0.9), ("pooled", 0.9), ("block", 0.95)):
        wanted, found = (b.capture(x, layer=layer, target=2) for b in (before, after))
        assert likeness(found.activations, wanted.activations) > 0.999
        assert likeness(found.gradients, wanted.gradients) > least
        assert likeness(found.scores, wanted.scores) > 0.999


def test_operators_on_integers_are_refused_with_what_to_do(net: Any, tmp_path: Path) -> None:
    model = classifier(net("N", 3, 16, 16))
    whole = quantized(model, tmp_path, quant_format=QuantFormat.QOperator)
    message = r"QLinearConv \(\dx.*quantize the model in the QDQ format instead"
    with pytest.raises(UnsupportedOpError, match=message):
        opened(whole).capture(images(2, 3, 16, 16), layer="x")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "dynamic.onnx")
    message = r"DynamicQuantizeLinear \(\dx.*quantize the model in the QDQ format instead"
    with pytest.raises(UnsupportedOpError, match=message):
        opened(tmp_path / "dynamic.onnx").capture(images(2, 3, 16, 16), layer="x")


KERNEL = np.ones((3, 3, 1, 1), np.int8)
SCALE = (STEP, np.int8(3))
TABLE = np.linspace(0, 1, 256, dtype=np.float32)


def dynamic(n: Any, a: str) -> str:
    q = n.add("DynamicQuantizeLinear", a, outputs=3)
    whole = n.add("ConvInteger", q, KERNEL.astype(np.uint8), f"{q}_2")
    return n.add("Mul", n.add("Cast", whole, to=1), f"{q}_1")


def over(op: str, *others: Any) -> Any:
    """Quantize, compute with integers, and make floats of them."""
    return lambda n, a: n.add(
        "DequantizeLinear", n.add(op, n.add("QuantizeLinear", a, *SCALE), *others), *SCALE
    )


INTEGER_BRANCHES = {
    "QLinearConv": over("QLinearConv", *SCALE, KERNEL, STEP, np.int8(0), *SCALE),
    "Clip": over("Clip", np.int8(0), np.int8(99)),
    "Max": over("Max", np.int8(3)),
    "MatMulInteger": lambda n, a: n.add(
        "Cast",
        n.add("MatMulInteger", n.add("QuantizeLinear", a, *SCALE), np.ones((8, 8), np.int8)),
        to=1,
    ),
    "MatMulIntegerToFloat": lambda n, a: n.add(
        *("MatMulIntegerToFloat", n.add("QuantizeLinear", a, *SCALE), np.ones((8, 8), np.int8)),
        *(STEP, STEP),
        domain="com.microsoft",
    ),
    "ConvInteger": dynamic,
    "Add": lambda n, a: n.add(
        "Cast",
        n.add("Add", n.add("Cast", n.add("QuantizeLinear", a, *SCALE), to=6), np.int32(5)),
        to=1,
    ),
    "Gather": lambda n, a: n.add(  # looked up
        "Gather", TABLE, n.add("Cast", n.add("QuantizeLinear", a, *SCALE), to=7)
    ),
}


@pytest.mark.parametrize("op", INTEGER_BRANCHES)
def test_integers_beside_floats_are_refused_too(net: Any, op: str) -> None:
    """What gets through the floats alone would be a gradient that nobody sees to be wrong."""
    n = net("N", 3, 8, 8)
    a = n.add("Tanh", n.conv(n.x, 3, 3), name="a")
    b = n.add("Add", a, INTEGER_BRANCHES[op](n, a), name="b")
    backend, x = opened(n.model(n.head(n.conv(b, 3, 4, name="c"), 4))), images(2, 3, 8, 8)
    layers = [layer.name for layer in backend.layers()]
    assert "a" not in layers
    assert {"b", "c"} <= set(layers)
    message = rf"{op} \(1x.*quantize the model in the QDQ format instead.*that works is 'b'"
    with pytest.raises(UnsupportedOpError, match=message):
        backend.capture(x, layer="a")
    assert backend.capture(x, layer="b").gradients.any()


NO_FLOATS = {
    "ArgMax": lambda n, q: n.add("ArgMax", q, axis=3),
    "truth": lambda n, q: n.add("Cast", q, to=onnx.TensorProto.BOOL),
    "Greater": lambda n, q: n.add("Greater", n.add("Cast", q, to=1), np.float32(3)),
    "Shape": lambda n, q: n.add("Mul", n.add("Shape", q), np.int64(2), name="sizes"),
    "positions": lambda n, q: f"{n.add('MaxPool', q, kernel_shape=[8, 8], outputs=2)}_1",
}


@pytest.mark.parametrize("kind", NO_FLOATS)
def test_integers_that_do_not_stand_for_floats_have_no_gradient(net: Any, kind: str) -> None:
    """Sizes, positions and truth values are constants beside the floats."""
    found, x = [], images(2, 3, 8, 8)
    for quantized in (True, False):
        n = net("N", 3, 8, 8)
        a = b = n.add("Tanh", n.conv(n.x, 3, 3), name="a")
        if quantized:
            whole = NO_FLOATS[kind](n, n.add("QuantizeLinear", a, *SCALE))
            number = n.add("ReduceMax", n.add("Cast", whole, to=1), keepdims=0)
            b = n.add("Add", a, number)
        backend = opened(n.model(n.head(n.conv(b, 3, 4), 4)))
        assert "a" in [layer.name for layer in backend.layers()]
        found.append(backend.capture(x, layer="a", target=1).gradients)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-8)


def test_sizes_and_positions_from_quantized_tensors_stop_nothing(net: Any) -> None:
    """An operator on floats that is told by them where and how large has its gradient."""
    found, x = [], images(2, 3, 8, 8)
    for quantized in (True, False):
        n = net("N", 3, 8, 8)
        a = n.add("Tanh", n.conv(n.x, 3, 3), name="a")
        q = n.add("QuantizeLinear", a, *SCALE)
        q = q if quantized else n.add("DequantizeLinear", q, *SCALE)
        best = n.add("Flatten", n.add("ArgMax", q, axis=3, keepdims=0), axis=0)
        picked = n.add("Gather", a, n.add("Squeeze", best, np.array([0])), axis=3)
        same = n.add("Reshape", n.add("Reshape", a, np.array([-1])), n.add("Shape", q))
        b = n.add("Add", same, n.add("ReduceMean", picked, axes=[3]))
        backend = opened(n.model(n.head(n.conv(b, 3, 4), 4)))
        assert "a" in [layer.name for layer in backend.layers()]
        found.append(backend.capture(x, layer="a", target=1).gradients)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-8)
    assert found[0].any()


def test_quantized_convolutions_in_a_residual_net_are_refused(net: Any, tmp_path: Path) -> None:
    n = net("N", 3, 16, 16)
    x = n.add("Relu", n.conv(n.x, 3, 8), name="stem")
    for i in range(2):
        x = n.add("Relu", n.add("Add", x, n.conv(x, 8, 8), name=f"sum{i}"), name=f"block{i}")
    how = {"quant_format": QuantFormat.QOperator, "op_types_to_quantize": ["Conv"]}
    backend = opened(quantized(n.model(n.head(x, 8)), tmp_path, **how))
    assert [layer.name for layer in backend.layers()] == ["sum1", "block1"]
    with pytest.raises(UnsupportedOpError, match=r"QLinearConv \(2x.*that works is 'sum1'"):
        backend.capture(photographs(2), layer="stem")


@pytest.mark.real
def test_mobilenet(real_data: Path, tmp_path: Path) -> None:
    """Calibrated on half of the photographs, and compared on the others."""
    spec = spec_from_file_location("mobilenet_v2", real_data / "loaders" / "mobilenet_v2.py")
    assert spec is not None
    assert spec.loader is not None
    loader = module_from_spec(spec)
    spec.loader.exec_module(loader)
    whole, small = tmp_path / "float.onnx", tmp_path / "int.onnx"
    loader.build_onnx(real_data / "models" / "mobilenet_v2_imagenet_int8.npz", whole)
    manifest = json.loads((real_data / "MANIFEST.json").read_text())["images"]
    files = [real_data / image["file"] for image in manifest if image.get("imagenet_ok")]
    pixels = [cv2.resize(cv2.imread(str(file))[:, :, ::-1], (224, 224)) for file in files]
    x = (np.stack(pixels) / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)
    name = onnx.load(whole).graph.input[0].name
    quantize_static(whole, small, Calibration(x[::2], name), per_channel=True)
    before, after = opened(whole), opened(small)
    top = before.scores(x[1::2]).argmax(axis=1)
    assert default_of(before) == "last.relu6"
    assert default_of(after) == "last.relu6_DequantizeLinear_Output"  # a Clip no more
    for layer, alike in ((None, (0.98, 0.999)), ("b12.add", (0.99, 0.9))):
        wanted, found = (b.capture(x[1::2], layer=layer, target=top) for b in (before, after))
        assert likeness(found.activations, wanted.activations) > alike[0]
        assert likeness(found.gradients, wanted.gradients) > alike[1]
        assert (found.scores.argmax(axis=1) == top).all()
