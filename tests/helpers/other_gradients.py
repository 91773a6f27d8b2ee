"""Gradients by somebody else's differentiator of ONNX graphs, onnx-ad: a judge, not a part.

It needs fixed shapes, and differentiates a model with respect to its inputs; so it gets the model
from the layer on.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ad
import onnxruntime as ort
from cfcam_onnx._graph import Graph
from cfcam_onnx._logits import find_logits
from cfcam_onnx._model import prepare
from cfcam_onnx._programs import tail_program
from onnx import helper, numpy_helper

from cfcam_core import Capture

LARGE = 1024
"""Elements of a weight that is better not copied."""


def gradient_by_onnx_ad(
    model: onnx.ModelProto, capture: Capture, x: np.ndarray, klass: int
) -> np.ndarray:
    """Return the gradient of one logit with respect to a layer whose channels come second."""
    name, copy = capture.layer, onnx.ModelProto()
    copy.CopyFrom(model)
    weights = _made_inputs(copy.graph)
    graph = Graph(prepare(copy))
    logits, _ = find_logits(graph)
    tail = tail_program(graph, logits, name)
    given = {**weights, name: capture.activations}
    feeds = {info.name: given.get(info.name, x) for info in tail.graph.input}
    for info in tail.graph.input:
        for size, dim in zip(feeds[info.name].shape, info.type.tensor_type.shape.dim, strict=True):
            dim.dim_value = size
    for info in tail.graph.output:
        info.type.tensor_type.ClearField("shape")
    tail = onnx.shape_inference.infer_shapes(tail, data_prop=True)
    adjoint = onnx_ad.reverse(tail, inputs=[name], layout="onnx")
    seed = np.zeros((*capture.scores.shape, 1), np.float32)
    seed[:, klass] = 1
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = ort.InferenceSession(adjoint.SerializeToString(), options)
    feeds[f"adj_{logits}"] = seed
    (found,) = session.run([f"adj_{name}"], feeds)
    return np.asarray(found)[..., 0]


def _made_inputs(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """Make the large weights inputs of the graph: onnx-ad writes all others out several times."""
    large = [t for t in graph.initializer if np.prod(t.dims) > LARGE]
    found = {t.name: numpy_helper.to_array(t) for t in large}
    kept = [t for t in graph.initializer if t.name not in found]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    known = {info.name for info in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in large
        if t.name not in known
    )
    return found
