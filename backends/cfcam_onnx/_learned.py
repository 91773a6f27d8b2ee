"""What a trial run has shown of a model, as bytes, so that the next process need not run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import helper, numpy_helper

from cfcam_onnx._cache import Entries
from cfcam_onnx._graph import Graph, Learned, Shape
from cfcam_onnx._limits import Limits


def learned_once(
    graph: Graph,
    ends: Sequence[str],
    entries: Entries,
    limits: Limits,
    run: Callable[[], str | None],
) -> tuple[str | None, Entries]:
    """Let the graph learn from an earlier trial run, or else from a new one, which is kept.

    Parameters
    ----------
    graph : Graph
    ends : sequence of str
        Tensors up to which the model is tried.
    entries : Entries
        Those of this graph.
    limits : Limits
        Those of a trial run: what it is too small for, it does not show.
    run : callable
        Makes a trial run; see `cfcam_onnx._probe.probe`.

    Returns
    -------
    failure : str or None
        Why nothing was learned, if so.
    entries : Entries
        Those of the graph with what it has learned; none after a failure, which another day or
        another machine may not see.
    """
    within = (limits.memory, limits.trial_elements, limits.trial_sample)
    what = ("trial", *map(str, within), *ends)
    known = entries.read(*what)
    if known is not None:
        try:
            graph.learn(*from_bytes(known))
        except (DecodeError, ValueError, TypeError):
            known = None
    if known is None:
        failure = run()
        if failure is not None or graph.learned is None:
            return failure, Entries()
        if entries.content:
            known = to_bytes(graph.learned)
            entries.write(known, *what)
    return None, entries.knowing(known or b"")


def to_bytes(learned: Learned) -> bytes:
    """Return the facts as an ONNX graph: shapes as value_info, values as initializers."""
    shapes, values, samples = learned
    graph = onnx.GraphProto(
        value_info=[_described(name, shape) for name, shape in shapes.items()],
        initializer=[numpy_helper.from_array(value, name) for name, value in values.items()],
        input=[_described(name, shape) for name, shape in samples.items()],
    )
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def from_bytes(content: bytes) -> Learned:
    """Return the facts that `to_bytes` was given."""
    graph = onnx.GraphProto.FromString(content)
    shapes = {info.name: _shape(info) for info in graph.value_info}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    samples = {
        info.name: tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
        for info in graph.input
    }
    return shapes, values, samples


def _described(name: str, shape: Shape | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, shape)


def _shape(info: onnx.ValueInfoProto) -> Shape | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or None
        for size in tensor.shape.dim
    )
