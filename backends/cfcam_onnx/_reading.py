"""Reading what a user passes, which may be damaged or hostile: what leaves is sound, or refused.

Nothing is run here, and nothing of the user's is written to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference
import onnx.version_converter
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from cfcam_core.errors import CfcamError, InvalidInputError
from cfcam_onnx._graph import STANDARD, everywhere, operator, reads
from cfcam_onnx._weights import Weights, bring_in, take_out

MOST_NODES = 1_000_000
"""Nodes that a model may have with its functions written out. The largest exports have some ten
thousand; a few functions that call each other make more than any memory holds."""

FAULTS: tuple[type[Exception], ...] = (
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
)
"""What onnx raises of a model that is wrong; its errors have no common root."""

INVALID: tuple[type[Exception], ...] = (*FAULTS, CfcamError, ValueError)
"""What says that the checker, or we, find a model invalid."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a user passed, read."""

    model: onnx.ModelProto
    """May be changed; its nodes are in order, and its large weights are inputs."""
    weights: Weights
    """What those inputs are."""


def read_model(model: Any) -> Source:
    """Return the model, and its large weights apart.

    Parameters
    ----------
    model : str, path, bytes or onnx.ModelProto

    Raises
    ------
    InvalidInputError
        The file is missing or empty, is no ONNX model, keeps its weights outside its own folder,
        reads tensors that nothing makes, runs in a circle, or grows without bounds.
    """
    folders: list[Path] = []
    if isinstance(model, str | PathLike):
        path = Path(fspath(model))
        where = f"{str(path)!r}"
        if not path.is_file():
            raise InvalidInputError(f"there is no model file {where}; check the path")
        proto = _parse(path, where)
        folders = [path.parent, path.resolve().parent]  # of a link: where it leads, too
    elif isinstance(model, bytes):
        where = f"the {len(model)} bytes"
        proto = _parse(model, where)
    elif isinstance(model, onnx.ModelProto):
        where = "the ModelProto"
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    else:
        raise InvalidInputError(
            f"a {type(model).__name__} is not an ONNX model; pass a path, bytes or an "
            "onnx.ModelProto"
        )
    if not proto.graph.node or not proto.graph.output:
        raise InvalidInputError(
            f"{where} holds no ONNX graph with nodes and outputs; export the model again, or "
            "copy it again in full"
        )
    if any(map(_is_garbled, _parts(proto))):
        raise InvalidInputError(f"{where} has names that are no text; copy the model again in full")
    weights = take_out(proto, folders, where)
    for part in _parts(proto):
        external = onnx.TensorProto.EXTERNAL
        if isinstance(part, onnx.TensorProto) and part.data_location == external:
            bring_in(part, folders, where)
    if _nodes_in_full(proto) > MOST_NODES:
        raise InvalidInputError(
            f"{where} has more than {MOST_NODES:,} nodes once its functions are written out; "
            "export it without functions"
        )
    _put_in_order(proto.graph, where)
    return Source(proto, weights)


@contextmanager
def blaming(source: onnx.ModelProto) -> Iterator[None]:
    """Turn an unforeseen error into `InvalidInputError` if ONNX's own checker faults the model.

    The checker is shown what was read, not what has been made of it meanwhile.
    """
    read = onnx.ModelProto()
    read.CopyFrom(source)
    try:
        yield
    except CfcamError:
        raise
    except MemoryError as error:
        raise InvalidInputError(
            "the model needs more memory than there is; check the sizes it declares"
        ) from error
    except FAULTS as error:
        raise InvalidInputError(
            f"onnx cannot work with the model: {error}. Export it again"
        ) from error
    except Exception as error:
        try:
            shaped = onnx.shape_inference.infer_shapes(read)  # outputs may lack shapes
            onnx.checker.check_model(shaped, full_check=True)
        except INVALID as fault:
            raise InvalidInputError(
                f"the model is not valid ONNX: {fault}. Export it again"
            ) from error
        raise


def _parse(source: Path | bytes, where: str) -> onnx.ModelProto:
    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        # whatever the file is called
        return onnx.load(source, format="protobuf", load_external_data=False)
    except (DecodeError, MemoryError, OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"{where} cannot be read as an ONNX model: {error}. Check that the file is complete"
        ) from error


def _parts(message: Message) -> Iterator[Message]:
    """Yield the message and all that it is made of: nodes, attributes, functions, weights."""
    yield message
    if isinstance(message, onnx.TensorProto):  # large, and only data in it
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                yield from _parts(part)


def _is_garbled(message: Message) -> bool:
    """Whether a name is no text: protobuf then hands out bytes."""
    if isinstance(message, onnx.TensorProto):
        return isinstance(message.name, bytes)
    return any(
        isinstance(text, bytes)
        for field, value in message.ListFields()
        if field.type == field.TYPE_STRING and field.name != "doc_string"
        for text in ([value] if isinstance(value, str | bytes) else value)
    )


def _nodes_in_full(model: onnx.ModelProto) -> float:
    """Return the number of nodes with all functions written out; infinite if one calls itself."""
    bodies = {
        (f.name if f.domain in STANDARD else f"{f.domain}.{f.name}", f.overload): f.node
        for f in model.functions
    }
    sizes: dict[tuple[str, str], float] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> float:
        return sum(1 + called((operator(node), node.overload)) for node in everywhere(nodes))

    def called(function: tuple[str, str]) -> float:
        if function not in bodies:
            return 0
        if function not in sizes:
            sizes[function] = math.inf  # holds while its body is counted
            sizes[function] = size(bodies[function])
        return sizes[function]

    try:
        return size(model.graph.node)
    except RecursionError:
        return math.inf


def _put_in_order(graph: onnx.GraphProto, where: str) -> None:
    """Sort the nodes, unless each stands behind those that it reads from already."""
    given = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    given |= {t.values.name for t in graph.sparse_initializer}
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    wanted = [(name, f"node {_called(node)}") for node in graph.node for name in reads(node)]
    for name, reader in [*wanted, *((v.name, "an output") for v in graph.output)]:
        if name not in given and name not in maker:
            raise InvalidInputError(
                f"{where} is incomplete: {reader} needs the tensor {name!r}, which no node makes; "
                "export the model again"
            )
    sources = {
        i: {maker[name] for name in reads(node) if name in maker}
        for i, node in enumerate(graph.node)
    }
    if all(source < i for i, found in sources.items() for source in found):
        return
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        ring = " -> ".join(_called(graph.node[i]) for i in error.args[1])
        raise InvalidInputError(
            f"{where} runs in a circle: {ring}; export the model again"
        ) from error
    nodes = onnx.GraphProto(node=[graph.node[i] for i in order]).node
    del graph.node[:]
    graph.node.extend(nodes)


def _called(node: onnx.NodeProto) -> str:
    return repr(node.name or next(iter(node.output), operator(node)))
