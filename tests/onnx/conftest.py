"""A few lines to write small ONNX classifiers in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from ready_files import Runtime
from whole_models import opened


class Net:
    """Nodes one after the other; arrays among the inputs become weights."""

    def __init__(self, *shape: Any, dtype: Any = np.float32, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.x = self.input("x", *shape)

    def input(self, name: str, *shape: Any) -> str:
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        spread = np.sqrt(np.prod(shape[1:]) or 1)
        return (self.rng.standard_normal(shape) / spread).astype(self.dtype)

    def add(self, op: str, *inputs: Any, name: str = "", outputs: int = 1, **attrs: Any) -> str:
        names = []
        for value in inputs:
            if not isinstance(value, str):
                tensor = numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}")
                self.weights.append(tensor)
                names.append(tensor.name)
            else:
                names.append(value)
        result = name or f"{op.lower()}{len(self.nodes)}"
        made = [result, *(f"{result}_{i}" for i in range(1, outputs))]
        node_name = f"node_{result}"
        domain = attrs.pop("domain", "")
        self.nodes.append(helper.make_node(op, names, made, name=node_name, domain=domain, **attrs))
        return result

    def conv(self, x: str, channels_in: int, channels_out: int, size: int = 3, **attrs: Any) -> str:
        weight = self.normal(channels_out, channels_in, size, size)
        attrs.setdefault("pads", [size // 2] * 4)
        return self.add("Conv", x, weight, self.normal(channels_out), **attrs)

    def head(self, x: str, channels: int, classes: int = 5) -> str:
        """Global average, flatten, dense."""
        pooled = self.add("Flatten", self.add("GlobalAveragePool", x))
        return self.add("Gemm", pooled, self.normal(channels, classes), self.normal(classes))

    def model(self, *outputs: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        inputs = list(self.inputs)
        if ir < 4:
            inputs += [
                helper.make_tensor_value_info(w.name, w.data_type, list(w.dims))
                for w in self.weights
            ]
        graph = helper.make_graph(
            self.nodes,
            "net",
            inputs,
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            self.weights,
        )
        domains = {node.domain for node in self.nodes if node.domain}
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


@pytest.fixture
def net() -> Callable[..., Net]:
    return Net


@pytest.fixture
def small(net: Callable[..., Net]) -> Callable[..., onnx.ModelProto]:
    """A residual CNN: smooth units, squeeze and excitation, grouped and strided convolutions."""

    def build(*shape: Any, closing: str | None = None, **how: Any) -> onnx.ModelProto:
        n = net(*(shape or ("N", 3, 12, 10)), dtype=how.pop("dtype", np.float32))
        stem = n.add("Tanh", n.conv(n.x, 3, 8, strides=[2, 2]), name="stem")
        inner = n.add("Sigmoid", n.conv(stem, 2, 8, group=4), name="inner")
        block = n.add("Add", stem, inner, name="block")
        gate = n.add("Sigmoid", n.conv(n.add("GlobalAveragePool", block), 8, 8, 1), name="gate")
        gated = n.add("Mul", block, gate, name="gated")
        last = n.add("Softplus", n.conv(gated, 8, 6, 1), name="last")
        logits = n.head(last, 6)
        out = n.add(closing, logits, axis=1) if closing else logits
        return n.model(out, **how)

    return build


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    """Export a model; return the original, the file, and the file in plain onnxruntime."""

    def make(model: Any, output: str | None = None, **how: Any) -> tuple[Any, Path, Runtime]:
        path = tmp_path / "model.explain.onnx"
        original = opened(model, output=output)
        original.export(path, **how)
        return original, path, Runtime(path)

    return make
