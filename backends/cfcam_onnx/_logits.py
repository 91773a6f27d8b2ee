"""Where the logits are: the output that names classes, or what a closing Softmax reads.

A closing pair of QuantizeLinear and DequantizeLinear is looked through as well: where it cuts the
largest logit off, no gradient would be left.
"""

from __future__ import annotations

from difflib import get_close_matches

import onnx

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import PREFIX, Graph

LOGITS = f"{PREFIX}logits"
"""Name of the logits where they have to be brought to two axes."""

TRANSPARENT = frozenset(
    {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
)
"""Operators that may stand behind the Softmax."""

SQUASHING = frozenset({"HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax"})
"""Operators whose input is what we call logits."""

ROUNDING = "QuantizeLinear"
"""What stands for a pair with DequantizeLinear among the operators that were looked through."""

LOGARITHMS = (("Exp", "LogSoftmax", "Softmax"), ("Log", "Softmax", "LogSoftmax"))
"""What an operator behind a squashing one makes of the two."""


def without_zip_maps(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model, which is changed, with each ZipMap handing on the scores that it reads.

    Cloud services end their exports with one: a list of dictionaries, class name to probability.
    """
    outputs = {info.name: info for info in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml":
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
            if node.output[0] in outputs:
                kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
                outputs[node.output[0]].type.CopyFrom(kind)
    return model


def find_logits(
    graph: Graph,
    output: str | None = None,
    trial: str | None = None,
    *,
    look_through: bool = True,
) -> tuple[str, tuple[str, ...]]:
    """Return the tensor of the logits, shape (N, K), and the operators that were looked through.

    Parameters
    ----------
    graph : Graph
        A node is added where the logits have more than two axes.
    output : str, optional
        Name of the output to explain, or of any tensor or node. Default: the first output that
        has the shape of class scores.
    trial : str, optional
        Why the trial run has taught nothing, if it has not.
    look_through : bool
        Whether the input of a closing Softmax or Sigmoid counts, not what it makes of it, and the
        logits as they were before they were quantized.

    Raises
    ------
    InvalidInputError
        There is no such output, or none with one score a class.
    """
    names = [info.name for info in graph.model.graph.output]
    if output is not None:
        names = [_chosen(graph, output, names)]
    candidates = [name for name in names if _is_scores(graph, name)]
    if not candidates:
        raise InvalidInputError(
            "this is not a classifier: wanted a float output of shape (N, classes), but the "
            "outputs are "
            + ", ".join(f"{name} {graph.dtype(name)} {graph.sample_shape(name)}" for name in names)
            + (f"; the trial run failed: {trial}" if trial else "")
        )
    name = min(candidates, key=lambda n: len(graph.shape(n) or ()) != 2)
    logits, behind = _look_through(graph, name) if look_through else (name, ())
    shape = graph.shape(logits)
    if shape is not None and len(shape) > 2:
        classes = [size for size in shape[1:] if size != 1] or [1]
        flat = graph.own(LOGITS)
        graph.append(onnx.helper.make_node("Flatten", [logits], [flat], name=flat, axis=1))
        graph.alias(flat, logits, (shape[0], *classes))
        logits = flat
    return logits, behind


def _chosen(graph: Graph, output: str, names: list[str]) -> str:
    """Return the tensor that the user calls `output`; `names` are the model's outputs."""
    if not isinstance(output, str):
        raise InvalidInputError(
            f"output={output!r} is a {type(output).__name__}; pass a name, one of "
            f"{', '.join(names)}"
        )
    if output in names or output in graph.producer:
        return output
    by_node = {node.name: str(node.output[0]) for node in graph.nodes if node.name}
    if output in by_node:
        return by_node[output]
    close = get_close_matches(output, sorted({*graph.producer, *by_node} - {*names}), n=3)
    raise InvalidInputError(
        f"the model has no output {output!r}; it has {', '.join(names)}"
        + (f"; the closest tensors within are {', '.join(close)}" if close else "")
    )


def _look_through(graph: Graph, name: str) -> tuple[str, tuple[str, ...]]:
    """Return what stands before the closing Softmax and any rounding, and these, the last first."""
    logits, at, behind = name, name, dict[str, None]()
    while at in graph.producer:
        node = graph.producer[at]
        kind, source = _unrounded(graph, node)
        if source is None and not behind.keys() & SQUASHING:
            kind, source = _unsquashed(graph, node)
        if source is not None:
            if not _is_scores(graph, source):
                break
            logits = source
            behind[kind] = None
        elif node.op_type not in TRANSPARENT:
            break
        at = source or node.input[0]
    return logits, tuple(behind)


def _unrounded(graph: Graph, node: onnx.NodeProto) -> tuple[str, str | None]:
    """Return what was quantized where a node ends a pair that does so; None if it does not."""
    ends = node.op_type == "DequantizeLinear"
    return ROUNDING, _read_by(graph, node.input[0], "QuantizeLinear") if ends else None


def _unsquashed(graph: Graph, node: onnx.NodeProto) -> tuple[str, str | None]:
    """Return which squashing ends with a node, and what it reads; None if none does."""
    inner = graph.producer.get(node.input[0]) if node.input else None
    for outside, inside, both in LOGARITHMS:
        if node.op_type == outside and inner is not None:
            kind, source = _squashed_at_once(graph, inner)
            if kind == inside:
                return both, source
    return _squashed_at_once(graph, node)


def _squashed_at_once(graph: Graph, node: onnx.NodeProto) -> tuple[str, str | None]:
    """Return the same where no logarithm is taken of it."""
    if node.op_type in SQUASHING:
        return node.op_type, node.input[0]
    if node.op_type == "Div":  # exp(x) / sum(exp(x))
        top, bottom = node.input
        source = _read_by(graph, top, "Exp")
        if source is not None and _read_by(graph, bottom, "ReduceSum") == top:
            return "Softmax", _unshifted(graph, source)
    if node.op_type == "Sub":  # x - log(sum(exp(x)))
        source, total = node.input
        ways = (("ReduceLogSumExp",), ("Log", "ReduceSum", "Exp"))
        if source in {_read_by(graph, total, *way) for way in ways}:
            return "LogSoftmax", _unshifted(graph, source)
    return "", None


def _unshifted(graph: Graph, name: str) -> str:
    """Return x where the tensor is ``x - max(x)``, else itself."""
    node = graph.producer.get(name)
    if node is not None and node.op_type == "Sub":
        x, maximum = node.input
        if _read_by(graph, maximum, "ReduceMax") == x:
            return str(x)
    return name


def _read_by(graph: Graph, name: str, *operators: str) -> str | None:
    """Return what the last of these operators reads, the first of which makes the tensor."""
    for op_type in operators:
        node = graph.producer.get(name)
        if node is None or node.op_type != op_type:
            return None
        name = node.input[0]
    return name


def _is_scores(graph: Graph, name: str) -> bool:
    """Whether a tensor is float and has one axis behind the batch, any others being of size one."""
    shape = graph.sample_shape(name)
    if not graph.is_float(name) or shape is None or len(shape) < 2:
        return False
    return len(shape) == 2 or sum(size != 1 for size in shape[1:]) <= 1
