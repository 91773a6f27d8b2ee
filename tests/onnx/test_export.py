"""Explain-ready files: run by plain onnxruntime, they give what `capture` and `explain` give."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ready_files import same
from whole_models import CLOSE, images, opened

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, LayerNotFoundError
from cfcam_core.demo.shipped import MODEL

pytestmark = pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")


# -------------------------------------------------------------------- the same as the original


@pytest.mark.parametrize("layer", [None, "stem", "inner", "gated", "x"])
def test_the_file_gives_what_capture_gives(small: Any, exported: Any, layer: Any) -> None:
    original, path, run = exported(small(), layer=layer)
    assert run.inputs == {"x": "tensor(float)", "class_index": "tensor(int64)"}
    assert run.outputs == ["logits", "activations", "gradients"]
    x = images()
    for target, classes in ((None, [-1] * 3), (2, [2] * 3), ([4, 0, 1], [4, 0, 1])):
        wanted, found = original.capture(x, layer=layer, target=target), run(x, classes)
        np.testing.assert_allclose(found["logits"], wanted.scores, **CLOSE)
        np.testing.assert_allclose(found["activations"], wanted.activations, **CLOSE)
        np.testing.assert_allclose(found["gradients"], wanted.gradients, **CLOSE)
        assert abs(found["gradients"]).max() > 1e-4
        same(original, path, x, layer, target=target, method="cf-cam")
    mixed = run(x, [-1, 3, -1])["gradients"]
    best = original.scores(x).argmax(axis=1)
    np.testing.assert_allclose(mixed, run(x, [best[0], 3, best[2]])["gradients"], **CLOSE)


def test_a_callable_target_picks_classes_or_is_refused(small: Any, exported: Any) -> None:
    original, path, _ = exported(small())
    found = same(original, path, images(), target=lambda scores: scores.argmin(axis=1))
    np.testing.assert_array_equal(found.targets, found.scores.argmin(axis=1))
    with pytest.raises(InvalidInputError, match=r"coefficients of shape \(3, 5\)"):
        cfcam.explain(path, images(), target=lambda scores: scores * 0.5)
    with pytest.raises(InvalidInputError, match="5 classes, 0 to 4"):
        cfcam.explain(path, images(), target=5)


@pytest.mark.parametrize(("dtype", "close"), [(np.float16, 2e-3), (np.float64, 1e-6)])
def test_outputs_are_float32_whatever_the_model_is(
    net: Any, exported: Any, dtype: Any, close: float
) -> None:
    n = net("N", 4, 6, 5, dtype=dtype)
    last = n.add("Tanh", n.add("MatMul", n.x, n.normal(5, 3)), name="last")
    flat = n.add("ReduceMean", n.add("Sigmoid", last), axes=[2, 3], keepdims=0)
    logits = n.add("MatMul", flat, n.normal(4, 3))
    original, _, run = exported(n.model(logits), layer="last", with_map=True)
    x = images(3, 4, 6, 5)
    wanted, found = original.capture(x, layer="last"), run(x.astype(dtype), [-1] * 3)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found["logits"], wanted.scores, close, close)
    np.testing.assert_allclose(found["activations"], wanted.activations, close, close)
    np.testing.assert_allclose(found["gradients"], wanted.gradients, close, close * 0.01)


@pytest.mark.parametrize("opset", [9, 13, 17, 18, 21])
def test_operator_sets_and_a_closing_softmax(small: Any, exported: Any, opset: int) -> None:
    original, path, _ = exported(small(opset=opset, closing="Softmax"), with_map=True)
    same(original, path, images(), method="grad-cam")
    assert cfcam.open_model(path).logits_behind == ("Softmax",)


def test_logits_with_axes_of_size_one(net: Any, exported: Any) -> None:
    n = net("N", 3, 12, 10)
    last = n.add("Tanh", n.conv(n.x, 3, 5), name="last")
    original, path, run = exported(n.model(n.add("GlobalAveragePool", last)), with_map=True)
    assert run(images(), [-1, 0, 1])["logits"].shape == (3, 5)
    same(original, path, images())


def test_a_fixed_batch_stays_fixed_and_other_numbers_of_samples_work(
    small: Any, exported: Any
) -> None:
    original, path, run = exported(small(2, 3, 12, 10))
    assert run.session.get_inputs()[1].shape == [2]
    found = same(original, path, images(), target=[0, 1, 2])
    one = cfcam.explain(path, images()[:1], target=0, method="hires-cam")
    assert one.maps.shape == (1, *found.maps.shape[1:])


def test_a_batch_gives_what_its_samples_give(small: Any, exported: Any) -> None:
    _, path, _ = exported(small())
    x, backend = images(5, 3, 12, 10), cfcam.open_model(path)
    together = cfcam.explain(backend, x, target=[0, 1, 2, 3, 4], method="hires-cam")
    for n in range(5):
        alone = cfcam.explain(backend, x[n], target=n, method="hires-cam")
        np.testing.assert_allclose(alone.maps[0], together.maps[n], rtol=1e-5, atol=1e-6)


def test_channels_last_comes_out_channels_first(net: Any, exported: Any) -> None:
    n = net("N", 12, 10, 3)
    moved = n.add("Transpose", n.x, perm=[0, 3, 1, 2])
    back = n.add("Transpose", n.add("Tanh", n.conv(moved, 3, 6)), perm=[0, 2, 3, 1], name="back")
    dense = n.add("Softplus", n.add("MatMul", back, n.normal(6, 7)), name="dense")
    pooled = n.add("ReduceMean", dense, axes=[1, 2], keepdims=0)
    original, path, run = exported(
        n.model(n.add("MatMul", pooled, n.normal(7, 5))), layer="back", with_map=True
    )
    x = images(2, 12, 10, 3)
    found = run(x, [1, 2])
    assert found["activations"].shape == (2, 6, 12, 10)
    assert found["heatmap"].shape == (2, 12, 10)
    assert cfcam.open_model(path).input_layout == "channels_last"
    same(original, path, x, "back")


def test_several_inputs(net: Any, exported: Any) -> None:
    n = net("N", 3, 8, 6)
    extra = n.input("extra", "N", 4)
    last = n.add("Tanh", n.conv(n.x, 3, 5), name="last")
    flat = n.add("Flatten", n.add("GlobalAveragePool", last))
    logits = n.add("MatMul", n.add("Concat", flat, extra, axis=1), n.normal(9, 3))
    original, path, _ = exported(n.model(logits))
    x = {"x": images(2, 3, 8, 6), "extra": images(2, 4)}
    same(original, path, x)
    assert cfcam.open_model(path).input_names == ("x", "extra")


def test_the_output_is_chosen_by_name_with_the_inputs_it_needs(net: Any, exported: Any) -> None:
    n = net("N", 3, 8, 6)
    extra = n.input("extra", "N", 4)
    last = n.add("Tanh", n.conv(n.x, 3, 5), name="last")
    first, second = n.head(last, 5, 3), n.head(last, 5, 4)
    other = n.add("MatMul", extra, n.normal(4, 4))
    original, path, run = exported(
        n.model(first, second, other), output=second, layer="last", with_map=True
    )
    assert set(run.inputs) == {"x", "class_index"}
    x = images(2, 3, 8, 6)
    found, wanted = (
        cfcam.explain(model, given, method="grad-cam")
        for model, given in ((path, x), (original, {"x": x, "extra": images(2, 4)}))
    )
    assert found.scores.shape == (2, 4)
    np.testing.assert_allclose(found.maps, wanted.maps, **CLOSE)


def patches(n: Any, size: tuple[int, int], prefix: int) -> str:
    """Tokens of 4 x 4 patches, a class token in front, mixed with each other twice."""
    cells = n.add("Conv", n.x, n.normal(6, 3, 4, 4), strides=[4, 4])
    x = n.add("Transpose", n.add("Reshape", cells, np.array([0, 6, -1])), perm=[0, 2, 1])
    if prefix:
        batch = n.add("Slice", n.add("Shape", n.x), np.array([0]), np.array([1]))
        shape = n.add("Concat", batch, np.array([prefix, 6]), axis=0)
        x = n.add("Concat", n.add("Expand", n.normal(1, prefix, 6), shape), x, axis=1)
    for i in range(2):
        weights = n.add("Softmax", n.add("MatMul", x, n.add("Transpose", x, perm=[0, 2, 1])))
        mixed = n.add("MatMul", n.add("MatMul", weights, x), n.normal(6, 6))
        x = n.add("Tanh", n.add("Add", x, mixed), name=f"block{i}")
    return n.add("MatMul", n.add("ReduceMean", x, axes=[1], keepdims=0), n.normal(6, 5))


@pytest.mark.parametrize("prefix", [0, 1])
def test_tokens_are_laid_on_their_grid_inside_the_file(
    net: Any, exported: Any, prefix: int
) -> None:
    n = net("N", 3, 20, 12)
    original, path, run = exported(
        n.model(patches(n, (20, 12), prefix)), layer="block0", with_map=True
    )
    x = images(2, 3, 20, 12)
    found = run(x, [-1, -1])
    assert found["activations"].shape == (2, 6, 5, 3)
    assert found["heatmap"].shape == (2, 20, 12)
    same(original, path, x, "block0")


@pytest.mark.parametrize("prefix", [0, 1])
def test_tokens_of_an_open_size_are_laid_out_by_the_reader(
    net: Any, tmp_path: Path, prefix: int
) -> None:
    n, path = net("N", 3, "H", "W"), tmp_path / "tokens.onnx"
    original = opened(n.model(patches(n, (20, 12), prefix)))
    with pytest.warns(UserWarning, match="stay in a row"):
        original.export(path, layer="block0")
    for size in ((20, 12), (8, 24)):
        x = images(2, 3, *size)
        found = same(original, path, x, "block0")
        assert found.maps.shape == (2, size[0] // 4, size[1] // 4)
    with pytest.raises(InvalidInputError, match=r"cannot be made inside.*fixed size"):
        original.export(path, layer="block0", with_map=True)
    with pytest.raises(InvalidInputError, match=r"are no rows and columns of .* of 5 x 40"):
        cfcam.explain(path, images(2, 3, 5, 40), layer="block0")


# ---------------------------------------------------------------------------------- with the map


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (("N", 3, 12, 10), [(12, 10)]),
        (("N", 3, "H", "W"), [(12, 10), (31, 9), (16, 16), (5, 40)]),
        (("N", 2, 40), [(40,)]),
        (("N", 2, 8, 10, 6), [(8, 10, 6)]),
    ],
)
def test_the_map_inside_is_grad_cam(net: Any, exported: Any, shape: Any, sizes: Any) -> None:
    n, axes = net(*shape), len(shape) - 2
    weight = n.normal(6, shape[1], *[3] * axes)
    strided = n.add("Conv", n.x, weight, strides=[2] * axes, pads=[1] * 2 * axes)
    last = n.add("Tanh", strided, name="last")
    mean = n.add("ReduceMean", n.add("Exp", last), axes=[*range(2, axes + 2)], keepdims=0)
    original, _, run = exported(
        n.model(n.add("MatMul", mean, n.normal(6, 4))), layer="last", with_map=True
    )
    assert run.outputs == ["logits", "activations", "gradients", "map", "heatmap"]
    for size in sizes:
        x = images(3, shape[1], *size)
        for target, classes in ((None, [-1] * 3), ([0, 1, 2], [0, 1, 2])):
            wanted = cfcam.explain(original, x, layer="last", target=target, method="grad-cam")
            found = run(x, classes)
            np.testing.assert_allclose(found["map"], wanted.maps, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(found["heatmap"], wanted.heatmaps, atol=1e-5)
            assert wanted.heatmaps.max() == 1
            assert found["map"].min() < 0


def test_a_blank_map_is_zero_and_not_nan(net: Any, exported: Any) -> None:
    n = net("N", 3, 12, 10)
    n.conv(n.x, 3, 6)
    logits = n.head(n.add("Relu", n.add("Add", n.nodes[-1].output[0], np.float32(-99))), 6, 4)
    _, _, run = exported(n.model(logits), with_map=True)
    found = run(images(), [-1] * 3)
    assert not found["heatmap"].any()
    assert not found["map"].any()


def test_the_example_in_python(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "examples" / "explain_ready"
    for name in ("use.py", "scene.png"):
        shutil.copy(folder / name, tmp_path)
    cfcam_onnx.export(MODEL, tmp_path / "digits.explain.onnx", with_map=True)
    done = subprocess.run(
        [sys.executable, "use.py", "6"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert said[0] == "digit 6, logit 10.320"
    assert float(said[1].rpartition(" ")[2]) < 1e-5
    assert "\n".join([said[0], said[2]]) in (folder / "README.md").read_text()
    assert (tmp_path / "use-py.png").is_file()


# ------------------------------------------------------------------------------ what is in the file


def test_names_that_are_ours_are_taken_from_the_model(net: Any, exported: Any) -> None:
    n = net("N", 3, 8, 6)
    n.inputs[0].name = n.x = "heatmap"
    first = n.add("Tanh", n.conv(n.x, 3, 4), name="gradients")
    branch = [
        helper.make_graph(
            [helper.make_node(op, [first], ["activations"])],
            op,
            [],
            [helper.make_tensor_value_info("activations", TensorProto.FLOAT, None)],
        )
        for op in ("Identity", "Neg")
    ]
    on = numpy_helper.from_array(np.array(True), "on")
    n.weights.append(on)
    n.nodes.append(
        helper.make_node(
            "If", ["on"], ["class_index"], then_branch=branch[0], else_branch=branch[1]
        )
    )
    last = n.add("Tanh", n.conv("class_index", 4, 5), name="model_logits")
    big = n.normal(5, 300)
    n.weights.append(numpy_helper.from_array(big, "map"))
    flat = n.add("Flatten", n.add("GlobalAveragePool", last))
    wide = n.add("MatMul", flat, "map", name="wide")
    logits = n.add("MatMul", wide, n.normal(300, 3), name="logits")
    original, path, run = exported(n.model(logits), layer="model_logits", with_map=True)
    assert run.inputs == {"model_heatmap": "tensor(float)", "class_index": "tensor(int64)"}
    assert run.outputs == ["logits", "activations", "gradients", "map", "heatmap"]
    x = images(2, 3, 8, 6)
    wanted, found = original.capture(x, layer="model_logits", target=1), run(x, [1, 1])
    np.testing.assert_allclose(found["gradients"], wanted.gradients, **CLOSE)
    same(original, path, x, "model_logits")


def test_the_metadata_say_what_it_is(small: Any, tmp_path: Path) -> None:
    model, source, path = small(closing="Softmax"), tmp_path / "m.onnx", tmp_path / "e.onnx"
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, source)
    before = source.read_bytes()
    layer = cfcam_onnx.export(source, path, layer="gated")
    assert (layer.name, layer.kind, layer.shape) == ("gated", "Mul", (None, 8, 6, 5))
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said == {
        "author": "somebody",
        "cfcam.format": "1",
        "cfcam.version": cfcam.__version__,
        "cfcam.layer": "gated",
        "cfcam.kind": "Mul",
        "cfcam.source_sha256": hashlib.sha256(before).hexdigest(),
        "cfcam.logits_behind": "Softmax",
        "cfcam.input": "x",
        "cfcam.input_axes": "2,3",
    }
    assert source.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, source]


def test_the_layer_is_known_by_its_module_too(net: Any, exported: Any) -> None:
    n = net("N", 3, 8, 6)
    a = n.add("Tanh", n.conv(n.x, 3, 4), name="/net/layer1/act/Tanh_output_0")
    n.nodes[-1].name = "/net/layer1/act/Tanh"
    original, path, _ = exported(n.model(n.head(a, 4)), layer="net.layer1.act")
    ready = cfcam.open_model(path)
    (layer,) = ready.layers()
    assert (layer.name, layer.module) == (a, "net.layer1.act")
    x = images(2, 3, 8, 6)
    wanted = original.capture(x, layer=a, target=1).gradients
    for name in (a, "net.layer1.act", "layer1.act", layer, 0, None):
        found = ready.capture(x, layer=name, target=1)
        np.testing.assert_allclose(found.gradients, wanted, **CLOSE)
        assert found.layer == a
    for name in ("layer1", "net.layer1.act.more", "Tanh_output_0", ""):
        with pytest.raises(LayerNotFoundError, match="explains the layer"):
            ready.capture(x, layer=name)


def test_limits_hold_for_an_export_too(small: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="more than 5 nodes"):
        cfcam_onnx.export(small(), tmp_path / "e.onnx", limits=cfcam_onnx.Limits(nodes=5))


def test_paths_bytes_and_protos_make_the_same_file(small: Any, tmp_path: Path) -> None:
    model, source = small(), tmp_path / "m.onnx"
    onnx.save(model, source)
    made = []
    for given in (source, str(source), source, source.read_bytes(), model):
        cfcam_onnx.export(given, tmp_path / "e.onnx")
        made.append((tmp_path / "e.onnx").read_bytes())
    assert made[0] == made[1] == made[2]
    assert made[3] == made[4]
    graphs = [onnx.load_model_from_string(data).graph for data in made]
    assert all(graph == graphs[0] for graph in graphs)


def test_the_nodes_are_the_models_own_and_standard_ones(small: Any, exported: Any) -> None:
    _, path, _ = exported(small(), with_map=True)
    nodes = onnx.load(path).graph.node
    own = [node.SerializeToString() for node in small().graph.node]
    assert [node.SerializeToString() for node in nodes][: len(own)] == own
    assert {node.domain for node in nodes} == {""}
