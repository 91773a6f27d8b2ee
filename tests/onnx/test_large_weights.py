"""Weights of more than a protobuf message can hold, mapped where they lie and never held twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cfcam_onnx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cfcam_core import InvalidInputError

ROWS, COLUMNS = 9 << 20, 64
"""Of a table of 2.4 GB, more than the 2 GB of a protobuf message."""

EXPLAIN = """
import sys
import numpy as np
import cfcam_onnx

backend = cfcam_onnx.open_model(sys.argv[1], threads=1, cache=False)
capture = backend.capture(np.ones((1, 3, 6, 6)))
assert capture.gradients.any()
print(float(backend.scores(np.ones((1, 3, 6, 6)))[0, 0]))
told = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(told["VmHWM"].split()[0])  # peak, in kilobytes, since this program began
"""


def beside(
    model: onnx.ModelProto, path: Path, weights: dict[str, np.ndarray], gap: int = 0
) -> onnx.ModelProto:
    """Write weights into one file beside the model, each behind a gap, and the model."""
    with (path.parent / "weights.bin").open("wb") as file:
        for name, array in weights.items():
            file.write(bytes(gap))
            tensor = next(t for t in model.graph.initializer if t.name == name)
            start, raw = file.tell(), array.tobytes()
            onnx.external_data_helper.set_external_data(tensor, "weights.bin", start, len(raw))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            file.write(raw)
    path.write_bytes(model.SerializeToString())
    return model


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in use as Linux tells it")
def test_a_table_of_more_than_two_gigabytes(net: Any, tmp_path: Path) -> None:
    """A file with holes: the last row is written, nothing else takes space."""
    n = net("N", 3, 6, 6)
    a = n.add("Tanh", n.conv(n.x, 3, COLUMNS), name="a")
    high = n.add("Cast", n.add("ReduceMax", n.x, axes=[1, 2, 3], keepdims=0), to=TensorProto.INT64)
    row = n.add("Gather", "table", n.add("Mul", high, np.array(ROWS - 1)), axis=0)
    model = n.model(n.head(n.add("Add", a, n.add("Reshape", row, np.array([-1, 64, 1, 1]))), 64))
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="table.bin")
    model.graph.initializer.append(table)
    size = ROWS * COLUMNS * 4
    with (tmp_path / "table.bin").open("wb") as file:
        file.truncate(size)
        file.seek(size - COLUMNS * 4)
        file.write(np.arange(COLUMNS, dtype=np.float32).tobytes())
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    command = [sys.executable, "-c", EXPLAIN, str(tmp_path / "model.onnx")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(told[1]) * 1024 < size // 4  # it took 92 MB of 2.4 GB; one copy would show
    small = onnx.ModelProto()
    small.CopyFrom(model)
    del small.graph.initializer[-1]
    last = np.arange(COLUMNS, dtype=np.float32)[None]
    small.graph.initializer.append(numpy_helper.from_array(last, "table"))
    (bound,) = [t for t in small.graph.initializer if numpy_helper.to_array(t).size == 1]
    bound.CopyFrom(numpy_helper.from_array(np.array(0), bound.name))
    wanted = cfcam_onnx.open_model(small, threads=1).scores(np.ones((1, 3, 6, 6)))[0, 0]
    np.testing.assert_allclose(float(told[0]), wanted, rtol=1e-5)


@pytest.fixture
def wide(net: Any) -> Callable[[], onnx.ModelProto]:
    """A net with weights of more than a kilobyte."""

    def build() -> onnx.ModelProto:
        n = net("N", 3, 12, 10)
        stem = n.add("Tanh", n.conv(n.x, 3, 32, strides=[2, 2]), name="stem")
        block = n.add("Add", stem, n.add("Sigmoid", n.conv(stem, 32, 32)), name="block")
        return n.model(n.head(n.add("Softplus", n.conv(block, 32, 16), name="last"), 16))

    return build


def test_sessions_share_one_copy(wide: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = wide()
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.dims[1:]}
    wanted = cfcam_onnx.open_model(wide(), threads=1)
    beside(model, tmp_path / "model.onnx", arrays)
    backend, x = cfcam_onnx.open_model(tmp_path / "model.onnx", threads=1), np.ones((1, 3, 12, 10))
    for layer in ("stem", "block", "last"):
        expected = wanted.capture(x, layer=layer).gradients
        np.testing.assert_array_equal(backend.capture(x, layer=layer).gradients, expected)
    sessions = [backend._sessions("forward"), backend._sessions("gradient", "stem")]
    weights = backend._model.graph.weights
    assert weights
    for session in sessions:
        assert session._weights
        for array in session._weights:
            assert any(array is one for one in weights.values())
    for array in weights.values():
        base = array
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
        assert not array.flags.writeable


@pytest.mark.parametrize("gap", [1, 2, 3, 4, 1000, 4097])
def test_weights_that_start_anywhere(
    gap: int, wide: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    """Neither pages nor numbers have to be aligned in the file."""
    model, x = wide(), np.ones((2, 3, 12, 10))
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    beside(model, tmp_path / "model.onnx", arrays, gap)
    backend = cfcam_onnx.open_model(tmp_path / "model.onnx", threads=1)
    assert all(array.flags.aligned for array in backend._model.graph.weights.values())
    wanted = cfcam_onnx.open_model(wide(), threads=1).capture(x)
    np.testing.assert_array_equal(backend.capture(x).gradients, wanted.gradients)


def test_more_weights_than_files_may_be_open(net: Any, tmp_path: Path) -> None:
    """All lie in one file, which is opened once."""
    n = net(1, 3, 6, 6)
    a = n.conv(n.x, 3, 4)
    for _ in range(1500):
        a = n.add("Add", a, np.zeros((1, 4, 1, 1), np.float32))
    model = n.model(n.head(a, 4))
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    beside(model, tmp_path / "model.onnx", arrays)
    script = (
        "import resource, sys, cfcam_onnx, numpy as np\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "print(cfcam_onnx.open_model(sys.argv[1], threads=1, cache=False).scores("
        "np.ones((1, 3, 6, 6))).shape)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.onnx")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told == "(1, 5)\n"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32"])
@pytest.mark.parametrize("stored", ["raw", "typed", "constant"])
def test_large_weights_of_any_type_and_form(dtype: str, stored: str, net: Any) -> None:
    """Typed fields hold float16 as integers; all come to the same."""
    values = np.arange(1200).reshape(12, 100).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    raw = stored != "typed"
    flat = values.tobytes() if raw else values.reshape(-1).tolist()
    tensor = helper.make_tensor("table", kind, values.shape, flat, raw=raw)
    n = net(1, 3, 6, 6)
    if stored == "constant":
        n.nodes.append(helper.make_node("Constant", [], ["table"], value=tensor))
    else:
        n.weights.append(tensor)
    picked = n.add("Cast", n.add("Gather", "table", np.array(3), axis=0), to=TensorProto.FLOAT)
    scores = n.add("Add", n.head(n.conv(n.x, 3, 4), 4), n.add("ReduceSum", picked))
    backend = cfcam_onnx.open_model(n.model(scores), threads=1)
    np.testing.assert_array_equal(backend._model.graph.weights["table"], values)
    plain = cfcam_onnx.open_model(n.model(n.nodes[-3].output[0]), threads=1)
    x = np.ones((1, 3, 6, 6))
    added = float(values[3].astype(np.float32).sum())
    np.testing.assert_allclose(backend.scores(x), plain.scores(x) + added, rtol=1e-5)


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.BOOL, TensorProto.INT4])
def test_types_that_numpy_lacks_stay_in_the_message(kind: int, net: Any, tmp_path: Path) -> None:
    n = net(1, 3, 6, 6)
    nbytes = {TensorProto.BFLOAT16: 4096, TensorProto.BOOL: 2048, TensorProto.INT4: 1024}[kind]
    table = TensorProto(name="table", data_type=kind, dims=[2048])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="table.bin")
    (tmp_path / "table.bin").write_bytes(bytes(nbytes))
    n.weights.append(table)
    n.add("Identity", "table")
    model = n.model(n.head(n.conv(n.x, 3, 4), 4), opset=21, ir=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    backend = cfcam_onnx.open_model(tmp_path / "model.onnx", threads=1)
    assert "table" not in backend._model.graph.weights
    assert backend.capture(np.ones((1, 3, 6, 6))).gradients.any()


def test_a_large_weight_inside_a_branch_and_a_function(net: Any) -> None:
    """What a subgraph reads from around it may be a weight that was taken out."""
    n = net("N", 3, 6, 6)
    scale = np.linspace(0.5, 1.5, 3 * 6 * 6, dtype=np.float32).reshape(1, 3, 6, 6)
    large = np.tile(scale, (4, 1, 1, 1))
    n.weights.append(numpy_helper.from_array(large, "large"))
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    first = helper.make_node("Gather", ["large", "row"], ["y"], axis=0)
    n.weights.append(numpy_helper.from_array(np.array([0]), "row"))
    body = helper.make_graph([first], "body", [], [info])
    condition = n.add("Identity", np.array(True))
    n.nodes.append(helper.make_node("If", [condition], ["y"], then_branch=body, else_branch=body))
    n.nodes.append(helper.make_node("Twice", ["y"], ["z"], domain="acme"))
    model = n.model(n.head(n.conv(n.add("Mul", n.x, "z"), 3, 4), 4))
    double = helper.make_node("Add", ["a", "a"], ["b"])
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("acme", "Twice", ["a"], ["b"], [double], imports))
    backend, x = cfcam_onnx.open_model(model, threads=1), np.ones((2, 3, 6, 6))
    assert "large" in backend._model.graph.weights
    plain = net("N", 3, 6, 6)
    plain_model = plain.model(plain.head(plain.conv(plain.x, 3, 4), 4))
    wanted = cfcam_onnx.open_model(plain_model, threads=1).scores(x * 2 * scale)
    np.testing.assert_allclose(backend.scores(x), wanted, rtol=1e-4)
    assert backend.capture(x).gradients.any()


def test_a_large_weight_that_is_an_output_too(wide: Callable[[], onnx.ModelProto]) -> None:
    model = wide()
    large = next(t for t in model.graph.initializer if len(t.raw_data) >= 1024)
    model.graph.output.append(
        helper.make_tensor_value_info(large.name, large.data_type, list(large.dims))
    )
    x = np.ones((1, 3, 12, 10))
    wanted = cfcam_onnx.open_model(wide(), threads=1).capture(x)
    found = cfcam_onnx.open_model(model, threads=1).capture(x)
    np.testing.assert_array_equal(found.gradients, wanted.gradients)


def test_names_that_clash(small: Any) -> None:
    model = small()
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(InvalidInputError, match="two weights named 'w0'"):
        cfcam_onnx.open_model(model)
    model = small()
    model.graph.node[1].output[0] = "w0"
    with pytest.raises(InvalidInputError, match="makes the tensor 'w0' twice"):
        cfcam_onnx.open_model(model)
    model = small()
    model.graph.input.append(model.graph.input[0])
    with pytest.raises(InvalidInputError, match="two inputs named 'x'"):
        cfcam_onnx.open_model(model)


def test_more_weights_than_allowed(wide: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(InvalidInputError, match=r"bytes of weights; 100 are allowed.*weights= of"):
        cfcam_onnx.open_model(wide(), limits=cfcam_onnx.Limits(weights=100))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_turned_kernel_is_not_stored(dtype: Any, net: Any) -> None:
    """Its gradient is a convolution with the kernel back to front, which the program makes."""
    n = net("N", 64, 9, 8, dtype=dtype)
    a = n.add("Tanh", n.x, name="a")
    deep = n.add("Conv", a, n.normal(64, 1, 7, 7), group=64, pads=[3, 3, 3, 3])
    backend = cfcam_onnx.open_model(n.model(n.head(n.conv(deep, 64, 64, 1), 64)), threads=1)
    program = backend._sessions.program("gradient", "a")
    assert [node.op_type for node in program.graph.node].count("Conv") == 4
    assert program.ByteSize() < 8000
    assert backend._model.graph.weights
