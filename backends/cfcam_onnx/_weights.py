"""Weights live outside the model: arrays by name, in place of tensors in a protobuf message.

What is worked on is then a message of a few hundred kilobytes, however large the model; shape
inference, conversions and the trial run never copy a weight, all sessions of a model share one
copy, and files of more than 2 GB work. Weights beside the model's file are mapped, not read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD

Weights = Mapping[str, NDArray[Any]]

LARGE = 1 << 10
"""Bytes from which a tensor is kept outside; shapes, axes and the like are always smaller."""

PLAIN = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE),
        *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
    }
)
"""Element types that NumPy has; tensors of others stay in the message."""


def take_out(model: onnx.ModelProto, folders: Iterable[Path], where: str) -> Weights:
    """Move the large weights of a model out of it; they become inputs with a fixed shape.

    Parameters
    ----------
    model : onnx.ModelProto
        Is changed.
    folders : iterable of Path
        Where weights outside the model's file may lie; none for a model that is no file.
    where : str
        What the model is called in errors.

    Returns
    -------
    mapping of str to ndarray
        Read-only.

    Raises
    ------
    InvalidInputError
        Weights are missing, incomplete or lie elsewhere, or a tensor's data do not fit its shape.
    """
    graph, allowed = model.graph, [folder.resolve() for folder in folders]
    found: dict[str, NDArray[Any]] = {}
    kept: list[TensorProto] = []
    for tensor in graph.initializer:
        array = _array(tensor, allowed, where)
        if array is None:
            kept.append(tensor)
        else:
            found[tensor.name] = array
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        array = _constant(node, allowed, where)
        if array is None:
            nodes.append(node)
        else:
            found[node.output[0]] = array
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


def bring_in(tensor: TensorProto, folders: Iterable[Path], where: str) -> None:
    """Read a tensor's data from another file into the message; errors as for `take_out`."""
    called, allowed = f"the tensor {tensor.name!r}", [folder.resolve() for folder in folders]
    data = _mapped(tensor, allowed, where, called, None).tobytes()
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")
    tensor.raw_data = data


def put_back(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Return a model that holds its weights itself: every stub filled."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    for tensor in full.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return full


def _constant(node: onnx.NodeProto, folders: list[Path], where: str) -> NDArray[Any] | None:
    """Return the value of a Constant, if it is large."""
    if node.op_type != "Constant" or node.domain not in STANDARD or len(node.attribute) != 1:
        return None
    tensor = node.attribute[0].t
    if node.attribute[0].name != "value" or len(node.output) != 1:
        return None
    return _array(tensor, folders, where, f"the constant {node.output[0]!r}")


def _array(
    tensor: TensorProto, folders: list[Path], where: str, called: str = ""
) -> NDArray[Any] | None:
    """Return a tensor's values; None where it may stay, being small or of a type NumPy lacks."""
    called = f"{called or f'the weight {tensor.name!r}'} of {where}"
    if min(tensor.dims, default=1) < 0:
        raise InvalidInputError(f"{called} has a negative size; export the model again")
    if tensor.data_type not in PLAIN:
        return None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    nbytes = math.prod(tensor.dims) * dtype.itemsize
    if tensor.data_location == TensorProto.EXTERNAL:
        data = _mapped(tensor, folders, where, called, nbytes)
    elif tensor.HasField("raw_data"):
        data = np.frombuffer(tensor.raw_data, np.uint8)
        if len(data) != nbytes:
            raise InvalidInputError(
                f"{called} holds {len(data)} bytes; its shape {tuple(tensor.dims)} needs {nbytes}. "
                "Export the model again, or copy it again in full"
            )
    else:
        try:
            data = numpy_helper.to_array(tensor).reshape(-1).view(np.uint8)
        except ValueError as error:
            raise InvalidInputError(
                f"{called} does not fit its shape {tuple(tensor.dims)}: {error}. "
                "Export the model again"
            ) from error
    if nbytes < LARGE:
        return None
    array: NDArray[Any] = data.view(dtype).reshape(tensor.dims)
    array.flags.writeable = False
    return array


def _mapped(
    tensor: TensorProto, folders: list[Path], where: str, called: str, nbytes: int | None
) -> NDArray[np.uint8]:
    """Return the bytes of a tensor that lie in another file; `nbytes` None for all that it says."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    location = told.get("location", "")
    if not folders:
        raise InvalidInputError(
            f"{where} refers to weights in another file; pass the path of the .onnx file, with "
            "the weights beside it"
        )
    path = _beside(location, folders, called)
    available = path.stat().st_size
    try:
        offset = int(told.get("offset", 0))
        length = int(told.get("length", available - offset if nbytes is None else nbytes))
    except ValueError:
        offset = length = -1
    if not (0 <= offset <= available and 0 <= length <= available - offset) or (
        nbytes is not None and length != nbytes
    ):
        raise InvalidInputError(
            f"{called} should be {length if nbytes is None else nbytes} bytes from "
            f"byte {offset} of {location!r}, which does not fit that file of {available} bytes; "
            "copy the model and its weights again in full"
        )
    if not length:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r", offset, (length,)).view(np.ndarray)


def _beside(location: str, folders: list[Path], called: str) -> Path:
    """Return the file that a model calls `location`, if it is a plain file in one of `folders`.

    Links are followed first, so none leads out; a file with a second name may be anybody's.
    """
    relative = Path(location)
    if location and "\0" not in location and not relative.is_absolute() and not relative.drive:
        found = Path(os.path.realpath(folders[0] / relative))
        if any(found.is_relative_to(folder) for folder in folders):
            if not found.is_file():
                raise InvalidInputError(
                    f"{called} should be in {location!r}, which is not there; "
                    "copy it beside the model"
                )
            if found.stat().st_nlink == 1:
                return found
    raise InvalidInputError(
        f"{called} is said to be in {location!r}; weights must lie in the model's folder or below "
        "it, in files with one name"
    )
