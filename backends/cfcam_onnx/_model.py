"""From a model as it was read to one to work on: inlined, in a modern operator set, with shapes.

Nothing is run here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from numpy.typing import NDArray
from onnx import helper, numpy_helper, shape_inference

from cfcam_core.errors import InvalidInputError, UnsupportedOpError
from cfcam_onnx._graph import (
    PREFIX,
    STANDARD,
    Graph,
    attributes,
    everywhere,
    operator,
    opset_of,
    reads,
)
from cfcam_onnx._ranks import check_ranks
from cfcam_onnx._rules import INTEGER_ARITHMETIC, RULES, ZERO_GRADIENT

LEAST_OPSET = 16
"""First operator set in which ScatterElements adds, as the gradient of a MaxPool must."""

TARGET_OPSET = 17
"""Operator set that older models are converted to."""

LOOPS = frozenset({"Range", "SequenceMap"})
"""Operators that ONNX defines by a Loop: slow, and no gradient comes of it."""

RUNTIME_DOMAINS = frozenset({*STANDARD, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""Operator domains that onnxruntime brings along."""


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with functions inlined, in an operator set that gradients can be written in.

    Sizes noted in the file are dropped and inferred anew: they are stale where somebody has
    edited the batch axis. A negative size of an input means an open one.

    Raises
    ------
    InvalidInputError
        The operator set is too old and cannot be converted.
    UnsupportedOpError
        Operators that onnxruntime does not have.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse_unknown(model)
    _name_split_outputs(model)
    _drop_unread_inputs(model.graph)
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for info in model.graph.input:
        for size in info.type.tensor_type.shape.dim:
            if size.dim_value < 0:
                size.ClearField("dim_value")
    check_ranks(model.graph)
    _refuse_crashing(model)
    opset = opset_of(model)
    if opset < LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, TARGET_OPSET)
        except (RuntimeError, onnx.version_converter.ConvertError) as error:
            if opset < 13:
                raise InvalidInputError(
                    f"the model uses operator set {opset}, which cannot be converted to "
                    f"{TARGET_OPSET}: {error}. "
                    "Export it with a newer operator set"
                ) from error
    if opset < 11:
        _round_as_before(model)
    model = _without_compositions(model)
    model.ir_version = max(model.ir_version, 8)
    return shape_inference.infer_shapes(model)  # the trial run shows more, and has limits


def _name_split_outputs(model: onnx.ModelProto) -> None:
    """Give names to the outputs of a Split that nobody reads: onnxruntime crashes on empty ones."""
    for node in model.graph.node:
        if node.op_type == "Split" and "" in node.output:
            named = next(filter(None, node.output))
            for i, name in enumerate(node.output):
                node.output[i] = name or f"{PREFIX}{named}/unread_{i}"


def _drop_unread_inputs(graph: onnx.GraphProto) -> None:
    """Drop the inputs that nothing reads: tf2onnx lists constants of the model among them."""
    read = {name for node in graph.node for name in reads(node)} | {o.name for o in graph.output}
    kept = [info for info in graph.input if info.name in read]
    if kept:
        del graph.input[:]
        graph.input.extend(kept)


def _round_as_before(model: onnx.ModelProto) -> None:
    """Give each Resize the coordinates it had before operator set 11, which the converter forgets.

    The nearest neighbour was rounded down along axes that grow and up along those that shrink, so
    a node that may do both becomes two.

    Raises
    ------
    InvalidInputError
        A Resize stands in a subgraph.
    """
    graph = Graph(model)
    resizes = [node for node in everywhere(graph.nodes) if node.op_type == "Resize"]
    if len(resizes) > sum(node.op_type == "Resize" for node in graph.nodes):
        raise InvalidInputError(
            "the model resizes inside an If or a Loop, in an operator set before 11; export it "
            "with a newer operator set"
        )
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.op_type != "Resize":
            nodes.append(node)
            continue
        node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        scales = graph.value(node.input[2])
        if attributes(node).get("mode", "nearest") != "nearest":
            nodes.append(node)
        elif scales is not None and (scales >= 1).all():
            nodes.append(_rounding(node, "floor"))
        elif scales is not None and (scales <= 1).all():
            nodes.append(_rounding(node, "ceil"))
        else:
            nodes.extend(_grown_then_shrunk(node, scales))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _rounding(node: onnx.NodeProto, how: str) -> onnx.NodeProto:
    node.attribute.append(helper.make_attribute("nearest_mode", how))
    return node


def _grown_then_shrunk(
    node: onnx.NodeProto, scales: NDArray[np.float32] | None
) -> list[onnx.NodeProto]:
    """Return a Resize as two: with the scales above one, then with those below."""
    given, (y, *_) = node.input[2], node.output
    one, more, grown, less = (f"{PREFIX}{y}/{part}" for part in ("one", "more", "grown", "less"))

    def constant(value: NDArray[np.float32], name: str) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))

    if scales is None:
        parts = [
            constant(np.array(1, np.float32), one),
            helper.make_node("Max", [given, one], [more]),
            helper.make_node("Min", [given, one], [less]),
        ]
    else:
        parts = [constant(np.maximum(scales, 1), more), constant(np.minimum(scales, 1), less)]
    first = onnx.NodeProto()
    first.CopyFrom(node)
    first.name = first.output[0] = node.input[0] = grown
    first.input[2], node.input[2] = more, less
    return [*parts, _rounding(first, "floor"), _rounding(node, "ceil")]


def _without_compositions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators that ONNX itself defines by others, unless they have a rule."""
    opset = opset_of(model)
    for _ in range(4):  # a definition may use another composition
        found = {node.op_type for node in model.graph.node if node.domain in STANDARD}
        unknown = found - RULES.keys() - ZERO_GRADIENT - INTEGER_ARITHMETIC
        composed = [("", name) for name in sorted(unknown) if _is_composed(name, opset)]
        if not composed:
            break
        noted = {info.name for info in (*model.graph.value_info, *model.graph.input)}
        model.graph.value_info.extend(  # the inliner does not look at weights for their types
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            for weight in model.graph.initializer
            if weight.name not in noted
        )
        model = onnx.inliner.inline_selected_functions(
            model, composed, inline_schema_functions=True
        )
    return model


def _is_composed(name: str, opset: int) -> bool:
    if name in LOOPS or not onnx.defs.has(name, opset, ""):
        return False
    schema = onnx.defs.get_schema(name, max_inclusive_version=opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _refuse_unknown(model: onnx.ModelProto) -> None:
    unknown = [node for node in model.graph.node if node.domain not in RUNTIME_DOMAINS]
    if unknown:
        names = _counted(map(operator, unknown))
        raise UnsupportedOpError(
            f"onnxruntime has no operators {names}, the first at "
            f"{unknown[0].name or unknown[0].output[0]!r}; "
            "export the model with standard operators"
        )


def _refuse_crashing(model: onnx.ModelProto) -> None:
    """Refuse an integer division by -1: the processor stops at that of the smallest integer."""
    graph = Graph(model)
    for node in graph.nodes:
        if node.op_type in {"Div", "Mod"} and len(node.input) == 2:
            by = graph.value(node.input[1])
            if by is not None and by.dtype.kind == "i" and (by == -1).any():
                raise InvalidInputError(
                    f"the model divides integers by -1, at {node.name or node.output[0]!r}, which "
                    "may end the process; export it with a multiplication"
                )


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} ({count}x)" for name, count in sorted(Counter(names).items()))
