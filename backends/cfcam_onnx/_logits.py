"""Where the logits are: the output that names classes, or what a closing Softmax reads."""

from __future__ import annotations

import onnx

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._graph import PREFIX, Graph

LOGITS = f"{PREFIX}logits"
"""Name of the logits where they have to be brought to two axes."""

TRANSPARENT = frozenset(
    {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}
)
"""Operators that may stand behind the Softmax."""

SQUASHING = frozenset({"LogSoftmax", "Sigmoid", "Softmax"})
"""Operators whose input is what we call logits."""


def find_logits(
    graph: Graph, output: str | None = None, trial: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the tensor of the logits, shape (N, K), and the operators that were looked through.

    Parameters
    ----------
    graph : Graph
        A node is added where the logits have more than two axes.
    output : str, optional
        Name of the output to explain. Default: the first that has the shape of class scores.
    trial : str, optional
        Why the trial run has taught nothing, if it has not.

    Raises
    ------
    InvalidInputError
        There is no such output, or none with one score a class.
    """
    names = [info.name for info in graph.model.graph.output]
    if output is not None and output not in names:
        raise InvalidInputError(f"the model has no output {output!r}; it has {', '.join(names)}")
    candidates = [name for name in ([output] if output else names) if _is_scores(graph, name)]
    if not candidates:
        raise InvalidInputError(
            "this is not a classifier: wanted a float output of shape (N, classes), but the "
            "outputs are "
            + ", ".join(f"{name} {graph.dtype(name)} {graph.sample_shape(name)}" for name in names)
            + (f"; the trial run failed: {trial}" if trial else "")
        )
    name = min(candidates, key=lambda n: len(graph.shape(n) or ()) != 2)
    logits, behind = _look_through(graph, name)
    shape = graph.shape(logits)
    if shape is not None and len(shape) > 2:
        classes = [size for size in shape[1:] if size != 1] or [1]
        flat = graph.own(LOGITS)
        graph.append(onnx.helper.make_node("Flatten", [logits], [flat], name=flat, axis=1))
        graph.alias(flat, logits, (shape[0], *classes))
        logits = flat
    return logits, behind


def _look_through(graph: Graph, name: str) -> tuple[str, tuple[str, ...]]:
    """Return what stands before the closing Softmax, or `name` itself if there is none."""
    at = name
    while at in graph.producer:
        node = graph.producer[at]
        kind, source = "Softmax", _softmax_written_out(graph, node)
        if source is None and node.op_type in SQUASHING:
            kind, source = node.op_type, node.input[0]
        if source is not None:
            return (source, (kind,)) if _is_scores(graph, source) else (name, ())
        if node.op_type not in TRANSPARENT:
            break
        at = node.input[0]
    return name, ()


def _softmax_written_out(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return x if the node ends ``exp(x) / sum(exp(x))``, with or without the maximum taken off."""
    if node.op_type != "Div":
        return None
    top, bottom = (graph.producer.get(name) for name in node.input)
    if top is None or bottom is None or top.op_type != "Exp" or bottom.op_type != "ReduceSum":
        return None
    if bottom.input[0] != node.input[0]:
        return None
    shifted = graph.producer.get(top.input[0])
    if shifted is not None and shifted.op_type == "Sub":
        maximum = graph.producer.get(shifted.input[1])
        same = maximum is not None and maximum.input[0] == shifted.input[0]
        if maximum is not None and maximum.op_type == "ReduceMax" and same:
            return str(shifted.input[0])
    return str(top.input[0])


def _is_scores(graph: Graph, name: str) -> bool:
    """Whether a tensor is float and has one axis behind the batch, any others being of size one."""
    shape = graph.sample_shape(name)
    if not graph.is_float(name) or shape is None or len(shape) < 2:
        return False
    return len(shape) == 2 or sum(size != 1 for size in shape[1:]) <= 1
