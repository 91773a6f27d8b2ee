"""Adding nodes to a graph, so that gradient rules read like formulas.

Names, constants, shapes, and everything that changed between operator sets 13 and the newest are
hidden here. Derivatives are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from cfcam_onnx._graph import PREFIX, Graph, attributes
from cfcam_onnx._tensor import Node, Operand, Tensor

SHARED_UP_TO = 64
"""Constants of at most this many elements are stored once, however often they are asked for."""


class Emitter:
    """Collects the nodes and constants that are added to a graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.opset = graph.opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._own: dict[str, Tensor] = {}
        self._shapes: dict[str, Tensor] = {}
        self._count = 0

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the model, half precision widened to float32.

        Gradients below 6e-8 vanish in float16, and onnxruntime cannot add up there on a CPU.
        """
        if name not in self._own:
            dtype = self.graph.dtype(name)
            tensor = Tensor(self, name, dtype, name)
            if self.graph.is_float(name) and dtype.itemsize == 2:
                wide = self.cast(tensor, np.float32)
                tensor = Tensor(self, wide.name, wide.dtype, name)
            self._own[name] = tensor
        return self._own[name]

    def node(self, proto: onnx.NodeProto) -> Node:
        """Return a node of the model, its tensors ready for arithmetic."""
        inputs, outputs = (
            [self.tensor(name) if name else None for name in names]
            for names in (proto.input, proto.output)
        )
        return Node(proto, inputs, outputs, attributes(proto))

    def op(self, op_type: str, *inputs: Tensor | None, dtype: Any = None, **attrs: Any) -> Tensor:
        """Emit a node with one output, of the first input's dtype unless told otherwise."""
        return self.ops(1, op_type, *inputs, dtype=dtype, **attrs)[0]

    def ops(
        self, count: int, op_type: str, *inputs: Tensor | None, dtype: Any = None, **attrs: Any
    ) -> list[Tensor]:
        """Emit a node with several outputs; attributes that are None are left out."""
        names = [self._fresh(op_type) for _ in range(count)]
        given = {key: value for key, value in attrs.items() if value is not None}
        sources = [tensor.name if tensor is not None else "" for tensor in inputs]
        while not sources[-1]:
            sources.pop()
        self.nodes.append(helper.make_node(op_type, sources, names, name=names[0], **given))
        if dtype is None:
            dtype = next(tensor.dtype for tensor in inputs if tensor is not None)
        return [Tensor(self, name, np.dtype(dtype)) for name in names]

    def again(self, node: Node, first: Tensor) -> Tensor:
        """Emit a node of the model once more, reading `first` in place of its first input.

        Its other float inputs are left out: to select elements needs none.
        """
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        name = self._fresh(node.op_type)
        proto.name, proto.input[0] = name, first.name
        for i, other in enumerate(node.inputs[1:], start=1):
            if other is not None and other.dtype.kind == "f":
                proto.input[i] = ""
        del proto.output[:]
        proto.output.append(name)
        self.nodes.append(proto)
        return Tensor(self, name, first.dtype)

    def const(self, values: ArrayLike) -> Tensor:
        """Return a constant."""
        array = np.asarray(values)
        key = (
            (array.dtype.str, array.shape, array.tobytes()) if array.size <= SHARED_UP_TO else None
        )
        if key in self._shared:
            return self._shared[key]
        tensor = Tensor(self, self._fresh("Constant"), array.dtype)
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), tensor.name))
        if key is not None:
            self._shared[key] = tensor
        return tensor

    def ints(self, *values: int) -> Tensor:
        """Return a vector of int64."""
        return self.const(np.array(values, np.int64))

    def scalar(self, value: float, dtype: Any) -> Tensor:
        """Return a constant without axes."""
        return self.const(np.array(value, dtype))

    def cast(self, x: Tensor, dtype: Any) -> Tensor:
        """Return `x` in another dtype."""
        wanted = np.dtype(dtype)
        if x.dtype == wanted:
            return x
        return self.op("Cast", x, dtype=wanted, to=helper.np_dtype_to_tensor_dtype(wanted))

    def where(self, condition: Tensor, a: Operand, b: Operand) -> Tensor:
        """Return `a` where the condition holds, else `b`; one of them at least is a tensor."""
        dtype = next(t.dtype for t in (a, b) if isinstance(t, Tensor))
        a, b = (t if isinstance(t, Tensor) else self.scalar(t, dtype) for t in (a, b))
        return self.op("Where", condition, a, b, dtype=dtype)

    def shape_of(self, x: Tensor) -> Tensor:
        """Return the shape of a tensor of the model: a constant if it is fixed."""
        if x.name not in self._shapes:
            sizes = x.fixed() if x.shape else None
            shape = self.op("Shape", x, dtype=np.int64) if sizes is None else self.ints(*sizes)
            self._shapes[x.name] = shape
        return self._shapes[x.name]

    def count(self, x: Tensor, axes: Sequence[int]) -> Operand:
        """Return the number of elements along `axes`: a number if they are fixed."""
        if not axes:
            return 1.0
        sizes = x.fixed(*axes)
        if sizes is not None:
            return float(np.prod(sizes))
        picked = self.op("Gather", self.shape_of(x), self.ints(*axes), axis=0)
        return self.cast(self.op("ReduceProd", picked, keepdims=0), x.dtype)

    def channels(self, x: Tensor) -> int:
        """Return the number of channels, the size of the second axis.

        Raises
        ------
        NotImplementedError
            It is not fixed.
        """
        sizes = x.fixed(1)
        if sizes is None:
            raise NotImplementedError("a number of channels that is not fixed")
        return sizes[0]

    def reduce(
        self, op_type: str, x: Tensor, axes: Sequence[int] | None, *, keepdims: bool = True
    ) -> Tensor:
        """Emit a reduction; `axes` None means all of them, and none given means `x` itself."""
        if axes is not None and not axes:
            return x
        if axes is None:
            return self.op(op_type, x, keepdims=int(keepdims))
        if op_type == "ReduceSum" or self.opset >= 18:
            return self.op(op_type, x, self.ints(*axes), keepdims=int(keepdims))
        return self.op(op_type, x, axes=list(axes), keepdims=int(keepdims))

    def unsqueeze(self, x: Tensor, *axes: int) -> Tensor:
        """Return `x` with axes of size one put in."""
        return self.op("Unsqueeze", x, self.ints(*axes))

    def reshape(self, x: Tensor, shape: Tensor | Sequence[int]) -> Tensor:
        """Return `x` in another shape; 0 copies a size, -1 is what is left."""
        return self.op("Reshape", x, shape if isinstance(shape, Tensor) else self.ints(*shape))

    def reshape_like(self, g: Tensor, x: Tensor) -> Tensor:
        """Return `g` in the shape of `x`."""
        return self.reshape(g, self.shape_of(x))

    def expand_like(self, g: Tensor, x: Tensor) -> Tensor:
        """Return `g` repeated to the shape of `x`."""
        return self.op("Expand", g, self.shape_of(x))

    def zeros_like(self, x: Tensor, dtype: Any = None) -> Tensor:
        """Return zeros in the shape of `x`, of its dtype unless told otherwise."""
        return self.expand_like(self.scalar(0, dtype or x.dtype), x)

    def transpose(self, x: Tensor, *perm: int) -> Tensor:
        """Return `x` with its axes in another order."""
        return self.op("Transpose", x, perm=list(perm))

    def slice(self, x: Tensor, starts: Tensor, ends: Tensor, axes: Sequence[int]) -> Tensor:
        """Return part of `x`."""
        return self.op("Slice", x, starts, ends, self.ints(*axes))

    def scatter(self, index: Tensor, g: Tensor, x: Tensor, *, overlapping: bool = True) -> Tensor:
        """Return zeros like `x` with `g` added at the flat positions `index`.

        Raises
        ------
        NotImplementedError
            Positions may occur twice, and the model's operator set cannot add there.
        """
        if overlapping and self.opset < 16:
            raise NotImplementedError(
                f"adding up needs operator set 16, the model has {self.opset}"
            )
        flat = self.ints(-1)
        zeros = self.reshape(self.zeros_like(x, g.dtype), flat)
        at, values = self.reshape(index, flat), self.reshape(g, flat)
        how = "add" if overlapping else None
        return self.reshape_like(
            self.op("ScatterElements", zeros, at, values, axis=0, reduction=how), x
        )

    def replay(self, node: Node, g: Tensor) -> Tensor:
        """Return the cotangent of the first input of any operator that only selects elements.

        The operator runs once more on the elements' own flat positions; `g` is added where it
        took them from.
        """
        one, zero = self.const(np.int64(1)), self.const(np.int64(0))
        size = self.op("Size", node.x, dtype=np.int64)
        positions = self.reshape_like(self.op("Range", zero, size, one), node.x)
        return self.scatter(self.again(node, positions), g, node.x)

    def _fresh(self, hint: str) -> str:
        self._count += 1
        return self.graph.own(f"{PREFIX}{hint}_{self._count}")
