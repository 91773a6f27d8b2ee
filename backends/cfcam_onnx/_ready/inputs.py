"""The inputs of a ready model: the class index is none of them."""

from __future__ import annotations

from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import shown
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input
from cfcam_onnx._layers.axes import channel_axes
from cfcam_onnx._ready.format import Facts
from cfcam_onnx._ready.tensors import Tensors


def find_inputs(graph: Graph, tensors: Tensors, facts: Facts | None) -> list[Input]:
    """Return what a user feeds; where channels are is what the file says, else what is found.

    Raises
    ------
    InvalidInputError
        There is none, one has no shape, or the file says of one what cannot be.
    """
    channels, found = channel_axes(graph), []
    for info in graph.inputs:
        if info.name == tensors.class_index:
            continue
        shape = graph.sizes(info.name)
        if not shape:
            raise InvalidInputError(
                f"the model does not say what shape its input {info.name!r} has; export it with "
                "shapes"
            )
        axis = channels.get(info.name, 1) if len(shape) >= 3 else None
        if facts and info.name == facts.input:
            rest = set(range(1, len(shape))) - {*facts.input_axes}
            if len(rest) != 1 or max(facts.input_axes, default=0) >= len(shape):
                raise InvalidInputError(
                    f"the file says that axes {facts.input_axes} of its input {info.name!r} are "
                    f"spatial, but it has shape {shown(shape)}; export the original again"
                )
            (axis,) = rest
        found.append(Input(info.name, shape, graph.dtype(info.name), axis))
    if not found:
        raise InvalidInputError("the model has no input but the class; wanted one to explain")
    return found


def picture(inputs: list[Input], facts: Facts | None, axes: int) -> Input | None:
    """Return the input that maps with so many spatial axes lie over, if there is one."""
    if facts:
        return next((one for one in inputs if one.name == facts.input), None)
    return next((one for one in inputs if len(one.spatial) == axes), None)
