"""The backend: scores from a layer's activations, what it leaves alone, other kinds of model."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from cfcam_onnx._graph import reads
from onnx import numpy_helper
from whole_models import CLOSE, images, numeric_gradient, opened

from cfcam_core import Backend, InvalidInputError, LayerNotFoundError

# -------------------------------------------------------------------------------------- scores_from


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


# ------------------------------------------------------------------------------- what is left alone


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
    program = backend._sessions.program("gradient", "stem")
    onnx.checker.check_model(program, full_check=True)
    assert {node.domain for node in program.graph.node} == {""}
    forward = [node.SerializeToString() for node in small().graph.node]
    assert [node.SerializeToString() for node in program.graph.node][: len(forward)] == forward


def test_what_a_subgraph_reads() -> None:
    inside = onnx.helper.make_node("Sum", ["weight", "given", "outer"], ["made"])
    weight = numpy_helper.from_array(np.zeros(2, np.float32), "weight")
    info = onnx.helper.make_tensor_value_info
    given, made = (info(name, onnx.TensorProto.FLOAT, [2]) for name in ("given", "made"))
    body = onnx.helper.make_graph([inside], "body", [given], [made], [weight])
    node = onnx.helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    assert list(reads(node)) == ["x", "outer"]


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


# ----------------------------------------------------------------------------- other kinds of model


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


def test_tokens_of_no_grid_have_no_input_size(net: Any) -> None:
    n = net("N", 3, 6, 6)
    tokens = n.add("Reshape", n.conv(n.x, 3, 4), np.array([0, 2, 72]), name="tokens")
    backend = opened(n.model(n.add("MatMul", n.add("Flatten", tokens), n.normal(144, 5))))
    assert backend.capture(images(1, 3, 6, 6), layer="tokens").input_size is None


def test_programs_of_ours_are_models_too(small: Any) -> None:
    backend, x = opened(small()), images()
    wanted = backend.capture(x)
    for kind in ("forward", "gradient"):
        again = opened(backend._sessions.program(kind, "last"))
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
