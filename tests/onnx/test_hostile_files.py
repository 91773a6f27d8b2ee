"""Files that are damaged, reach for other files or ask for too much: typed errors, no harm."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cfcam_core
from cfcam_core import InvalidInputError


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
        with pytest.raises(InvalidInputError, match="refers to weights in another file"):
            cfcam_onnx.open_model(source)


def test_weights_beside_the_file(small: Any, tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", np.ones((1, 3, 12, 10), np.float32)
    onnx.save(small(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    wanted = cfcam_onnx.open_model(small()).scores(x)
    np.testing.assert_array_equal(cfcam_onnx.open_model(path).scores(x), wanted)


# --------------------------------------------------------------------- models that ask for too much


def test_a_batch_that_no_memory_holds(net: Any) -> None:
    n = net(1 << 40, 3, 6, 6)
    n.add("Shape", n.x)  # calls for a trial run
    backend = cfcam_onnx.open_model(n.model(n.head(n.conv(n.x, 3, 4), 4)), threads=1)
    for call in (backend.scores, backend.capture):
        with pytest.raises(InvalidInputError, match=f"takes {1 << 40} samples at a time"):
            call(np.ones((1, 3, 6, 6)))


def test_a_loop_without_end(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfcam_onnx._probe.TRIAL_SECONDS", 0.1)
    n = net("N", 3, "H", "W")
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
    out = n.add("Loop", np.array(2**62), "", n.head(n.conv(n.x, 3, 4), 4), body=body)
    with pytest.raises(InvalidInputError, match=r"trial run failed: it did not end within 0\.1 s"):
        cfcam_onnx.open_model(n.model(out))


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
    grown = n.add(f"F{calls - 1}", n.conv(n.x, 3, 4), domain="acme")
    model = n.model(n.head(grown, 4))
    model.functions.extend(map(function, range(calls)))
    with pytest.raises(InvalidInputError, match="more than 1,000,000 nodes"):
        cfcam_onnx.open_model(model)


def test_a_function_that_calls_itself(net: Any) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    nodes = [helper.make_node("F", ["x"], ["y"], domain="acme")]
    n = net("N", 3, 6, 6)
    model = n.model(n.head(n.add("F", n.conv(n.x, 3, 4), domain="acme"), 4))
    model.functions.append(helper.make_function("acme", "F", ["x"], ["y"], nodes, imports))
    with pytest.raises(InvalidInputError, match="more than 1,000,000 nodes"):
        cfcam_onnx.open_model(model)
