"""Whether a message is a graph at all: names that are text, nodes in order, no more than allowed.

Walks without recursion until the depth is known to be small. Nothing is run or converted here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import STANDARD, everywhere, operator, reads
from cfcam_onnx._limits import Limits

LONGEST_NAME = 1 << 16
"""Characters of a name. Those that exporters write have some hundred."""

MOST_ATTRIBUTES = 256
"""Attributes of a node. No operator has more than some twenty."""

DEEPEST_MESSAGE = 100
"""Messages within messages; protobuf itself reads no more from a file."""

SHOWN = 6
"""Nodes of a circle that an error names."""


def parts(message: Message, limits: Limits, where: str) -> Iterator[Message]:
    """Yield a model and all that it is made of: nodes, attributes, functions, weights.

    Raises
    ------
    InvalidInputError
        Graphs lie too deep in graphs, or names are too long or no text.
    """
    waiting = [(message, 0, 0)]
    while waiting:
        part, depth, graphs = waiting.pop()
        graphs += isinstance(part, onnx.GraphProto)
        if graphs > limits.depth + 1 or depth > DEEPEST_MESSAGE:
            raise InvalidInputError(
                f"{where} holds graphs within graphs, more than {limits.depth} deep; export it "
                "without so many conditions and loops, or raise depth= of cfcam_onnx.Limits"
            )
        yield part
        if isinstance(part, onnx.NodeProto) and len(part.attribute) > MOST_ATTRIBUTES:
            raise InvalidInputError(
                f"{where} has a node with {len(part.attribute):,} attributes; at most "
                f"{MOST_ATTRIBUTES} are allowed. Export the model again"
            )
        if isinstance(part, onnx.TensorProto):  # large, and only data in it
            _check_name(part.name, where)
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                found = [value] if isinstance(value, Message) else value
                waiting.extend((inner, depth + 1, graphs) for inner in found)
            elif field.type == field.TYPE_STRING and field.name != "doc_string":
                # values of metadata are prose: PyTorch's exporter notes all weights in one
                longest = None if field.name == "value" else LONGEST_NAME
                for text in [value] if isinstance(value, str | bytes) else value:
                    _check_name(text, where, longest)


def _check_name(text: str | bytes, where: str, longest: int | None = LONGEST_NAME) -> None:
    if isinstance(text, bytes):  # so protobuf hands out what it cannot decode
        raise InvalidInputError(f"{where} has names that are no text; copy the model again in full")
    if longest is not None and len(text) > longest:
        raise InvalidInputError(
            f"{where} has a name of {len(text):,} characters; at most {longest:,} are "
            "allowed. Export the model again"
        )


def check_size(model: onnx.ModelProto, limits: Limits, where: str) -> None:
    """Refuse a model that has too many nodes once its functions are written out.

    Raises
    ------
    InvalidInputError
        Too many, or functions that call each other too deep or in a circle.
    """
    if _nodes_in_full(model, limits.depth) > limits.nodes:
        raise InvalidInputError(
            f"{where} has more than {limits.nodes:,} nodes once its functions are written out, or "
            f"functions within functions, more than {limits.depth} deep; export it without "
            "functions, or raise nodes= or depth= of cfcam_onnx.Limits"
        )


def _nodes_in_full(model: onnx.ModelProto, deepest: int) -> float:
    """Return the number of nodes with all functions written out; infinite if they go too deep."""
    bodies = {
        (f.name if f.domain in STANDARD else f"{f.domain}.{f.name}", f.overload): f.node
        for f in model.functions
    }
    sizes: dict[tuple[str, str], tuple[float, int]] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> tuple[float, int]:
        """Return the number of nodes, and how deep the functions go."""
        found = [called((operator(node), node.overload)) for node in everywhere(nodes)]
        return sum(1 + n for n, _ in found), max((depth for _, depth in found), default=0)

    def called(function: tuple[str, str]) -> tuple[float, int]:
        if function not in bodies:
            return 0, 0
        if function not in sizes:
            sizes[function] = math.inf, 0  # holds while its body is counted
            number, depth = size(bodies[function])
            sizes[function] = number if depth < deepest else math.inf, depth + 1
        return sizes[function]

    try:
        return size(model.graph.node)[0]
    except RecursionError:
        return math.inf


def put_in_order(graph: onnx.GraphProto, where: str) -> None:
    """Sort the nodes, unless each stands behind those that it reads from already.

    Raises
    ------
    InvalidInputError
        A tensor is made by nobody, or twice, or from itself.
    """
    given = _given_once(graph, where)
    maker: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in maker or name in given:
                raise InvalidInputError(
                    f"{where} makes the tensor {name!r} twice, the second time in node "
                    f"{_called(node)}; export the model again"
                )
            maker[name] = i
    read = [list(dict.fromkeys(reads(node))) for node in graph.node]
    wanted = [(n, f"node {_called(graph.node[i])}") for i, names in enumerate(read) for n in names]
    for name, reader in [*wanted, *((v.name, "an output") for v in graph.output)]:
        if name not in given and name not in maker:
            raise InvalidInputError(
                f"{where} is incomplete: {reader} needs the tensor {name!r}, which no node makes; "
                "export the model again"
            )
    sources = {i: {maker[n] for n in names if n in maker} for i, names in enumerate(read)}
    if all(source < i for i, found in sources.items() for source in found):
        return
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError as error:
        around = [_called(graph.node[i]) for i in error.args[1]]
        if len(around) > SHOWN:
            around[SHOWN - 1 : -1] = ["..."]
        raise InvalidInputError(
            f"{where} runs in a circle: {' -> '.join(around)}; export the model again"
        ) from error
    nodes = onnx.GraphProto(node=[graph.node[i] for i in order]).node
    del graph.node[:]
    graph.node.extend(nodes)


def _given_once(graph: onnx.GraphProto, where: str) -> set[str]:
    """Return the inputs and weights; a weight may be an input too, as its default."""
    given: set[str] = set()
    weights = [t.name for t in graph.initializer] + [
        t.values.name for t in graph.sparse_initializer
    ]
    for kind, names in (("inputs", [v.name for v in graph.input]), ("weights", weights)):
        found = set(names)
        if len(found) < len(names):
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise InvalidInputError(
                f"{where} has two {kind} named {twice!r}; export the model again"
            )
        given |= found
    return given


def _called(node: onnx.NodeProto) -> str:
    return repr(node.name or next(iter(node.output), operator(node)))
