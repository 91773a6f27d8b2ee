"""The golden nets in ONNX, node by node."""

from __future__ import annotations

from typing import Any

import numpy as np
from conformance_nets import Framework, Net
from onnx import ModelProto, TensorProto, helper, numpy_helper


def framework() -> Framework:
    return Framework(build, tensor=np.asarray, part=lambda _, name: name, takes_example=False)


def build(net: Net, *, softmax: bool) -> ModelProto:
    nodes, weights = [], []

    def node(op: str, *inputs: str, name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", **attributes))
        return name

    def held(part: str) -> list[str]:
        for kind, array in zip("wb", net.weights(part), strict=True):
            weights.append(numpy_helper.from_array(array, f"{part}_{kind}"))
        return [f"{part}_w", f"{part}_b"]

    same, cells = [1] * (2 * net.axes), [net.pool] * net.axes
    stem = node("Conv", "x", *held("stem"), name="stem", strides=[2] * net.axes)
    skip = node("Relu", stem, name="skip")
    inner = node("Conv", skip, *held("inner"), name="inner_in", pads=same)
    inner = node("Relu", inner, name="inner")
    x = node("Add", skip, inner, name="block")
    if net.pool > 1:
        x = node("AveragePool", x, name="pooled", kernel_shape=cells, strides=cells)
    x = node("Conv", x, *held("last"), name="last_in", pads=same)
    x = node("Relu", x, name="last")
    x = node("Flatten", node("GlobalAveragePool", x, name="means"), name="flat")
    x = node("Gemm", x, *held("dense"), name="logits", transB=1)
    if softmax:
        x = node("Softmax", x, name="probabilities")
    graph = helper.make_graph(
        nodes,
        net.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *net.x.shape[1:]])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", len(net.weights("dense")[1])])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
