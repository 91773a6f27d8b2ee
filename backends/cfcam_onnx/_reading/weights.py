"""Weights live outside the model: arrays by name, in place of tensors in a protobuf message.

What is worked on is then a message of a few hundred kilobytes, however large the model; shape
inference, conversions and the trial run never copy a weight, all sessions of a model share one
copy, and files of more than 2 GB work. Weights beside the model's file are mapped, not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD
from cfcam_onnx._limits import Limits
from cfcam_onnx._reading.external import Beside

Weights = Mapping[str, NDArray[Any]]

LARGE = 1 << 10
"""Bytes from which a tensor is kept outside; shapes, axes and the like are always smaller."""

MOST_BROUGHT_IN = 1 << 30
"""Bytes of tensors in other files that have to stay in the message; it may have twice as many."""

PLAIN = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE),
        *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
    }
)
"""Element types that NumPy has; tensors of others stay in the message."""


def take_out(model: onnx.ModelProto, beside: Beside, limits: Limits) -> Weights:
    """Move the large weights of a model out of it; they become inputs with a fixed shape.

    Parameters
    ----------
    model : onnx.ModelProto
        Is changed.
    beside : Beside
        The files that it may refer to.
    limits : Limits

    Returns
    -------
    mapping of str to ndarray
        Read-only.

    Raises
    ------
    InvalidInputError
        Weights are missing, incomplete or lie elsewhere, are too many, or a tensor's data do not
        fit its shape.
    """
    graph = model.graph
    found: dict[str, NDArray[Any]] = {}
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        array = _array(tensor, beside, f"the weight {tensor.name!r} of {beside.where}")
        if array is None:
            kept.append(tensor)
        else:
            found[tensor.name] = array
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        array = _constant(node, beside)
        if array is None:
            nodes.append(node)
        else:
            found[node.output[0]] = array
    total = sum(array.nbytes for array in found.values())
    if total > limits.weights:
        raise InvalidInputError(
            f"{beside.where} has {total:,} bytes of weights; {limits.weights:,} are allowed. Use a "
            "smaller model, or raise weights= of cfcam_onnx.Limits"
        )
    if not found:
        return found
    slim = onnx.GraphProto(
        initializer=kept,
        node=nodes,
        input=[info for info in graph.input if info.name not in found],
    )
    slim.input.extend(
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in found.items()
    )
    for field in ("initializer", "node", "input"):
        graph.ClearField(field)
        getattr(graph, field).extend(getattr(slim, field))
    return found


def bring_in(tensors: Iterable[TensorProto], beside: Beside) -> None:
    """Read the data of tensors from other files into the message; errors as for `take_out`."""
    room = MOST_BROUGHT_IN
    for tensor in tensors:
        called = f"the tensor {tensor.name!r}"
        data = beside.data(tensor, called, None)
        room -= data.nbytes
        if room < 0:
            raise InvalidInputError(
                f"{beside.where} has more than {MOST_BROUGHT_IN:,} bytes in other files that "
                f"cannot be used from there, such as {called}; export it with weights in float32, "
                "float16 or int8 and none of them in subgraphs"
            )
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.raw_data = data.tobytes()


def _constant(node: onnx.NodeProto, beside: Beside) -> NDArray[Any] | None:
    """Return the value of a Constant, if it is large."""
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1:
        return None
    tensor = node.attribute[0].t
    if node.attribute[0].name != "value" or len(node.output) != 1:
        return None
    return _array(tensor, beside, f"the constant {node.output[0]!r} of {beside.where}")


def _array(tensor: TensorProto, beside: Beside, called: str) -> NDArray[Any] | None:
    """Return a tensor's values; None where it may stay, being small or of a type NumPy lacks."""
    if min(tensor.dims, default=1) < 0:
        raise InvalidInputError(f"{called} has a negative size; export the model again")
    if tensor.data_type not in PLAIN:
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    nbytes = math.prod(tensor.dims) * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        array = _laid_out(beside.data(tensor, called, nbytes), dtype)
    elif tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
        if len(data) != nbytes:
            raise InvalidInputError(
                f"{called} holds {len(data)} bytes; its shape {tuple(tensor.dims)} needs {nbytes}. "
                "Export the model again, or copy it again in full"
            )
        array = _laid_out(data, dtype)
    else:
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"{called} does not fit its shape {tuple(tensor.dims)}: {error}. "
                "Export the model again"
            ) from error
    if nbytes < LARGE:
        return None
    array = array.reshape(tensor.dims)
    array.flags.writeable = False
    return array


def _laid_out(data: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return bytes as numbers; copied only where they start at an odd place, or end first."""
    numbers = data.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    return np.require(numbers, requirements="A")
