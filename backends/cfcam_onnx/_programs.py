"""The three models made from the user's: forward, forward with gradient, and from a layer on.

Each is a plain ONNX model that any runtime runs. The user's nodes and weights stand in it as
they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from cfcam_core.errors import UnsupportedOpError
from cfcam_onnx._emit import Emitter
from cfcam_onnx._gradient import Problems, sweep
from cfcam_onnx._graph import PREFIX, Graph, reads
from cfcam_onnx._tensor import Tensor

COTANGENT = f"{PREFIX}cotangent"
"""Input (N, K): the gradient of what is explained with respect to the logits."""

EXPLAIN_TOP = f"{PREFIX}explain_top"
"""Input without axes, bool: explain the largest logit of each row in place of the cotangent."""

GRADIENT = f"{PREFIX}gradient"
"""Start of the outputs that are gradients; float32 where the model is float16.

What these three are called in a program is ``graph.own(...)``."""


def forward_program(graph: Graph, *outputs: str) -> onnx.ModelProto:
    """Return the model up to the logits, or to any tensors."""
    infos = [_info(graph, name) for name in outputs]
    return assemble(graph, graph.needed(outputs), None, graph.inputs, infos)


def tail_program(graph: Graph, logits: str, target: str) -> onnx.ModelProto:
    """Return the model from `target` on; other paths are still computed from the inputs."""
    nodes = []
    for node in graph.needed([logits], leaves=[target]):
        if target in node.output:  # needed for another of its outputs
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.output[list(copy.output).index(target)] = graph.own(f"{PREFIX}replaced")
            nodes.append(copy)
        else:
            nodes.append(node)
    others = [info for info in graph.inputs if info.name != target]
    inputs = [*others, _info(graph, target)]
    return assemble(graph, nodes, None, inputs, [_info(graph, logits)])


def gradient_program(graph: Graph, logits: str, targets: Sequence[str]) -> onnx.ModelProto:
    """Return the model with a cotangent as input, and its outputs in this order.

    The logits; each of `targets`; the gradient with respect to each.

    Raises
    ------
    UnsupportedOpError
        Operators between a layer and the logits have no gradient; all are listed.
    """
    emit = Emitter(graph)
    seed = _seed(emit, logits)
    found, problems = sweep(emit, targets, logits, seed)
    if not found:
        raise UnsupportedOpError(f"cannot be differentiated: {problems}")
    activations, gradients = [], []
    for i, target in enumerate(targets):
        activation = _info(graph, target)
        if target not in graph.producer:  # an input of the model cannot be its output too
            activation.name = emit.op("Identity", emit.tensor(target)).name
            activation.type.tensor_type.elem_type = _elem_type(emit.tensor(target))
        gradient, name = found[target], graph.own(f"{GRADIENT}_{i}")
        emit.nodes.append(helper.make_node("Identity", [gradient.name], [name], name=name))
        sizes = graph.sizes(target)
        activations.append(activation)
        gradients.append(helper.make_tensor_value_info(name, _elem_type(gradient), sizes))
    _, classes = graph.sizes(logits) or (None, None)
    given, flag = graph.own(COTANGENT), graph.own(EXPLAIN_TOP)
    inputs = [
        *graph.inputs,
        helper.make_tensor_value_info(given, _elem_type(seed), [None, classes]),
        helper.make_tensor_value_info(flag, TensorProto.BOOL, []),
    ]
    outputs = [_info(graph, logits), *activations, *gradients]
    return assemble(graph, graph.needed([logits, *targets]), emit, inputs, outputs)


def problems_from(graph: Graph, logits: str, targets: Sequence[str]) -> Problems:
    """Return what stands in the way of gradients with respect to `targets`."""
    emit = Emitter(graph)
    return sweep(emit, targets, logits, _seed(emit, logits))[1]


def _seed(emit: Emitter, logits: str) -> Tensor:
    """Return the cotangent to start from: the one given, or one for the largest logit."""
    scores = emit.tensor(logits)
    top = emit.op("ArgMax", scores, axis=1, keepdims=1, dtype=np.int64)
    own = emit.graph.own
    flag, given = (Tensor(emit, own(n), scores.dtype) for n in (EXPLAIN_TOP, COTANGENT))
    return emit.where(flag, one_hot(emit, scores, top), given)


def one_hot(emit: Emitter, scores: Tensor, index: Tensor) -> Tensor:
    """Return the cotangent (N, K) of the logit of one class a row; `index` is (N, 1)."""
    size = emit.op("Gather", emit.shape_of(scores), emit.const(np.int64(1)), axis=0)
    classes = emit.op("Range", emit.const(np.int64(0)), size, emit.const(np.int64(1)))
    return emit.cast(emit.op("Equal", classes, index, dtype=np.bool_), scores.dtype)


def assemble(
    graph: Graph,
    nodes: Sequence[onnx.NodeProto],
    emit: Emitter | None,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """Return a model of these nodes, without unneeded emitted ones and unread weights."""
    wanted, kept = {info.name for info in outputs}, []
    for node in reversed(emit.nodes if emit else []):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(reads(node))
    body = [*nodes, *reversed(kept)]
    read = {name for node in body for name in reads(node)}
    model = onnx.ModelProto()
    model.ir_version, model.producer_name = graph.model.ir_version, "cfcam"
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "cfcam"
    model.graph.input.extend(info for info in inputs if info.name in read)
    model.graph.output.extend(outputs)
    model.graph.node.extend(body)
    constants = [*graph.initializers.values(), *(emit.initializers if emit else [])]
    model.graph.initializer.extend(tensor for tensor in constants if tensor.name in read)
    return model


def _info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    """Describe a tensor; open sizes stay nameless, for a name would promise equality."""
    return helper.make_tensor_value_info(name, graph.elem_type(name), graph.sizes(name))


def _elem_type(tensor: Tensor) -> int:
    return int(helper.np_dtype_to_tensor_dtype(tensor.dtype))
