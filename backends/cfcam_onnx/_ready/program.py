"""The model that is written to a file: it explains itself, told no more than a class.

What it computes is what `OnnxBackend.capture` does, and on request Grad-CAM up to the heatmap.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from cfcam_core.errors import UnsupportedOpError
from cfcam_core.inputs import Sizes
from cfcam_core.tokens import Fold
from cfcam_onnx._emit import Emitter
from cfcam_onnx._gradient import sweep
from cfcam_onnx._graph import PREFIX, Graph, everywhere
from cfcam_onnx._inputs import Input
from cfcam_onnx._layers.sites import Site
from cfcam_onnx._programs import assemble, one_hot
from cfcam_onnx._ready.format import (
    ACTIVATIONS,
    CLASS_INDEX,
    GRADIENTS,
    HEATMAP,
    LOGITS,
    MAP,
    RESERVED,
)
from cfcam_onnx._tensor import Tensor

EXPORTED = f"{PREFIX}exported/"
"""Start of what the tensors of `cfcam_onnx._ready.format` are called while it is made."""


def export_program(
    graph: Graph,
    logits: str,
    layer: Site,
    *,
    source: Input | None = None,
    fold: Fold | None = None,
    with_map: bool = False,
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the model with the inputs and outputs of `cfcam_onnx._ready.format`.

    Parameters
    ----------
    graph : Graph
    logits : str
    layer : Site
    source : Input, optional
        The input that the maps lie over; its size is that of the heatmap.
    fold : Fold, optional
        How the layer's tokens lie on a grid.
    with_map : bool
        Whether the map and the heatmap of Grad-CAM are outputs too.

    Returns
    -------
    model : onnx.ModelProto
        Its large initializers are stubs.
    names : dict of str to str
        New names of those tensors of the model that have had one of `RESERVED`.

    Raises
    ------
    UnsupportedOpError
        Operators between the layer and the logits have no gradient; all are listed.
    """
    emit = Emitter(graph)
    scores = emit.tensor(logits)
    index = Tensor(emit, graph.own(EXPORTED + CLASS_INDEX), np.dtype(np.int64))
    top = emit.op("ArgMax", scores, axis=1, keepdims=0, dtype=np.int64)
    chosen = emit.unsqueeze(emit.where(index < 0, top, index), 1)
    found, problems = sweep(emit, [layer.name], logits, one_hot(emit, scores, chosen))
    if not found:
        raise UnsupportedOpError(f"cannot be differentiated: {problems}")
    batch, classes = (*(graph.sizes(logits) or ()), None, None)[:2]
    shape = graph.sizes(layer.name) or ()
    channels = shape[layer.channels]
    rest = (size for axis, size in enumerate(shape) if axis not in {0, layer.channels})
    grid = fold.grid if fold else tuple(rest)
    activations, gradients = (
        _channels_first(emit, tensor, layer, fold)
        for tensor in (emit.tensor(layer.name), found[layer.name])
    )
    outputs: dict[str, tuple[Tensor, Sizes]] = {
        LOGITS: (emit.cast(scores, np.float32), (batch, classes)),
        ACTIVATIONS: (activations, (batch, channels, *grid)),
        GRADIENTS: (gradients, (batch, channels, *grid)),
    }
    if with_map:
        signed = _grad_cam(emit, activations, gradients, len(grid))
        size = tuple(source.shape[axis] for axis in source.spatial) if source else grid
        outputs[MAP] = signed, (batch, *grid)
        outputs[HEATMAP] = _heatmap(emit, signed, len(grid), source), (batch, *size)
    infos = [helper.make_tensor_value_info(index.name, TensorProto.INT64, [batch])]
    for name, (tensor, sizes) in outputs.items():
        own = graph.own(EXPORTED + name)
        emit.nodes.append(helper.make_node("Identity", [tensor.name], [own], name=own))
        infos.append(helper.make_tensor_value_info(own, TensorProto.FLOAT, sizes))
    nodes, inputs = graph.needed([logits, layer.name]), [*graph.inputs, infos[0]]
    model = assemble(graph, nodes, emit, inputs, infos[1:])
    ours = {graph.own(EXPORTED + name): name for name in (CLASS_INDEX, *outputs)}
    names = _theirs(model) | ours
    _rename(model, names)
    return model, names


def _channels_first(emit: Emitter, tensor: Tensor, layer: Site, fold: Fold | None) -> Tensor:
    """Return a tensor (N, C, *s) in float32, tokens on their grid."""
    rank = len(emit.graph.shape(layer.name) or ())
    order = [0, layer.channels, *(a for a in range(1, rank) if a != layer.channels)]
    if order != sorted(order):
        tensor = emit.transpose(tensor, *order)
    if fold:
        if fold.prefix:
            ends = emit.ints(np.iinfo(np.int64).max)
            tensor = emit.slice(tensor, emit.ints(fold.prefix), ends, [2])
        tensor = emit.reshape(tensor, [0, 0, *fold.grid])
    return emit.cast(tensor, np.float32)


def _grad_cam(emit: Emitter, activations: Tensor, gradients: Tensor, axes: int) -> Tensor:
    """Return ``sum_c mean(G_c) A_c``, see `cfcam_core.methods.grad_cam`."""
    weights = emit.reduce("ReduceMean", gradients, range(2, axes + 2))
    return emit.reduce("ReduceSum", weights * activations, [1], keepdims=False)


def _heatmap(emit: Emitter, signed: Tensor, axes: int, source: Input | None) -> Tensor:
    """Return the positive part, as large as the input, divided by its maximum.

    See `cfcam_core.explainer.heatmaps`.
    """
    positive = emit.op("Relu", signed)
    if source is not None:
        lead = (1, 2) if axes == 1 else (1,)  # onnxruntime resizes images and volumes
        wide = emit.unsqueeze(positive, *lead)
        before = emit.op("Shape", wide, end=1 + len(lead), dtype=np.int64)
        shape = emit.shape_of(emit.tensor(source.name))
        size = emit.op("Gather", shape, emit.ints(*source.spatial), axis=0)
        sizes = emit.op("Concat", before, size, axis=0)
        grown = emit.op(
            *("Resize", wide, None, None, sizes),
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        positive = emit.op("Squeeze", grown, emit.ints(*lead))
    peak = emit.reduce("ReduceMax", positive, range(1, axes + 1))
    return positive / emit.where(peak > 0, peak, 1)


def _theirs(model: onnx.ModelProto) -> dict[str, str]:
    """Return new names for those tensors of the model that have ours."""
    taken = {info.name for info in model.graph.input} | {t.name for t in model.graph.initializer}
    for node in everywhere(model.graph.node):
        taken.update((*node.input, *node.output))
    names = {}
    for name in taken.intersection(RESERVED):
        new = f"model_{name}"
        while new in taken:
            new += "_"
        names[name] = new
    return names


def _rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give tensors new names wherever they occur, in subgraphs too."""
    for info in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        info.name = names.get(info.name, info.name)
    for node in everywhere(model.graph.node):
        for listed in (node.input, node.output):
            listed[:] = [names.get(name, name) for name in listed]
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                for info in (*body.input, *body.output, *body.initializer):
                    info.name = names.get(info.name, info.name)
