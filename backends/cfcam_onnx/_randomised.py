"""A copy of what was read of a model, its weights in random order."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto, numpy_helper

from cfcam_core.capture import read_only
from cfcam_core.shuffling import is_weight, shuffles
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._graph import stub
from cfcam_onnx._reading import Source

KINDS = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16),
        *(TensorProto.INT8, TensorProto.UINT8),
    }
)
"""Element types of weights; integers of 8 bits are quantized ones."""


def weight_sizes(model: Classifier) -> dict[str, int]:
    """Return the number of values of each kernel and matrix that the logits depend on.

    They stand in the order in which they meet what the inputs have become, at the last time, be it
    behind a Transpose or a DequantizeLinear of their own.
    """
    source = model.source.graph
    tensors = _small(source) | {n: stub(n, array) for n, array in model.graph.weights.items()}
    behind = {
        name: [name]
        for name, tensor in tensors.items()
        if tensor.data_type in KINDS and is_weight(tensor.dims)
    }
    moving = {info.name for info in source.input} - set(tensors)
    needed = _ancestors(source, model.explained)
    found: dict[str, int] = {}
    for node in source.node:
        read = [name for one in node.input for name in behind.get(one, ())]
        if not moving.intersection(node.input):
            behind.update(dict.fromkeys((one for one in node.output if one not in tensors), read))
            continue
        moving.update(node.output)
        if needed.intersection(node.output):
            for name in read:
                found.pop(name, None)
                found[name] = math.prod(tensors[name].dims)
    return found


def randomised(model: Classifier, seed: int, last: int | None) -> Source:
    """Return the model as it was read, with the values of its weights in random order.

    Raises
    ------
    InvalidInputError
        It has no such weights.
    """
    source, arrays = onnx.ModelProto(), dict(model.graph.weights)
    source.CopyFrom(model.source)
    small = _small(source.graph)
    for name, order in shuffles(weight_sizes(model), seed, last):
        if name in arrays:
            mixed = arrays[name].reshape(-1)[order].reshape(arrays[name].shape)
            arrays[name] = read_only(mixed)
        else:
            values = numpy_helper.to_array(small[name])
            mixed = values.reshape(-1)[order].reshape(values.shape)
            small[name].CopyFrom(numpy_helper.from_array(mixed, small[name].name))
    return Source(source, arrays, model.path)


def _small(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Return the tensors that are in the message itself, by the name under which they are read."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and [one.name for one in node.attribute] == ["value"]:
            found[node.output[0]] = node.attribute[0].t
    return found


def _ancestors(graph: onnx.GraphProto, name: str) -> set[str]:
    """Return what a tensor is made of, itself included; all there is if it is not in the graph."""
    if not any(name in node.output for node in graph.node):
        return {one for node in graph.node for one in node.output}
    needed = {name}
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    return needed
