"""Models and arrays that cannot be used: typed errors that say what came and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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


def test_something_else() -> None:
    with pytest.raises(InvalidInputError, match="a dict is not an ONNX model; pass a path"):
        cfcam_onnx.open_model({})


@pytest.mark.parametrize("ending", ["json", "textproto", "txt", "onnxtxt"])
def test_the_name_of_a_file_does_not_matter(ending: str, small: Any, tmp_path: Path) -> None:
    path = tmp_path / f"model.{ending}"
    path.write_bytes(small().SerializeToString())
    assert cfcam_onnx.open_model(path).classes == 5


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
    model = n.model(n.head(n.add("Add", n.conv(n.x, 3, 4), "nowhere", name="sum"), 4))
    message = "incomplete: node 'node_sum' needs the tensor 'nowhere', which no node makes"
    with pytest.raises(InvalidInputError, match=message):
        cfcam_onnx.open_model(model)


def test_an_output_that_nothing_makes(small: Any) -> None:
    model = small()
    model.graph.output[0].name = "nothing"
    with pytest.raises(InvalidInputError, match="an output needs the tensor 'nothing'"):
        cfcam_onnx.open_model(model)


def test_nodes_out_of_order(small: Any) -> None:
    model, x = small(), np.ones((1, 3, 12, 10), np.float32)
    wanted = cfcam_onnx.open_model(model, threads=1).capture(x)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    capture = cfcam_onnx.open_model(model, threads=1).capture(x)
    assert capture.layer == wanted.layer
    np.testing.assert_array_equal(capture.gradients, wanted.gradients)


def test_nodes_in_a_circle(net: Any) -> None:
    n = net("N", 3, 6, 6)
    a = n.add("Add", n.conv(n.x, 3, 4), "b", name="a")
    n.add("Relu", a, name="b")
    with pytest.raises(InvalidInputError, match=r"in a circle: 'node_[ab]' -> 'node_[ab]'"):
        cfcam_onnx.open_model(n.model(n.head("b", 4)))


def test_an_input_without_axes(net: Any) -> None:
    n = net()
    out = n.add("Gemm", n.add("Reshape", n.x, np.array([1, 1])), n.normal(1, 5))
    with pytest.raises(InvalidInputError, match="input 'x' has no axes; wanted one for the samp"):
        cfcam_onnx.open_model(n.model(out))


def test_an_input_without_a_shape(small: Any) -> None:
    model = small()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidInputError, match="does not say what shape its input 'x' has"):
        cfcam_onnx.open_model(model)


# -------------------------------------------------------------------------------------- whose fault


@pytest.mark.parametrize("where", ["find_logits", "channel_axes"])
def test_our_own_errors_are_not_blamed_on_a_valid_model(
    where: str, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(f"cfcam_onnx._classifier.{where}", broken)
    with pytest.raises(KeyError, match="ours"):
        cfcam_onnx.open_model(small())


def test_our_own_errors_while_a_program_is_made(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("ours")

    backend = cfcam_onnx.open_model(small(), threads=1)
    monkeypatch.setattr("cfcam_onnx._sessions.gradient_program", broken)
    (output,) = backend._model.graph.model.graph.output
    output.type.tensor_type.ClearField("shape")  # what we work on may lack what the checker wants
    with pytest.raises(KeyError, match="ours"):
        backend.capture(np.ones((1, 3, 12, 10)))


@pytest.mark.parametrize(
    "error",
    [onnx.defs.SchemaError, onnx.shape_inference.InferenceError, MemoryError],
)
def test_errors_of_onnx_are_typed(
    error: type[Exception], small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error("of onnx")

    monkeypatch.setattr("cfcam_onnx._model.shape_inference.infer_shapes", broken)
    with pytest.raises(InvalidInputError, match=r"onnx cannot work with|more memory than there is"):
        cfcam_onnx.open_model(small())


def test_an_operator_newer_than_the_model(net: Any) -> None:
    """Gelu came with operator set 20."""
    n = net("N", 3, 6, 6)
    model = n.model(n.head(n.add("Gelu", n.conv(n.x, 3, 4)), 4))
    with pytest.raises(InvalidInputError, match="No Op registered for Gelu"):
        cfcam_onnx.open_model(model)


def test_an_old_resize_in_a_subgraph(net: Any) -> None:
    n = net("N", 3, 6, 6)
    maps = n.conv(n.x, 3, 4)
    scales = numpy_helper.from_array(np.array([1, 1, 2, 0.5], np.float32), "scales")
    n.weights.append(scales)
    node = helper.make_node("Resize", [maps, "scales"], ["inner"], mode="nearest")
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    body = helper.make_graph([node], "body", [], [output])
    either = n.add("If", np.array(True), then_branch=body, else_branch=body)
    with pytest.raises(InvalidInputError, match="resizes inside an If or a Loop"):
        cfcam_onnx.open_model(n.model(n.head(either, 4), opset=10))


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
        (np.ones((1, 3, 12, 10), complex), "dtype complex128; wanted real numbers"),
        ("photo.png", "dtype <U9"),
        ([[1, 2], [3]], "cannot be read as an array"),
        ({"y": 1}, "inputs are named y; the model's are x"),
        (None, "dtype object in a NoneType"),
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
