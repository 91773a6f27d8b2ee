"""What is known of a graph: who makes and who reads a tensor, its dtype, shape and constant value.

Facts only. Nothing is emitted here and nothing walks backwards; a fact that is not known is None.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Dim = int | str | None
"""A fixed size; a name, which stands for one varying size wherever it occurs; or unknown."""

Shape = tuple[Dim, ...]

Learned = tuple[
    Mapping[str, Shape | None], Mapping[str, NDArray[Any]], Mapping[str, tuple[int, ...]]
]
"""What a run of the model has shown: shapes, constant values, and shapes of one example."""

STANDARD = ("", "ai.onnx")
"""Names of the standard operator domain."""

PREFIX = "cfcam/"
"""Start of every name that is added to a user's graph; see `Graph.own`."""


class Graph:
    """Facts about one model. `learn` adds what a run of the model has shown.

    Large weights are inputs of the model that is passed, and arrays in `weights`.
    """

    def __init__(
        self, model: onnx.ModelProto, weights: Mapping[str, NDArray[Any]] = MappingProxyType({})
    ) -> None:
        self.model = model
        self.weights = weights
        self.opset = opset_of(model)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.initializers.update((name, stub(name, array)) for name, array in weights.items())
        self.inputs = [v for v in model.graph.input if v.name not in self.initializers]
        self.nodes: list[onnx.NodeProto] = []
        self.producer: dict[str, onnx.NodeProto] = {}
        self.samples: dict[str, tuple[int, ...]] = {}
        self.learned: Learned | None = None
        self._shapes: dict[str, Shape | None] = {}
        self._types: dict[str, int] = {}
        self._values: dict[str, NDArray[Any]] = {}
        self._guard = _guard(model.graph)
        for name, tensor in self.initializers.items():
            self._shapes[name], self._types[name] = tuple(tensor.dims), tensor.data_type
        for info in (*model.graph.value_info, *model.graph.input, *model.graph.output):
            self._note(info)
        for node in model.graph.node:
            self.append(node)

    def append(self, node: onnx.NodeProto) -> None:
        """Add a node after all others."""
        self.nodes.append(node)
        self.producer.update((name, node) for name in node.output if name)

    def own(self, name: str) -> str:
        """Return the name, which starts with `PREFIX`, as nothing in the model is called."""
        return self._guard + name

    def learn(
        self,
        shapes: Mapping[str, Shape | None],
        values: Mapping[str, NDArray[Any]],
        samples: Mapping[str, tuple[int, ...]],
    ) -> None:
        """Take over shapes, constant values and example shapes that a run has shown."""
        self.learned = shapes, values, samples
        self._shapes.update(shapes)
        self._values.update(values)
        self.samples.update(samples)

    def alias(self, name: str, source: str, shape: Shape) -> None:
        """Note that `name` has the dtype of `source`, and this shape."""
        self._shapes[name], self._types[name] = shape, self.elem_type(source)

    def shape(self, name: str) -> Shape | None:
        """Return the shape, or None if not even the rank is known."""
        return self._shapes.get(name)

    def sizes(self, name: str) -> tuple[int | None, ...] | None:
        """Return the shape, None standing for each size that is not fixed."""
        shape = self.shape(name)
        return None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)

    def sample_shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return the shape seen in the trial run, else the fixed part of what is known."""
        return self.samples.get(name) or self.sizes(name)

    def elem_type(self, name: str) -> int:
        """Return the ONNX element type; float32 where nothing is known."""
        return self._types.get(name) or int(onnx.TensorProto.FLOAT)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the NumPy dtype."""
        dtype: np.dtype[Any] = np.dtype(helper.tensor_dtype_to_np_dtype(self.elem_type(name)))
        return dtype

    def is_float(self, name: str) -> bool:
        """Return whether the tensor is made of floats."""
        return self.elem_type(name) in FLOATS

    def value(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant, or None if the tensor is none."""
        if name not in self._values:
            found = self._constant(name)
            if found is None:
                return None
            self._values[name] = found
        return self._values[name]

    def needed(self, outputs: Iterable[str], leaves: Iterable[str] = ()) -> list[onnx.NodeProto]:
        """Return the nodes that `outputs` are computed from, in order; `leaves` are given."""
        wanted, found = set(outputs) - set(leaves), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                found.append(node)
                wanted.update(set(reads(node)) - set(leaves))
        return found[::-1]

    def reached(self, sources: Iterable[str], through: Iterable[onnx.NodeProto]) -> set[str]:
        """Return the tensors that `sources` influence through the given nodes, and themselves."""
        seen = set(sources)
        for node in through:
            if seen.intersection(reads(node)):
                seen.update(name for name in node.output if name)
        return seen

    def _constant(self, name: str) -> NDArray[Any] | None:
        if name in self.weights:
            return self.weights[name]
        node = self.producer.get(name)
        tensor = self.initializers.get(name)
        if tensor is None:
            if node is None or node.op_type != "Constant" or node.domain not in STANDARD:
                return None
            ((key, tensor),) = attributes(node).items()
            if key != "value":
                return self._plain(key, tensor)
        array: NDArray[Any] = numpy_helper.to_array(tensor)
        return array

    @staticmethod
    def _plain(key: str, value: Any) -> NDArray[Any] | None:
        """Return the value of a Constant given as numbers, which are integers or float32."""
        kind = {"value_float": np.float32, "value_floats": np.float32}.get(key, np.int64)
        return None if "string" in key or "sparse" in key else np.asarray(value, kind)

    def _note(self, info: onnx.ValueInfoProto) -> None:
        tensor = info.type.tensor_type
        self._types[info.name] = tensor.elem_type
        if tensor.HasField("shape"):
            self._shapes[info.name] = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or None
                for d in tensor.shape.dim
            )


FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.BFLOAT16,
    }
)


def stub(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    """Return a tensor that says what a weight is like, without its data."""
    tensor = onnx.TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
    )
    location = hashlib.sha256(name.encode()).hexdigest()  # a file that only a session knows
    for key, value in (("location", location), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that the model imports."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD), default=0)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values; text is decoded."""
    found = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        text = isinstance(value, bytes)
        found[attribute.name] = value.decode(errors="replace") if text else value
    return found


def everywhere(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from everywhere(body.node)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors a node reads, those read inside its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            inner = {o for n in body.node for o in n.output} | {v.name for v in body.input}
            inner.update(t.name for t in body.initializer)
            inner.update(t.values.name for t in body.sparse_initializer)
            wanted = [name for n in body.node for name in reads(n)]
            wanted += [v.name for v in body.output]
            yield from (name for name in wanted if name not in inner)


def operator(node: onnx.NodeProto) -> str:
    """Return the operator's name for people: with its domain unless that is the standard one."""
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _guard(graph: onnx.GraphProto) -> str:
    """Return what to put before `PREFIX` so that no name in the graph starts like that."""
    names = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    for node in everywhere(graph.node):
        names.update((node.name, *node.input, *node.output))
    guard = ""
    while any(name.startswith(guard + PREFIX) for name in names):
        guard += "_"
    return guard
