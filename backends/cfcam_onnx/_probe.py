"""A trial run that shows every shape, so that no rule has to follow an exporter's arithmetic.

The model runs on noise with two batch sizes and, where the image size is open, on three image
sizes: a size that stays is fixed, two that change alike are equal. What is computed from shapes
alone and stays is a constant. Where the model takes them, one size is small, one large, and both
are odd, to catch what stays only within bounds or where sizes divide evenly. What changes only
beyond these sizes goes unseen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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

Size = tuple[int, ...]
Plan = list[list[Size]]
"""A size to run on, then groups of others: of each, the first that the model takes is one more."""

OPEN_SIZES: dict[int, list[Plan]] = {
    1: [[[(1024,)], [(101,), (256,)], [(1531,), (1536,)]], [[(1024,)]]],
    2: [
        [[(224, 256)], [(21, 27), (37, 45), (96, 128)], [(331, 395), (320, 384)]],
        [[(224, 224)], [(37, 37), (96, 96)], [(331, 331), (320, 320)]],
        [[(224, 224)]],
    ],
    3: [
        [[(3, 224, 256)], [(3, 37, 45), (3, 96, 128)], [(3, 331, 395), (3, 320, 384)]],
        [[(3, 224, 224)], [(3, 37, 37), (3, 96, 96)], [(3, 331, 331), (3, 320, 320)]],
        [[(3, 224, 224)]],
    ],
}
"""Sizes tried for the open axes behind the batch, by their number: a signal, an image, an image
with its channels left open. First all differ, so that axes are told apart; then images are square;
last comes a single size, for models that declare it open and take only one. The first size is the
one that layers are judged by. Then come small and large ones: odd ones, for sizes that divide
evenly hide what a model pads, crops and rounds; then even ones, for models that need them."""

OPEN_VOLUMES: list[Plan] = [
    [[(16, 48, 64)], [(19, 53, 71), (24, 64, 80)]],
    [[(32, 32, 32)], [(37, 37, 37), (48, 48, 48)]],
    [[(32, 32, 32)]],
    [[(64, 64, 64)]],
]
"""The same for three open axes of an input that has five: depth, height and width."""


def is_incomplete(graph: Graph) -> bool:
    """Return whether shape inference has left anything open but the batch, or may be wrong.

    See `_may_differ` for the operators whose sizes it may get wrong.
    """
    if any(node.op_type in {"Shape", "Size"} or _may_differ(graph, node) for node in graph.nodes):
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
        try:
            runs = _runs(graph, session, plan, limits)
        except (StillRunningError, _TooLargeError) as error:
            return str(error)
        except InvalidInputError as error:
            failure = str(error)
            continue
        count, names = len(tensors), [*(info.name for info in graph.inputs), *tensors]
        seen = [
            [*run.shapes.values(), *(tuple(shape.tolist()) for shape in run.results[:count])]
            for run in runs
        ]
        values = zip(small, *(run.results[count:] for run in runs), strict=True)
        batches = tuple(run.batch for run in runs)
        graph.learn(
            {name: _common(found, batches) for name, *found in zip(names, *seen, strict=True)},
            {name: first for name, first, *rest in values if _constant(first, rest)},
            dict(zip(names, seen[0], strict=True)),
        )
        return None
    return failure


@dataclass(frozen=True, slots=True)
class _Run:
    """One run that went well."""

    batch: int
    shapes: dict[str, Size]
    """What was fed."""
    results: list[NDArray[Any]]


class _TooLargeError(InvalidInputError):
    """What would be fed is larger than the limits allow."""


def _runs(graph: Graph, session: Session, plan: Plan, limits: Limits) -> list[_Run]:
    """Run on the sizes of a plan, batch sizes taking turns.

    Raises
    ------
    InvalidInputError
        The model does not take the first size, or none of the others.
    """
    batches = BATCHES if _has_open_batch(graph) else (1,)
    (first,), *others = plan
    if not others and len(batches) > 1:
        others = [[first]]
    runs = [_run(graph, session, batches[0], first, limits)]
    failure = InvalidInputError("there was nothing else to run")
    for group in others:
        for sizes in group:
            batch = batches[len(runs) % len(batches)]
            try:
                runs.append(_run(graph, session, batch, sizes, limits))
            except StillRunningError:
                raise
            except InvalidInputError as error:
                failure = error
                continue
            break
    if others and len(runs) == 1:
        raise failure
    return runs


def _run(graph: Graph, session: Session, batch: int, sizes: Size, limits: Limits) -> _Run:
    shapes = _shapes(graph, batch, sizes)
    if any(_is_too_large(shape, limits) for shape in shapes.values()):
        raise _TooLargeError(f"inputs of shapes {shapes} are too large for one")
    return _Run(batch, shapes, session(_noise(graph, shapes)))


def _plans(graph: Graph) -> list[Plan]:
    """Return what to try, the most telling first."""
    most_open = max((graph.shape(v.name) or () for v in graph.inputs), key=_open_axes, default=())
    opened = _open_axes(most_open)
    if not opened:
        return [[[()]]]
    return OPEN_VOLUMES if (opened, len(most_open)) == (3, 5) else OPEN_SIZES.get(opened, [])


def _may_differ(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether onnxruntime may make other sizes of a node than onnx infers.

    A pool that rounds up drops windows that lie in the padding altogether. Automatic padding leaves
    out the dilations of a pool, and what a transposed convolution is told of its output. Sizes
    times scales are rounded differently, unless the scales are whole.
    """
    how = attributes(node)
    if how.get("ceil_mode"):
        return True
    if "SAME" in str(how.get("auto_pad")) and node.op_type != "Conv":
        told = {"output_padding", "output_shape"} & how.keys()
        return bool(told) or np.any(np.asarray(how.get("dilations", 1)) != 1).item()
    if node.op_type not in {"Resize", "Upsample"}:
        return False
    plain = how.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    cropped = how.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    scales = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    whole = scales is None or (scales.dtype.kind == "f" and (scales == np.round(scales)).all())
    return cropped or not (plain and whole)


def _has_open_batch(graph: Graph) -> bool:
    shapes = [graph.shape(v.name) or () for v in graph.inputs]
    return any(shape and not isinstance(shape[0], int) for shape in shapes)


def _open_axes(shape: tuple[Dim, ...]) -> int:
    return sum(not isinstance(size, int) for size in shape[1:])


def _shapes(graph: Graph, batch: int, sizes: Size) -> dict[str, Size]:
    """Return the shape of each input in one run."""
    found = {}
    for info in graph.inputs:
        spare = iter(sizes)
        found[info.name] = tuple(
            size if isinstance(size, int) else batch if axis == 0 else next(spare)
            for axis, size in enumerate(graph.shape(info.name) or ())
        )
    return found


def _is_too_large(shape: Size, limits: Limits) -> bool:
    return math.prod(shape[1:]) > limits.trial_sample or math.prod(shape) > limits.trial_elements


def _noise(graph: Graph, shapes: dict[str, Size]) -> dict[str, NDArray[Any]]:
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
