"""Weights stored sparsely, written out as ordinary ones: a few bytes may stand for terabytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import SparseTensorProto, helper, numpy_helper

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD
from cfcam_onnx._limits import Limits
from cfcam_onnx._reading.external import is_elsewhere
from cfcam_onnx._reading.weights import PLAIN


def write_out(model: onnx.ModelProto, count: int, limits: Limits, where: str) -> None:
    """Turn the sparse weights of a model's graph into ordinary ones.

    Parameters
    ----------
    model : onnx.ModelProto
        Is changed.
    count : int
        Number of sparse tensors anywhere in it.
    limits : Limits
    where : str
        What the model is called in errors.

    Raises
    ------
    InvalidInputError
        Together they would take more than ``limits.sparse`` bytes, lie in other files, in
        subgraphs or in functions, or do not fit their shapes.
    """
    graph, room = model.graph, limits.sparse
    constants = [node for node in graph.node if _is_sparse_constant(node)]
    found = [(tensor, tensor.values.name) for tensor in graph.sparse_initializer]
    found += [(node.attribute[0].sparse_tensor, node.output[0]) for node in constants]
    if len(found) < count or any(is_elsewhere(p) for t, _ in found for p in (t.values, t.indices)):
        raise InvalidInputError(
            f"{where} stores weights sparsely in subgraphs, functions or other files; export it "
            "with dense weights"
        )
    for tensor, name in found:
        called = f"the sparse weight {name!r} of {where}"
        if min(tensor.dims, default=0) < 0 or tensor.values.data_type not in PLAIN:
            raise InvalidInputError(
                f"{called} has a negative size or elements that are no plain numbers; export the "
                "model with dense weights"
            )
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.values.data_type))
        room -= math.prod(tensor.dims) * dtype.itemsize
        if room < 0:
            raise InvalidInputError(
                f"{called} has the shape {tuple(tensor.dims)}; with it the sparse weights would "
                f"take {limits.sparse - room:,} bytes written out, and {limits.sparse:,} are "
                "allowed. Export the model with dense weights, or raise sparse= of "
                "cfcam_onnx.Limits"
            )
        try:
            graph.initializer.append(numpy_helper.from_array(_dense(tensor, dtype), name))
        except (ValueError, TypeError, IndexError) as error:
            raise InvalidInputError(
                f"{called} does not fit its shape {tuple(tensor.dims)}: {error}. "
                "Export the model again"
            ) from error
    del graph.sparse_initializer[:]
    if constants:
        nodes = [node for node in graph.node if not _is_sparse_constant(node)]
        kept = onnx.GraphProto(node=nodes)
        del graph.node[:]
        graph.node.extend(kept.node)


def _is_sparse_constant(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Constant"
        and node.domain in STANDARD
        and len(node.output) == len(node.attribute) == 1
        and node.attribute[0].name == "sparse_value"
    )


def _dense(tensor: SparseTensorProto, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the weight; positions are flat (n,), or one row of coordinates a value (n, axes)."""
    values = numpy_helper.to_array(tensor.values).reshape(-1)
    at = numpy_helper.to_array(tensor.indices)
    if at.dtype != np.int64 or at.ndim not in {1, 2} or len(at) != len(values) or (at < 0).any():
        raise ValueError(f"its positions are {at.dtype} of shape {at.shape}, some below zero")
    dense = np.zeros(tuple(tensor.dims), dtype)
    if at.ndim == 1:
        dense.reshape(-1)[at] = values
    elif at.shape[1] == dense.ndim:
        dense[tuple(at.T)] = values
    else:
        raise ValueError(f"its positions have {at.shape[1]} coordinates")
    return dense
