"""Copies of a model with its weights in random order, wherever the file keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cfcam_core import InvalidInputError

X = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)


def opened(model: Any) -> cfcam_onnx.OnnxBackend:
    backend = cfcam_onnx.open_model(model, threads=1, cache=False)
    assert isinstance(backend, cfcam_onnx.OnnxBackend)
    return backend


def plain(net: Any, width: int = 32) -> onnx.ModelProto:
    n = net("N", 3, 8, 8)
    x = n.add("Relu", n.conv(n.x, 3, width), name="stem")
    x = n.add("Relu", n.conv(x, width, width), name="last")
    return n.model(n.head(x, width))


def differ(one: Any, other: Any) -> bool:
    return float(np.abs(one.scores(X) - other.scores(X)).max()) > 1e-4


def test_weights_in_another_file_are_mixed_and_the_files_are_left(net: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(plain(net), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == 2
    beside, inside = opened(path), opened(plain(net))
    np.testing.assert_array_equal(beside.randomised(0).scores(X), inside.randomised(0).scores(X))
    assert differ(beside.randomised(0), inside)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


@pytest.mark.parametrize("width", [4, 64])  # of a few bytes, in the message; of more, outside
def test_each_weight_keeps_its_values(net: Any, width: int) -> None:
    model = plain(net, width)
    before = model.SerializeToString()
    backend = opened(model)
    mixed = backend.randomised(0)
    tensors = [numpy_helper.to_array(t) for t in model.graph.initializer]
    kept = {t.name: numpy_helper.to_array(t) for t in mixed._model.source.graph.initializer}
    kept |= mixed._model.graph.weights
    for tensor, array in zip(model.graph.initializer, tensors, strict=True):
        after = kept[tensor.name]
        assert np.array_equal(after, array) == (array.ndim == 1)
        np.testing.assert_array_equal(np.sort(after, axis=None), np.sort(array, axis=None))
    assert backend.weight_names() == ("w0", "w2", "w4")
    assert model.SerializeToString() == before
    np.testing.assert_array_equal(backend.randomised(0).scores(X), mixed.scores(X))


def test_weights_stand_in_the_order_in_which_they_meet_the_input(net: Any) -> None:
    """Not in that of the file: here all are turned at the front, the last one first."""
    n = net("N", 3, 8, 8)
    dense = n.add("Transpose", n.normal(5, 16), perm=[1, 0], name="dense")
    kernel = n.add("Identity", n.add("Identity", n.normal(16, 3, 3, 3)), name="kernel")
    x = n.add("Relu", n.add("Conv", n.x, kernel, pads=[1] * 4), name="last")
    pooled = n.add("Flatten", n.add("GlobalAveragePool", x))
    backend = opened(n.model(n.add("MatMul", pooled, dense)))
    assert backend.weight_names() == ("w1", "w0")
    mixed = backend.randomised(0, last=1)
    maps = [each.capture(X, layer="last").activations for each in (backend, mixed)]
    np.testing.assert_array_equal(*maps)
    assert differ(mixed, backend)


@pytest.mark.parametrize("width", [4, 64])
def test_weights_may_be_constants(net: Any, width: int) -> None:
    model, wanted = plain(net, width), opened(plain(net, width))
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    del model.graph.initializer[:]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    backend = opened(model)
    assert backend.weight_names() == wanted.weight_names()
    np.testing.assert_array_equal(
        backend.randomised(0, last=2).scores(X), wanted.randomised(0, last=2).scores(X)
    )


def test_a_shared_weight_is_mixed_where_it_is_met_last(net: Any) -> None:
    n = net("N", 3, 8, 8)
    n.weights.append(numpy_helper.from_array(n.normal(3, 3, 3, 3), "shared"))
    x = n.add("Conv", n.x, "shared", pads=[1] * 4)
    x = n.add("Conv", n.add("Relu", n.conv(x, 3, 3)), "shared", pads=[1] * 4, name="last")
    backend = opened(n.model(n.head(x, 3)))
    names = backend.weight_names()
    assert names.index("shared") == 1
    assert len(names) == 3


def test_what_the_logits_do_not_depend_on_does_not_count(net: Any) -> None:
    n = net("N", 3, 8, 8)
    x = n.add("Relu", n.conv(n.x, 3, 4), name="last")
    logits = n.head(x, 4)
    beside = n.head(x, 4, classes=9)
    assert opened(n.model(logits, beside)).weight_names() == ("w0", "w2")


def test_quantized_kernels_are_mixed(net: Any) -> None:
    n = net("N", 3, 8, 8)
    whole = n.rng.integers(-9, 9, (16, 3, 3, 3)).astype(np.int8)
    kernel = n.add("DequantizeLinear", whole, np.float32(0.1), np.int8(0))
    x = n.add("Relu", n.add("Conv", n.x, kernel, pads=[1] * 4), name="last")
    backend = opened(n.model(n.head(x, 16)))
    assert backend.weight_names() == ("w0", "w3")
    mixed = backend.randomised(0, last=2)
    stems = [each.capture(X, layer="last").activations for each in (backend, mixed)]
    assert not np.array_equal(*stems)


def test_tables_of_whole_numbers_are_no_weights(net: Any) -> None:
    n = net("N", 3, 8, 8)
    x = n.add("Relu", n.conv(n.x, 3, 4))
    x = n.add("Reshape", x, np.array([0, 4, 8, 8]), name="last")
    table = np.array([[0, 1], [2, 3]])
    x = n.add("Reshape", n.add("Gather", x, table, axis=1), np.array([0, 4, 8, 8]))
    backend = opened(n.model(n.head(x, 4)))
    assert backend.weight_names() == ("w0", "w5")
    assert differ(backend.randomised(0), backend)


def test_a_model_without_weights_is_refused(net: Any) -> None:
    n = net("N", 3, 8, 8)
    backend = opened(n.model(n.add("Flatten", n.add("GlobalAveragePool", n.x))))
    assert backend.weight_names() == ()
    with pytest.raises(InvalidInputError, match="no weights in floating point"):
        backend.randomised(0)


def test_options_are_the_copys_too(net: Any) -> None:
    n = net("N", 3, 8, 8)
    x = n.add("Relu", n.conv(n.x, 3, 4), name="last")
    first, second = n.head(x, 4), n.head(x, 4, classes=9)
    model = n.model(first, second)
    backend = cfcam_onnx.open_model(model, output=second, threads=1, cache=False)
    assert backend.randomised(0).scores(X).shape == (2, 9)
