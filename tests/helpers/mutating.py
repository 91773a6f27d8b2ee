"""Damaged models: seeded changes to the bytes of a valid model, or to its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIZES = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 64, 1000, 2**16, 2**31, 2**40, 2**62)
"""Numbers that are put in the place of others."""

OPERATORS = tuple(
    sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
)

Random = np.random.Generator


def damaged_bytes(rng: Random, whole: bytes) -> bytes:
    """Change, repeat or take away a few bytes."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 8)):
        at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 24))
        kind = rng.integers(0, 4)
        if kind == 0:
            data[at] = int(rng.integers(0, 256))
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            del data[at : at + length]
        else:
            data[at:at] = data[at : at + length]
        data = data or bytearray(b"\0")
    return bytes(data)


def damaged_model(rng: Random, model: onnx.ModelProto) -> onnx.ModelProto:
    """Change the graph in one to three places."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for _ in range(rng.integers(1, 4)):
        CHANGES[rng.integers(0, len(CHANGES))](rng, found)
    return found


def _pick(rng: Random, items: Any) -> Any:
    return items[int(rng.integers(0, len(items)))] if len(items) else None


def _size(rng: Random) -> int:
    return int(_pick(rng, SIZES))


def _names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = {n for node in graph.node for n in (*node.input, *node.output)}
    return sorted(names | {t.name for t in graph.initializer} | {""})


def _drop_node(rng: Random, model: onnx.ModelProto) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[int(rng.integers(0, len(model.graph.node)))]


def _bridge_node(rng: Random, model: onnx.ModelProto) -> None:
    """Take a node out, and let its readers read what it read."""
    node = _pick(rng, model.graph.node)
    if node is not None and node.input and node.output:
        old, new = node.output[0], node.input[0]
        model.graph.node.remove(node)
        for other in model.graph.node:
            for i, name in enumerate(other.input):
                other.input[i] = new if name == old else name


def _duplicate_node(rng: Random, model: onnx.ModelProto) -> None:
    node = onnx.NodeProto()
    node.CopyFrom(_pick(rng, model.graph.node))
    if rng.integers(0, 2):
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}_again"
    model.graph.node.append(node)


def _swap_nodes(rng: Random, model: onnx.ModelProto) -> None:
    a, b = (_pick(rng, model.graph.node) for _ in range(2))
    one = onnx.NodeProto()
    one.CopyFrom(a)
    a.CopyFrom(b)
    b.CopyFrom(one)


def _operator(rng: Random, model: onnx.ModelProto) -> None:
    node = _pick(rng, model.graph.node)
    node.op_type = _pick(rng, OPERATORS)
    if rng.integers(0, 2):
        del node.attribute[:]


def _input(rng: Random, model: onnx.ModelProto) -> None:
    node = _pick(rng, model.graph.node)
    if node.input:
        node.input[int(rng.integers(0, len(node.input)))] = _pick(rng, _names(model))
    if not rng.integers(0, 3):
        node.input.append(_pick(rng, _names(model)))
    elif node.input and not rng.integers(0, 3):
        del node.input[-1]


def _output(rng: Random, model: onnx.ModelProto) -> None:
    node = _pick(rng, model.graph.node)
    if rng.integers(0, 2):
        node.output.append(_pick(rng, ["", "spare", *_names(model)]))
    elif node.output:
        node.output[0] = _pick(rng, _names(model))


def _attribute(rng: Random, model: onnx.ModelProto) -> None:
    node = _pick(rng, [n for n in model.graph.node if n.attribute])
    if node is None:
        return
    attribute = _pick(rng, node.attribute)
    kind = rng.integers(0, 6)
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1 and attribute.ints:
        attribute.ints[int(rng.integers(0, len(attribute.ints)))] = _size(rng)
    elif kind == 2:
        attribute.ints.extend([_size(rng)] * int(rng.integers(1, 4)))
    elif kind == 3:
        attribute.i, attribute.f = _size(rng), float(_size(rng))
    elif kind == 4:
        attribute.type = int(rng.integers(0, 15))
    else:
        attribute.s = b"\xff\0evil"


def _weight(rng: Random, model: onnx.ModelProto) -> None:
    tensor = _pick(rng, model.graph.initializer)
    if tensor is None:
        return
    kind = rng.integers(0, 6)
    if kind == 0 and tensor.dims:
        tensor.dims[int(rng.integers(0, len(tensor.dims)))] = _size(rng)
    elif kind == 1:
        tensor.data_type = int(rng.integers(0, 28))
    elif kind == 2:
        tensor.name = _pick(rng, _names(model))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(0, 9))]
    elif kind == 4 and tensor.data_type == onnx.TensorProto.INT64:
        array = np.frombuffer(tensor.raw_data[: len(tensor.raw_data) // 8 * 8], np.int64).copy()
        if array.size:
            array[int(rng.integers(0, array.size))] = _size(rng)
            tensor.raw_data = array.tobytes()
    else:
        model.graph.initializer.remove(tensor)


def _declared(rng: Random, model: onnx.ModelProto) -> None:
    """Change what an input or output is said to be."""
    info = _pick(rng, [*model.graph.input, *model.graph.output])
    if info is None:
        return
    tensor, kind = info.type.tensor_type, rng.integers(0, 5)
    if kind == 0 and tensor.shape.dim:
        _pick(rng, tensor.shape.dim).dim_value = _size(rng)
    elif kind == 1 and tensor.shape.dim:
        _pick(rng, tensor.shape.dim).dim_param = "N"
    elif kind == 2:
        tensor.elem_type = int(rng.integers(0, 28))
    elif kind == 3:
        tensor.shape.dim.add(dim_value=_size(rng))
    else:
        tensor.ClearField("shape")


def _opset(rng: Random, model: onnx.ModelProto) -> None:
    model.opset_import[0].version = int(rng.integers(-1, 30))


def _version(rng: Random, model: onnx.ModelProto) -> None:
    model.ir_version = int(rng.integers(0, 16))


def _names_of_graph(rng: Random, model: onnx.ModelProto) -> None:
    info = _pick(rng, [*model.graph.input, *model.graph.output])
    if info is not None:
        info.name = _pick(rng, _names(model))


def _nest(rng: Random, model: onnx.ModelProto) -> None:
    """Put a node into the branches of an If, on a condition that is a weight."""
    node = _pick(rng, model.graph.node)
    if not node.output:
        return
    inner, result = onnx.NodeProto(), node.output[0]
    inner.CopyFrom(node)
    info = helper.make_empty_tensor_value_info(result)
    info.type.tensor_type.elem_type = 1
    body = helper.make_graph([inner], "body", [], [info])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), f"if_{result}"))
    node.CopyFrom(
        helper.make_node("If", [f"if_{result}"], [result], then_branch=body, else_branch=body)
    )


def _insert(rng: Random, model: onnx.ModelProto) -> None:
    """Let an operator with sizes among its inputs stand behind a tensor."""
    node = _pick(rng, [n for n in model.graph.node if n.output])
    if node is None:
        return
    name = node.output[0]
    sizes = np.array([_size(rng) for _ in range(rng.integers(1, 5))])
    model.graph.initializer.append(numpy_helper.from_array(sizes, f"{name}_sizes"))
    operator = _pick(
        rng, ("Expand", "Tile", "Pad", "Reshape", "Slice", "Resize", "Gather", "Split")
    )
    node.output[0] = f"{name}_before"
    read = [f"{name}_before", f"{name}_sizes"]
    model.graph.node.append(helper.make_node(operator, read, [name]))


CHANGES: tuple[Callable[[Random, onnx.ModelProto], None], ...] = (
    *(_drop_node, _bridge_node, _duplicate_node, _swap_nodes, _operator, _input, _output),
    *(_attribute, _attribute, _weight, _weight, _declared, _opset, _version, _names_of_graph),
    *(_nest, _insert, _operator, _attribute),
)
