"""Writing a model whose weights live outside it: one file, or two where one cannot hold it all.

No second copy of the weights is made: they are written one after the other, from where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, TensorProto

from cfcam_core.files import replacing
from cfcam_onnx._reading.weights import Weights

LARGEST_FILE = (1 << 31) - 1
"""Bytes of a model in one file: no protobuf message may be larger."""

PAGE = 4096
"""Weights in a file of their own start at multiples of this, so that they can be mapped."""


def save(model: onnx.ModelProto, weights: Weights, path: Path) -> None:
    """Write a model with its weights; what stood at `path` is replaced at once or not at all.

    Over 2 GB the weights go to a second file beside it. That is named after its contents, so a
    model that stood there before keeps its own.

    Parameters
    ----------
    model : onnx.ModelProto
        Its large initializers are stubs, see `cfcam_onnx._graph.stub`.
    weights : mapping of str to ndarray
        What the stubs stand for.
    path : Path

    Raises
    ------
    InvalidInputError
        The file cannot be written there.
    """
    stubs = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    found = {tensor.name: _bytes(weights, tensor.name) for tensor in stubs}
    if model.ByteSize() + sum(data.nbytes for data in found.values()) <= LARGEST_FILE:
        with replacing(path) as file:
            for part in _in_one(model, found):
                file.write(part)
        return
    digest = sha256()
    for data in found.values():
        digest.update(data)
    beside = path.with_name(f"{path.name}.{digest.hexdigest()[:16]}.data")
    was_there = beside.exists()
    try:
        with replacing(path) as file, replacing(beside) as more:
            file.write(_referring(model, found, beside.name, more).SerializeToString())
    except BaseException:
        if not was_there:  # weights without their model are of no use
            beside.unlink(missing_ok=True)
        raise


def _bytes(weights: Weights, name: str) -> memoryview:
    return np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data


def _in_one(model: onnx.ModelProto, weights: dict[str, memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the serialised model with the weights inside, as protobuf itself would write it.

    A message within a message is a number for its field, its length, and its bytes.
    """
    outer, inner, tensors = ModelProto(), GraphProto(), []
    outer.CopyFrom(model)
    outer.ClearField("graph")
    inner.CopyFrom(model.graph)
    inner.ClearField("initializer")
    for tensor in model.graph.initializer:
        if tensor.name not in weights:
            inner.initializer.append(tensor)
            continue
        data = weights[tensor.name]
        plain = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        head = plain.SerializeToString() + _opening(plain, "raw_data", data.nbytes)
        tensors.append((_opening(inner, "initializer", len(head) + data.nbytes) + head, data))
    nodes = inner.SerializeToString()
    length = len(nodes) + sum(len(head) + data.nbytes for head, data in tensors)
    yield outer.SerializeToString() + _opening(outer, "graph", length) + nodes
    for head, data in tensors:
        yield head
        yield data


def _opening(message: Message, field: str, length: int) -> bytes:
    """Return what protobuf writes before the bytes of a field whose length varies."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    """Return a number as protobuf has it: seven bits a byte, the lowest first."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _referring(
    model: onnx.ModelProto, weights: dict[str, memoryview], location: str, file: BinaryIO
) -> onnx.ModelProto:
    """Write the weights to a file; return the model referring to it."""
    small = ModelProto()
    small.CopyFrom(model)
    end = 0
    for tensor in small.graph.initializer:
        if tensor.name in weights:
            data = weights[tensor.name]
            file.write(bytes(-end % PAGE))
            start = end + -end % PAGE
            end = start + data.nbytes
            file.write(data)
            tensor.ClearField("external_data")
            for key, value in (("location", location), ("offset", start), ("length", data.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
    return small
