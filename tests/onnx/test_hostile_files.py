"""Files that are damaged, reach for other files or ask for too much: typed errors, no harm."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cfcam_onnx import Limits
from onnx import TensorProto, helper, numpy_helper

from cfcam_core import InvalidInputError


def test_a_name_that_is_no_text(small: Any) -> None:
    damaged = small().SerializeToString().replace(b"node_inner", b"node_\xff\xfener")
    with pytest.raises(InvalidInputError, match="names that are no text"):
        cfcam_onnx.open_model(damaged)


# --------------------------------------------------------------------------- weights in other files


def with_weights(model: Any, path: Path, location: str) -> bytes:
    """Write the model with its first weight in another file, and return the weight."""
    weight = model.graph.initializer[0]
    raw = bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, location, length=len(raw))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    return raw


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_outside_the_folder(location: str, small: Any, tmp_path: Path) -> None:
    model, folder = small(), tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(10_000))
    with_weights(model, folder / "model.onnx", location)
    with pytest.raises(InvalidInputError, match="must lie in the model's folder or below it"):
        cfcam_onnx.open_model(folder / "model.onnx")
    with pytest.raises(InvalidInputError, match="refers to weights in another file; pass the path"):
        cfcam_onnx.open_model(model)


@pytest.mark.parametrize("link", ["symbolic", "hard", "folder"])
def test_links_to_weights_outside_the_folder(link: str, small: Any, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    location = "sub/weights.bin" if link == "folder" else "weights.bin"
    raw = with_weights(small(), inside / "model.onnx", location)
    (outside / "weights.bin").write_bytes(raw)
    if link == "symbolic":
        (inside / "weights.bin").symlink_to(outside / "weights.bin")
    elif link == "hard":
        os.link(outside / "weights.bin", inside / "weights.bin")
    else:
        (inside / "sub").symlink_to(outside)
    with pytest.raises(InvalidInputError, match="must lie in the model's folder or below it"):
        cfcam_onnx.open_model(inside / "model.onnx")


@pytest.mark.parametrize("place", ["attribute", "subgraph", "function", "sparse"])
def test_weights_elsewhere_are_found_wherever_they_hide(place: str, net: Any) -> None:
    secret = numpy_helper.from_array(np.ones(4, np.float32), "secret")
    onnx.external_data_helper.set_external_data(secret, "/etc/hostname", length=16)
    secret.ClearField("raw_data")
    secret.data_location = TensorProto.EXTERNAL
    n = net("N", 3, 6, 6)
    model = n.model(n.head(n.conv(n.x, 3, 4), 4))
    constant = helper.make_node("Constant", [], ["secret"], value=secret)
    if place == "attribute":
        model.graph.node.append(constant)
    elif place == "subgraph":
        output = helper.make_tensor_value_info("secret", TensorProto.FLOAT, [4])
        body = helper.make_graph([constant], "body", [], [output])
        branches = {"then_branch": body, "else_branch": body}
        model.graph.node.append(helper.make_node("If", ["w0"], ["either"], **branches))
    elif place == "function":
        imports = [helper.make_opsetid("", 17)]
        model.functions.append(
            helper.make_function("acme", "F", [], ["secret"], [constant], imports)
        )
    else:
        index = numpy_helper.from_array(np.arange(4), "index")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(secret, index, [9]))
    for source in (model, model.SerializeToString()):
        with pytest.raises(InvalidInputError, match=r"weights in another file|or other files"):
            cfcam_onnx.open_model(source)


def test_a_model_in_a_hub_s_cache(small: Any, tmp_path: Path) -> None:
    """There both files are links to files that are named after their contents."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "4f2c"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    onnx.save(
        *(small(), snapshot / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    for name in ("model.onnx", "model.onnx_data"):
        (snapshot / name).rename(blobs / f"sum_{name}")
        (snapshot / name).symlink_to(Path("..", "..", "blobs", f"sum_{name}"))
    x = np.ones((1, 3, 12, 10), np.float32)
    wanted = cfcam_onnx.open_model(small()).scores(x)
    np.testing.assert_array_equal(cfcam_onnx.open_model(snapshot / "model.onnx").scores(x), wanted)
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to(Path("..", "..", "secret"))
    with pytest.raises(InvalidInputError, match="must lie in the model's folder or below it"):
        cfcam_onnx.open_model(snapshot / "model.onnx")


def test_weights_beside_the_file(small: Any, tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", np.ones((1, 3, 12, 10), np.float32)
    onnx.save(small(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    wanted = cfcam_onnx.open_model(small()).scores(x)
    np.testing.assert_array_equal(cfcam_onnx.open_model(path).scores(x), wanted)


# --------------------------------------------------------------------- models that ask for too much


def grown(n: Any, big: str) -> onnx.ModelProto:
    """A small classifier that also adds the mean of a tensor to its maps."""
    mean = n.add("ReduceMean", big, keepdims=0)
    return n.model(n.head(n.add("Add", n.conv(n.x, 3, 4), mean), 4))


FIVE_GIGA = np.array([5 << 30])

GIANTS: dict[str, tuple[Any, ...]] = {
    "ConstantOfShape": (FIVE_GIGA,),
    "Expand": (np.float32([1]), FIVE_GIGA),
    "Tile": (np.float32([1]), FIVE_GIGA),
    "Pad": (np.float32([1]), np.array([0, 5 << 30])),
    "Range": (np.float32(0), np.float32(5 << 30), np.float32(1)),
    "Resize": (np.ones((1, 1), np.float32), "", "", np.array([1 << 16, 5 << 14])),
    "OneHot": (np.array([0]), FIVE_GIGA, np.float32([0, 1])),
}
"""Operators that make 20 GB of a few bytes, and what they read."""


@pytest.mark.parametrize("shape", [("N", 3, "H", "W"), (1, 3, 12, 10)], ids=["open", "fixed"])
@pytest.mark.parametrize("operator", GIANTS)
def test_giant_tensors(operator: str, shape: tuple[Any, ...], net: Any) -> None:
    n = net(*shape)
    model = grown(n, n.add(operator, *GIANTS[operator]))
    with pytest.raises(InvalidInputError, match=r"memory= of|5368709120"):
        cfcam_onnx.open_model(model, threads=1).scores(np.ones((1, 3, 12, 10)))


def test_a_tensor_that_is_giant_only_for_some_inputs(net: Any) -> None:
    n = net("N", 3, "H", "W")
    high = n.add("Floor", n.add("Div", n.add("ReduceMax", n.x, keepdims=0), np.float32(100)))
    size = n.add("Cast", n.add("Mul", high, np.float32(5 << 30)), to=7)
    model = grown(n, n.add("ConstantOfShape", n.add("Reshape", size, np.array([1]))))
    backend, ones = cfcam_onnx.open_model(model, threads=1), np.ones((1, 3, 12, 10))
    backend.capture(ones)
    for call in (backend.scores, backend.capture):
        with pytest.raises(InvalidInputError, match=r"8,589,934,592 bytes.*raise memory= of"):
            call(100 * ones)
    backend.capture(ones)


def test_memory_that_is_allowed(net: Any) -> None:
    n = net(1, 3, 12, 10)
    model = grown(n, n.add("ConstantOfShape", np.array([1 << 22])))
    with pytest.raises(InvalidInputError, match=r"needs 16,7.* bytes for one run, most of them"):
        cfcam_onnx.open_model(model, limits=Limits(memory=1 << 24))
    x = np.ones((1, 3, 12, 10))
    assert cfcam_onnx.open_model(model, limits=Limits(memory=1 << 25)).scores(x).shape == (1, 5)


def test_results_that_are_kept_do_not_count_as_memory(net: Any) -> None:
    n = net("N", 3, "H", "W")
    zeros = n.add("ConstantOfShape", n.add("Mul", n.add("Shape", n.x), np.array(1)))
    mean = n.add("ReduceMean", zeros, keepdims=0)
    a = n.add("Tanh", n.add("Add", n.conv(n.x, 3, 16), mean), name="a")
    backend = cfcam_onnx.open_model(
        n.model(n.head(a, 16)), threads=1, limits=Limits(memory=100 << 20)
    )
    assert backend._model.bounds.memory
    x = np.ones((1, 3, 200, 200))
    kept = [backend.capture(x, layer="a").activations for _ in range(60)]
    assert sum(array.nbytes for array in kept) > 140 << 20


@pytest.mark.parametrize(
    ("sizes", "watched"), [("none", False), ("picked", False), ("computed", True), ("data", True)]
)
def test_what_is_watched(sizes: str, watched: Any, net: Any) -> None:
    """An Expand to the sizes of the input is as ordinary as a convolution; numbers may be any."""
    n = net("N", 3, "H", "W")
    a = n.conv(n.x, 3, 4)
    if sizes != "none":
        shape = n.add("Shape", n.x)
        if sizes == "picked":
            high = n.add("Gather", shape, np.array([2]))
        elif sizes == "computed":
            high = n.add("Div", n.add("Gather", shape, np.array([2])), np.array([2]))
        else:
            total = n.add("Abs", n.add("ReduceMax", n.x, keepdims=0))
            high = n.add("Reshape", n.add("Cast", n.add("Ceil", total), to=7), np.array([1]))
        wide = n.add("Expand", np.float32([1]), n.add("Concat", high, np.array([4]), axis=0))
        a = n.add("Add", a, n.add("ReduceMean", wide, keepdims=0))
    model = n.model(n.head(a, 4))
    assert (cfcam_onnx.open_model(model, threads=1)._model.bounds.memory is not None) == watched
    limits = Limits(memory=1 << 18)  # too little for a trial run, which is always watched
    assert cfcam_onnx.open_model(model, threads=1, limits=limits)._model.bounds.memory == 1 << 18


def test_sessions_of_others_may_take_what_they_want(net: Any) -> None:
    """They may share the arena that is the process's."""
    n = net("N", 3, "H", "W")
    zeros = n.add("ConstantOfShape", n.add("Mul", n.add("Shape", n.x), np.array(1)))
    small = cfcam_onnx.open_model(grown(n, zeros), threads=1, limits=Limits(memory=60 << 20))
    small.scores(np.ones((1, 3, 12, 10)))
    n = net("N")
    wide = n.add("Expand", n.x, np.array([64 << 20, 1]))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    other = ort.InferenceSession(
        n.model(n.add("ReduceSum", n.add("Neg", wide))).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    assert other.run(None, {"x": np.ones(1, np.float32)})[0].item() == -(64 << 20)


def test_a_batch_that_no_memory_holds(net: Any) -> None:
    n = net(1 << 40, 3, 6, 6)
    model = n.model(n.head(n.conv(n.x, 3, 4), 4))
    with pytest.raises(InvalidInputError, match=r"bytes for one run.*are allowed"):
        cfcam_onnx.open_model(model)


@pytest.mark.parametrize("inputs", ["shape", "input", "weight"])
def test_a_tensor_with_millions_of_axes(inputs: str, net: Any) -> None:
    n = net("N", 3, 6, 6)
    if inputs == "shape":
        sizes = n.add("Shape", n.x)
        for _ in range(40):
            sizes = n.add("Concat", sizes, sizes, axis=0)
    elif inputs == "input":
        n.inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [1 << 31]))
        sizes = "sizes"
    else:
        ones = numpy_helper.from_array(np.array([1]))
        sizes = n.add("ConstantOfShape", np.array([1 << 31]), value=ones)
    for operator, *first in (("ConstantOfShape",), ("Expand", np.float32([1]))):
        model = grown(n, n.add(operator, *first, sizes))
        with pytest.raises(InvalidInputError, match="axes; at most 64 are allowed"):
            cfcam_onnx.open_model(model)


@pytest.mark.parametrize("stored", ["initializer", "constant"])
def test_sparse_weights(stored: str, net: Any) -> None:
    """A few bytes that stand for many are written out, up to a limit."""

    def model(size: int, at: int) -> onnx.ModelProto:
        n = net(1, 3, 6, 6)
        values = numpy_helper.from_array(np.float32([7]), "sparse")
        where = numpy_helper.from_array(np.array([at]), "at")
        tensor = helper.make_sparse_tensor(values, where, [size])
        if stored == "constant":
            n.nodes.append(helper.make_node("Constant", [], ["sparse"], sparse_value=tensor))
        found = grown(n, "sparse")
        if stored == "initializer":
            found.graph.sparse_initializer.append(tensor)
        return found

    x = np.ones((1, 3, 6, 6))
    scores = [cfcam_onnx.open_model(model(7, at)).scores(x) for at in (3, 6)]
    np.testing.assert_array_equal(*scores)
    assert np.abs(scores[0] - cfcam_onnx.open_model(model(70, 3)).scores(x)).max() > 0.01
    with pytest.raises(InvalidInputError, match="raise sparse= of"):
        cfcam_onnx.open_model(model(1 << 50, 0))
    with pytest.raises(InvalidInputError, match="does not fit its shape"):
        cfcam_onnx.open_model(model(7, 7))


def looping(n: Any, trips: Any) -> str:
    """Add a Loop that applies tanh again and again, and is told a number of trips only."""
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Tanh", ["v"], ["w"]),
    ]
    outputs = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    return n.add("Loop", trips, "", n.head(n.conv(n.x, 3, 4), 4), body=body)


def test_a_loop_without_end(net: Any) -> None:
    n = net("N", 3, "H", "W")
    model = n.model(looping(n, np.array(2**62)))
    with pytest.raises(InvalidInputError, match=r"trial run failed: .* did not end within 0\.1 s"):
        cfcam_onnx.open_model(model, limits=Limits(trial_seconds=0.1))


def test_a_loop_that_is_without_end_for_some_inputs(net: Any) -> None:
    n = net("N", 3, 6, 6)
    high = n.add("Floor", n.add("Div", n.add("ReduceMax", n.x, keepdims=0), np.float32(100)))
    trips = n.add("Cast", n.add("Mul", high, np.float32(1e15)), to=7)
    model = n.model(looping(n, trips))
    backend = cfcam_onnx.open_model(model, threads=1, limits=Limits(loop_seconds=0.2))
    ones = np.ones((1, 3, 6, 6))
    assert backend.scores(ones).shape == (1, 5)
    with pytest.raises(InvalidInputError, match=r"did not end within 0\.2 s.*loop_seconds="):
        backend.scores(100 * ones)


@pytest.mark.parametrize("calls", [30, 2000])
def test_functions_that_grow_without_bounds(calls: int, net: Any) -> None:
    """Each function calls the one before twice, or once in a very long row; the first itself."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    times = 2 if calls < 100 else 1

    def function(i: int) -> onnx.FunctionProto:
        names = ["x", *(f"t{k}" for k in range(1, times)), "y"]
        op, domain = (f"F{i - 1}", "acme") if i else ("Relu", "")
        nodes = [helper.make_node(op, [a], [b], domain=domain) for a, b in pairwise(names)]
        return helper.make_function("acme", f"F{i}", ["x"], ["y"], nodes, imports)

    n = net("N", 3, 6, 6)
    applied = n.add(f"F{calls - 1}", n.conv(n.x, 3, 4), domain="acme")
    model = n.model(n.head(applied, 4))
    model.functions.extend(map(function, range(calls)))
    with pytest.raises(InvalidInputError, match=r"more than 50,000 nodes.*or functions within"):
        cfcam_onnx.open_model(model)


def test_a_function_that_calls_itself(net: Any) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    nodes = [helper.make_node("F", ["x"], ["y"], domain="acme")]
    n = net("N", 3, 6, 6)
    model = n.model(n.head(n.add("F", n.conv(n.x, 3, 4), domain="acme"), 4))
    model.functions.append(helper.make_function("acme", "F", ["x"], ["y"], nodes, imports))
    with pytest.raises(InvalidInputError, match="more than 50,000 nodes"):
        cfcam_onnx.open_model(model)


@pytest.mark.parametrize("deep", [40, 10_000])
def test_graphs_within_graphs(deep: int, small: Any) -> None:
    model = small()
    graph = model.graph
    for _ in range(deep):
        node = graph.node.add(op_type="If", input=["stem"], output=["y"])
        graph = node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    with pytest.raises(InvalidInputError, match="more than 32 deep"):
        cfcam_onnx.open_model(model)


def test_too_many_nodes_attributes_and_letters(small: Any) -> None:
    with pytest.raises(InvalidInputError, match="more than 10 nodes"):
        cfcam_onnx.open_model(small(), limits=Limits(nodes=10))
    model = small()
    for i in range(1000):
        model.graph.node[0].attribute.add(name=f"a{i}", type=onnx.AttributeProto.INT, i=1)
    with pytest.raises(InvalidInputError, match=r"1,00\d attributes; at most 256"):
        cfcam_onnx.open_model(model)
    model = small()
    model.graph.node[0].name = "n" * 100_000
    with pytest.raises(InvalidInputError, match="a name of 100,000 characters"):
        cfcam_onnx.open_model(model)


def test_a_circle_is_named_in_part(net: Any) -> None:
    n = net("N", 3, 6, 6)
    ring = [helper.make_node("Relu", [f"r{i}"], [f"r{(i + 1) % 2000}"]) for i in range(2000)]
    n.nodes.extend(ring)
    with pytest.raises(InvalidInputError, match="runs in a circle") as caught:
        cfcam_onnx.open_model(n.model(n.head(n.conv(n.x, 3, 4), 4)))
    assert len(str(caught.value)) < 400


def test_integers_divided_by_minus_one(net: Any) -> None:
    """The smallest integer divided by -1 ends a process on common processors."""
    n = net(1, 3, 6, 6)
    quotient = n.add("Div", np.array([-(2**63)]), np.array([-1]))
    with pytest.raises(InvalidInputError, match="divides integers by -1"):
        cfcam_onnx.open_model(grown(n, n.add("Cast", quotient, to=1)))


@pytest.mark.parametrize("field", ["nodes", "memory", "trial_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "many", None, True])
def test_a_limit_that_is_none(field: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"the limit {field}="):
        Limits(**{field: value})
