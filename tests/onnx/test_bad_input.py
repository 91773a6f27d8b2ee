"""Models and arrays that cannot be used: typed errors that say what came and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cfcam_core
from cfcam_core import InvalidInputError, UnsupportedOpError


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no model file '.*none\.onnx'; check the path"):
        cfcam_onnx.open_model(tmp_path / "none.onnx")
    with pytest.raises(InvalidInputError, match="no model file"):
        cfcam_onnx.open_model(tmp_path)


@pytest.mark.parametrize("content", ["", "not a model", "half", "other"])
def test_a_broken_file(content: str, small: Any, tmp_path: Path) -> None:
    whole = small().SerializeToString()
    other = onnx.ModelProto(ir_version=8).SerializeToString()
    broken = {"half": whole[: len(whole) // 2], "other": other}.get(content, content.encode())
    path = tmp_path / "model.onnx"
    path.write_bytes(broken)
    for source in (path, broken):
        with pytest.raises(
            InvalidInputError, match=r"cannot be read as an ONNX model|no ONNX graph"
        ):
            cfcam_onnx.open_model(source)


def test_any_damage_is_a_typed_error(small: Any) -> None:
    whole = small().SerializeToString()
    rng = np.random.default_rng(0)
    x = np.zeros((1, 3, 12, 10), np.float32)
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 6):
            damaged[at] = rng.integers(0, 256)
        try:
            cfcam_onnx.open_model(bytes(damaged), threads=1).capture(x)
        except cfcam_core.CfcamError:
            continue


def test_something_else() -> None:
    with pytest.raises(InvalidInputError, match="a dict is not an ONNX model; pass a path"):
        cfcam_onnx.open_model({})


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_outside_the_folder(location: str, small: Any, tmp_path: Path) -> None:
    model, folder = small(), tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, location, length=len(weight.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInputError, match="must lie in the model's folder or below it"):
        cfcam_onnx.open_model(folder / "model.onnx")
    with pytest.raises(InvalidInputError, match="refers to weights in another file; pass the path"):
        cfcam_onnx.open_model(model)


def test_weights_beside_the_file(small: Any, tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", np.ones((1, 3, 12, 10), np.float32)
    onnx.save(small(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    wanted = cfcam_onnx.open_model(small()).scores(x)
    np.testing.assert_array_equal(cfcam_onnx.open_model(path).scores(x), wanted)


def test_no_classifier(net: Any) -> None:
    n = net("N", 3, 6, 6)
    maps = n.conv(n.x, 3, 4)
    with pytest.raises(
        InvalidInputError, match=r"not a classifier: wanted .*\(N, classes\).*conv0"
    ):
        cfcam_onnx.open_model(n.model(maps))
    labels = n.add("ArgMax", n.head(maps, 4), axis=1, keepdims=0)
    model = n.model(labels)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(InvalidInputError, match="not a classifier"):
        cfcam_onnx.open_model(model)


def test_a_model_without_inputs(net: Any) -> None:
    n = net()
    out = n.add("Relu", n.normal(2, 5))
    n.inputs.clear()
    with pytest.raises(InvalidInputError, match="has no inputs"):
        cfcam_onnx.open_model(n.model(out))


def test_operators_of_an_unknown_domain(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.add("Fancy", n.conv(n.x, 3, 4), domain="acme")
    b = n.add("Fancy", a, domain="acme")
    with pytest.raises(UnsupportedOpError, match=r"no operators acme\.Fancy \(2x\).*'node_fancy1'"):
        cfcam_onnx.open_model(n.model(n.head(b, 4)))


def test_an_operator_set_nobody_has(small: Any) -> None:
    with pytest.raises(InvalidInputError):
        cfcam_onnx.open_model(small(opset=99)).scores(np.ones((1, 3, 12, 10)))


def test_a_dangling_tensor(net: Any) -> None:
    n = net("N", 3, 6, 6)
    model = n.model(n.head(n.add("Add", n.conv(n.x, 3, 4), "nowhere"), 4))
    with pytest.raises(InvalidInputError):
        cfcam_onnx.open_model(model).scores(np.ones((1, 3, 6, 6)))


def test_an_unknown_provider(small: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"no execution provider Abacus; it has .*CPU"):
        cfcam_onnx.open_model(small(), providers=["Abacus", "CPUExecutionProvider"])
    with pytest.raises(InvalidInputError, match="none named"):
        cfcam_onnx.open_model(small(), providers=[])
    cpu = [("CPUExecutionProvider", {})]
    assert cfcam_onnx.open_model(small(), providers=cpu).scores(np.ones((3, 12, 10))).shape == (
        1,
        5,
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.ones((1, 4, 12, 10)), r"\(1, 4, 12, 10\).*takes \(N, 3, 12, 10\).*give it 3 channels"),
        (np.ones((2, 12, 10, 3)), r"transpose it with axes \(0, 3, 1, 2\)"),
        (np.ones((1, 3, 10, 12)), "resize or reshape it"),
        (np.ones((12, 10)), "resize or reshape it"),
        (np.ones((1, 1, 3, 12, 10)), "resize or reshape it"),
        (np.ones((0, 3, 12, 10)), r"shape \(0, 3, 12, 10\)"),
        (np.full((1, 3, 12, 10), np.nan), "360 values that are NaN or infinite in float32"),
        (np.full((1, 3, 12, 10), 1e300), "360 values that are NaN or infinite in float32"),
        (np.ones((1, 3, 12, 10), complex), "has dtype complex128; wanted numbers for float32"),
        ("photo.png", "has dtype <U9"),
        ([[1, 2], [3]], "cannot be read as an array"),
        ({"y": 1}, "inputs are named y; the model's are x"),
        (None, "has dtype object"),
    ],
)
def test_inputs_that_do_not_fit(small: Any, inputs: Any, message: str) -> None:
    backend = cfcam_onnx.open_model(small(), threads=1)
    for call in (backend.capture, backend.scores):
        with pytest.raises(InvalidInputError, match=message):
            call(inputs)


def test_lists_integers_and_doubles_are_fine(small: Any) -> None:
    backend = cfcam_onnx.open_model(small(), threads=1)
    wanted = backend.scores(np.ones((1, 3, 12, 10), np.float32))
    for inputs in (np.ones((3, 12, 10), int).tolist(), np.ones((1, 3, 12, 10), np.uint8)):
        np.testing.assert_array_equal(backend.scores(inputs), wanted)


def test_an_old_operator_set_that_cannot_be_converted(net: Any) -> None:
    n = net("N", 3, 6, 6)
    up = n.add("Upsample", n.conv(n.x, 3, 4), mode="nearest", width_scale=2.0, height_scale=2.0)
    model = n.model(n.head(up, 4), opset=1)
    with pytest.raises(InvalidInputError, match="operator set 1, which cannot be converted to 17"):
        cfcam_onnx.open_model(model)


def test_a_model_in_half_written_helper_form() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    with pytest.raises(InvalidInputError, match="no ONNX graph with nodes and outputs"):
        cfcam_onnx.open_model(helper.make_model(graph))
