"""The layers of a flat graph: cut points, names by scope, where channels are, what has a gradient.

Looks at graphs alone; nothing is run here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import tensorflow as tf

from cfcam_core.errors import LayerNotFoundError
from cfcam_core.layers import unknown_layer

PASSED_OVER = frozenset(
    {
        *("AvgPool", "AvgPool3D", "BatchToSpaceND", "Cast", "ExpandDims", "Identity"),
        *("MaxPool", "MaxPool3D", "MaxPoolV2", "MirrorPad", "Pad", "PadV2", "Reshape", "Slice"),
        *("SpaceToBatchND", "Squeeze", "StridedSlice", "Transpose"),
    }
)
"""Operators whose output is no default layer: what they read says as much, on no coarser grid."""

AXES_MOVE = frozenset(
    {
        *("BatchMatMulV2", "BatchToSpaceND", "Einsum", "ExpandDims", "GatherV2", "MatMul"),
        *("Reshape", "SpaceToBatchND", "Squeeze", "Tile"),
    }
)
"""Operators that change what an axis means; in all others, equal ranks mean equal axes."""

ABOUT_SHAPES = frozenset({"Rank", "Shape", "ShapeN", "Size", "VariableShape"})
"""Operators that read no values."""

CLOSING = frozenset({"LogSoftmax", "Sigmoid", "Softmax"})
"""Operators that make probabilities of logits."""

STILL = frozenset({"Cast", "Identity", "Reshape", "Squeeze"})
"""Operators that may stand behind them and change no order of classes."""

CALL = re.compile(r"(Stateful|Stateless)?PartitionedCall(_\d+)?")
COUNT = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor that can be explained."""

    tensor: str
    name: str
    """Path of the operation that makes it, without calls of functions."""
    kind: str
    module: str
    """Path of the layer that makes it, where the scopes tell; dotted."""
    channels: int
    """Axis of the channels."""
    shape: tuple[int | None, ...]


def needed(graph: tf.Graph, ends: Iterable[str]) -> list[Any]:
    """Return the operations that some tensors are made by, in order, but those on shapes."""
    wanted, found = set(ends), []
    for op in reversed(graph.get_operations()):
        if wanted.intersection(t.name for t in op.outputs) and op.type not in ABOUT_SHAPES:
            found.append(op)
            wanted.update(t.name for t in op.inputs)
    return found[::-1]


def reached(ops: Sequence[Any], source: str) -> set[str]:
    """Return the tensors that depend on one."""
    found = {source}
    for op in ops:
        if any(t.name in found for t in op.inputs):
            found.update(t.name for t in op.outputs)
    return found


def cut_points(ops: Sequence[Any], ends: Sequence[str], source: str) -> list[str]:
    """Return the tensors that every path from an input to the ends runs through, in order.

    One pass with a count of what is still to be read: where a single tensor is alive, it is a cut.
    """
    flowing = reached(ops, source)
    reads = [{t.name for t in op.inputs} & flowing for op in ops]
    unread = Counter(name for names in reads for name in names)
    unread.update(name for name in ends if name in flowing)
    alive = {source} if unread[source] else set()
    cuts: list[str] = []
    for op, names in zip(ops, reads, strict=True):
        if not names:
            continue
        for name in names:
            unread[name] -= 1
            if not unread[name]:
                alive.discard(name)
        made = {t.name for t in op.outputs}
        alive.update(name for name in made if unread[name])
        if len(alive) == 1 and alive <= made:
            cuts.extend(alive)
    return cuts


def differentiable(ops: Sequence[Any], ends: Iterable[str]) -> tuple[set[str], list[str]]:
    """Return the tensors with a gradient of the ends, and the operators that have none.

    What lies before such an operator is not among the tensors.
    """
    from tensorflow.python.framework.ops import get_gradient_function

    good, bad, missing = set(ends), set[str](), []
    for op in reversed(ops):
        made = {t.name for t in op.outputs}
        if not made & (good | bad):
            continue
        floats = {t.name for t in op.inputs if t.dtype.is_floating or t.dtype == tf.variant}
        try:
            has_gradient = get_gradient_function(op) is not None
        except LookupError:
            missing.append(op.type)
            bad |= floats
            continue
        if has_gradient:
            (bad if made & bad else good).update(floats)
    return good - bad, sorted(set(missing))


def logits_of(graph: tf.Graph, output: str) -> tuple[str, tuple[str, ...]]:
    """Return the logits behind an output, and the operators that were looked through."""
    op = graph.get_tensor_by_name(output).op
    behind: list[str] = []
    while op.type in CLOSING | STILL and len(op.inputs):
        behind.append(op.type)
        if op.type in CLOSING:
            return op.inputs[0].name, tuple(kind for kind in behind if kind in CLOSING)
        op = op.inputs[0].op
    return output, ()


def channel_axes(ops: Sequence[Any]) -> dict[str, int]:
    """Return the axis of the channels of each tensor for which the operators around it tell."""
    found: dict[str, int] = {}
    for op in ops:
        layout = _data_format(op)
        for tensor in [*op.inputs[:1], *op.outputs[:1]] if layout else []:
            if tensor.shape.rank is not None and tensor.shape.rank >= 3:
                found[tensor.name] = 1 if layout.startswith("NC") else tensor.shape.rank - 1
    for order in (ops, ops[::-1], ops):
        for op in order:
            _spread(op, found)
    return found


def _data_format(op: Any) -> str:
    if "data_format" not in op.node_def.attr:
        return ""
    return str(op.get_attr("data_format").decode())


def _spread(op: Any, found: dict[str, int]) -> None:
    """Carry a known axis from an operation's inputs to its output, or back."""
    if op.type in AXES_MOVE or not op.outputs or op.outputs[0].shape.rank is None:
        return
    out = op.outputs[0]
    moved = list(range(out.shape.rank))
    if op.type == "Transpose":
        order = tf.get_static_value(op.inputs[1])
        if order is None:
            return
        moved = [int(axis) for axis in order]
    for tensor in op.inputs:
        if tensor.shape.rank != out.shape.rank or out.shape.rank < 3:
            continue
        if tensor.name in found:
            found.setdefault(out.name, moved.index(found[tensor.name]))
        elif out.name in found:
            found[tensor.name] = moved[found[out.name]]


class Names:
    """What the tensors of a graph are called: by operation, by layer, without calls of functions.

    Keras numbers the scopes of what it exports, ``conv_1`` for the layer ``conv``: where all are
    numbered, the numbers are left out of the layers' names.

    Parameters
    ----------
    ops : sequence of tf.Operation
        Those on the way from an input, in order.
    """

    def __init__(self, ops: Sequence[Any]) -> None:
        short = {op.name: _without_calls(op.name) for op in ops}
        often = Counter(short.values())
        self.names = {name: one if often[one] == 1 else name for name, one in short.items()}
        scopes = {op: _scope(one) for op, one in short.items()}
        first = {scope[0] for scope in scopes.values() if scope}
        inner = {scope[1] for scope in scopes.values() if len(scope) > 1}
        self._root = 1 if len(first) == 1 and inner else 0
        numbered = self._root and all(COUNT.search(one) for one in first | inner)
        self._scopes = {op: _layer(one) if numbered else one for op, one in scopes.items()}

    def module(self, operation: str) -> str:
        """Return the dotted path of the layer that an operation is part of; may be empty."""
        return ".".join(self._scopes[operation][self._root :])

    def operations(self, name: str) -> list[str]:
        """Return the operations that a name stands for: one, or those of a layer in order.

        Raises
        ------
        LayerNotFoundError
            Nothing has that name, or more than one layer.
        """
        wanted = name.removesuffix(":0")
        if wanted in self.names:
            return [wanted]
        exact = [one for one, short in self.names.items() if short == wanted]
        if exact:
            return exact
        written = {op: _scope(op) for op in self.names}
        for parts in (wanted.split("/"), wanted.replace("/", ".").split(".")):
            for scopes in (self._scopes, written):
                owners = {op: _owner(scope, parts) for op, scope in scopes.items()}
                layers = sorted({owner for owner in owners.values() if owner})
                if len(layers) > 1:
                    there = ", ".join(".".join(layer) for layer in layers)
                    raise LayerNotFoundError(
                        f"the model has several layers {name!r}: {there}; name one of them"
                    )
                if layers:
                    return [op for op, owner in owners.items() if owner]
        modules = dict.fromkeys(self.module(op) for op in self.names)
        raise unknown_layer(name, [one for one in modules if one] or self.names.values())


def _without_calls(name: str) -> str:
    parts = [part for part in name.split("/") if not CALL.fullmatch(part)]
    return "/".join(parts) or name


def _scope(name: str) -> list[str]:
    """Return the path to an operation; what only passes arguments to functions has none."""
    return [] if name.startswith("Func/") else name.split("/")[:-1]


def _layer(scope: list[str]) -> list[str]:
    """Return the numbered part of a path, without the numbers; what is below is no layer."""
    numbered = takewhile(COUNT.search, scope)
    return [COUNT.sub("", one) for one in numbered]


def _owner(scope: list[str], parts: list[str]) -> tuple[str, ...]:
    """Return the path down to a layer, if the scope is inside one of that name; else nothing."""
    for start in range(len(scope) - len(parts) + 1):
        if scope[start : start + len(parts)] == parts:
            return tuple(scope[: start + len(parts)])
    return ()
