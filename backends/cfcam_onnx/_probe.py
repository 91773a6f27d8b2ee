"""A trial run that shows every shape, so that no rule has to follow an exporter's arithmetic.

The model runs on noise with two batch sizes and, where the image size is open, on three image
sizes: a size that stays is fixed, two that change alike are equal. What is computed from shapes
alone and stays is a constant; one size is small and one large, to catch what stays only within
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cfcam_core.errors import InvalidInputError
from cfcam_onnx._emit import SHARED_UP_TO
from cfcam_onnx._graph import PREFIX, Dim, Graph, Shape, attributes
from cfcam_onnx._limits import Bounds, Limits
from cfcam_onnx._session import Session, StillRunningError

BATCHES = (2, 3)
"""Batch sizes that take turns, where the batch is open."""

OPEN_SIZES: dict[int, list[list[tuple[int, ...]]]] = {
    1: [[(1024,), (256,), (1536,)], [(1024,), (1536,)], [(1024,)]],
    2: [
        [(224, 256), (96, 128), (320, 384)],
        [(224, 256), (320, 384)],
        [(224, 224), (96, 96), (320, 320)],
        [(224, 224), (320, 320)],
        [(224, 224)],
    ],
    3: [
        [(3, 224, 256), (3, 96, 128), (3, 320, 384)],
        [(3, 224, 256), (3, 320, 384)],
        [(3, 224, 224), (3, 320, 320)],
        [(3, 224, 224)],
    ],
}
"""Sizes tried for the open axes behind the batch, by their number: a signal, an image, an image
with its channels left open. First all differ, so that axes are told apart; then images are square;
last comes a single size, for models that declare it open and take only one. The first size is the
one that layers are judged by."""

OPEN_VOLUMES: list[list[tuple[int, ...]]] = [
    [(16, 48, 64), (24, 64, 80)],
    [(32, 32, 32), (48, 48, 48)],
    [(32, 32, 32)],
    [(64, 64, 64)],
]
"""The same for three open axes of an input that has five: depth, height and width."""


def is_incomplete(graph: Graph) -> bool:
    """Return whether shape inference has left anything open but the batch, or may be wrong.

    It is where a pool rounds up: onnxruntime drops windows that lie in the padding altogether.
    """
    if any(
        node.op_type in {"Shape", "Size"} or attributes(node).get("ceil_mode")
        for node in graph.nodes
    ):
        return True
    shapes = [graph.shape(name) for node in graph.nodes for name in node.output if name]
    return any(
        shape is None or not all(isinstance(size, int) for size in shape[1:]) for shape in shapes
    )


def probe(
    graph: Graph, outputs: list[str], *, threads: int | None = None, limits: Limits | None = None
) -> str | None:
    """Run the model and let the graph learn from it.

    Returns
    -------
    str or None
        Why nothing was learned, if so: the model does not run, takes too long or too much memory.
    """
    limits = limits or Limits()
    nodes = graph.needed(outputs)
    flowing = [node for node in nodes if node.op_type not in {"Shape", "Size"}]
    varying = graph.reached([v.name for v in graph.inputs], flowing)
    tensors = [name for node in nodes for name in node.output if name]
    small = [name for name in tensors if name not in varying and _maybe_small(graph, name)]
    try:
        session = Session(
            _instrumented(graph, nodes, tensors, small),
            graph.weights,
            providers=["CPUExecutionProvider"],
            threads=threads,
            optimize=False,
            bounds=Bounds(limits.memory, limits.trial_seconds),
        )
    except InvalidInputError as error:
        return str(error)
    failure = "no sizes to try are known for its open axes"
    for plan in _plans(graph):
        shapes = [_shapes(graph, batch, sizes) for batch, sizes in plan]
        if any(_is_too_large(shape, limits) for shape in shapes[-1].values()):
            return f"inputs of shapes {shapes[-1]} are too large for one"
        feeds = [_noise(graph, shape) for shape in shapes]
        try:
            runs = [session(feed) for feed in feeds]
        except StillRunningError as error:
            return str(error)
        except InvalidInputError as error:
            failure = str(error)
            continue
        count, names = len(tensors), [*feeds[0], *tensors]
        seen = [
            [*(array.shape for array in feed.values()), *(tuple(s.tolist()) for s in run[:count])]
            for feed, run in zip(feeds, runs, strict=True)
        ]
        values = zip(small, *(run[count:] for run in runs), strict=True)
        batches = tuple(batch for batch, _ in plan)
        graph.learn(
            {name: _common(found, batches) for name, *found in zip(names, *seen, strict=True)},
            {name: first for name, first, *rest in values if _constant(first, rest)},
            dict(zip(names, seen[0], strict=True)),
        )
        return None
    return failure


def _plans(graph: Graph) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """Yield runs to try, each a batch size and the sizes of the open axes."""
    shapes = [graph.shape(v.name) or () for v in graph.inputs]
    most_open = max(shapes, key=_open_axes, default=())
    opened = _open_axes(most_open)
    tried = OPEN_VOLUMES if (opened, len(most_open)) == (3, 5) else OPEN_SIZES.get(opened, [])
    batches = BATCHES if any(s and not isinstance(s[0], int) for s in shapes) else (1,)
    for sizes in tried if opened else [[()]]:
        runs = max(len(batches), len(sizes))
        yield [(batches[i % len(batches)], sizes[i % len(sizes)]) for i in range(runs)]


def _open_axes(shape: tuple[Dim, ...]) -> int:
    return sum(not isinstance(size, int) for size in shape[1:])


def _shapes(graph: Graph, batch: int, sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input in one run."""
    found = {}
    for info in graph.inputs:
        spare = iter(sizes)
        found[info.name] = tuple(
            size if isinstance(size, int) else batch if axis == 0 else next(spare)
            for axis, size in enumerate(graph.shape(info.name) or ())
        )
    return found


def _is_too_large(shape: tuple[int, ...], limits: Limits) -> bool:
    return math.prod(shape[1:]) > limits.trial_sample or math.prod(shape) > limits.trial_elements


def _noise(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    rng, feeds = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        dtype = graph.dtype(name)
        floats = graph.is_float(name)
        noise = rng.standard_normal(shape, np.float32) if floats else np.zeros(shape, dtype)
        feeds[name] = noise.astype(dtype)
    return feeds


def _instrumented(
    graph: Graph, nodes: list[onnx.NodeProto], tensors: list[str], small: list[str]
) -> onnx.ModelProto:
    """Return the model with the shapes of `tensors` and the values of `small` as its outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for field in ("output", "node", "input", "initializer"):
        model.graph.ClearField(field)
    model.graph.input.extend(graph.inputs)
    model.graph.initializer.extend(graph.initializers.values())
    shapes = {name: graph.own(f"{PREFIX}shape_{i}") for i, name in enumerate(tensors)}
    for node in nodes:  # each shape is taken at once, so that no tensor waits for it
        model.graph.node.append(node)
        model.graph.node.extend(
            helper.make_node("Shape", [name], [shapes[name]]) for name in node.output if name
        )
    model.graph.output.extend(
        helper.make_tensor_value_info(shapes[name], onnx.TensorProto.INT64, None)
        for name in tensors
    )
    for name in small:
        model.graph.output.append(helper.make_tensor_value_info(name, graph.elem_type(name), None))
    return model


def _maybe_small(graph: Graph, name: str) -> bool:
    shape = graph.shape(name)
    return graph.producer[name].op_type != "Constant" and (shape is None or len(shape) <= 1)


def _common(shapes: list[tuple[int, ...]], batches: tuple[int, ...]) -> Shape | None:
    """Return what all runs agree on, or None if not even the rank."""
    if len({len(shape) for shape in shapes}) > 1:
        return None
    return tuple(
        _same(sizes, batches if axis == 0 else ())
        for axis, sizes in enumerate(zip(*shapes, strict=True))
    )


def _same(sizes: tuple[int, ...], batches: tuple[int, ...]) -> Dim:
    """Return the size if all runs agree, else a name that says how it changed."""
    if len(set(sizes)) == 1:
        return sizes[0]
    return "N" if sizes == batches else "|".join(map(str, sizes))


def _constant(first: NDArray[Any], rest: list[NDArray[Any]]) -> bool:
    return first.size <= SHARED_UP_TO and all(np.array_equal(first, other) for other in rest)
