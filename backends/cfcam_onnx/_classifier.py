"""What is known of a classifier once it is open: its inputs, its logits, its layers.

Worked out once, so that threads may share it. Nothing is run here
but the trial run of `cfcam_onnx._probe`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import onnx

from cfcam_core.errors import InvalidInputError
from cfcam_core.inputs import Sizes
from cfcam_core.tokens import Fold, Seen, find_fold, fold_of
from cfcam_onnx._bounds import bounds_of, is_sized_by_values
from cfcam_onnx._cache import Entries
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input
from cfcam_onnx._layers import Layers, Site
from cfcam_onnx._layers.axes import channel_axes
from cfcam_onnx._learned import learned_once
from cfcam_onnx._limits import Limits
from cfcam_onnx._logits import LOGITS, find_logits, without_zip_maps
from cfcam_onnx._model import prepare
from cfcam_onnx._probe import is_incomplete, probe
from cfcam_onnx._reading import blaming, read_model


class Classifier:
    """A model that was read and understood; see `OnnxBackend` for parameters and errors."""

    def __init__(
        self,
        model: Any,
        *,
        output: str | None,
        look_through: bool,
        threads: int | None,
        entries: Entries,
        limits: Limits,
    ) -> None:
        read = read_model(model, limits)
        self.path = read.path
        self.source = onnx.ModelProto()
        self.source.CopyFrom(read.model)
        with blaming(self.source):
            self.graph = graph = Graph(prepare(without_zip_maps(read.model)), read.weights)
            _check_inputs(graph)
            self.bounds, by_values = bounds_of(graph, limits), is_sized_by_values(graph)
            failure, self.entries = None, Entries()  # only a trial run is worth a look at the disk
            if is_incomplete(graph):
                ends = [info.name for info in graph.model.graph.output]
                failure, self.entries = learned_once(
                    graph,
                    ends,
                    entries.of(graph.model, graph.weights),
                    limits,
                    lambda: probe(graph, ends, threads=threads, limits=limits),
                )
            if failure is None and not by_values:
                self.bounds = replace(self.bounds, memory=None)
            self.logits, self.logits_behind = find_logits(
                graph, output, failure, look_through=look_through
            )
            channels = channel_axes(graph)
            self.inputs = [_input(graph, info.name, channels) for info in graph.inputs]
            self.layers = Layers(graph, self.logits, self.inputs, channels, self.source)

    @property
    def explained(self) -> str:
        """The model's own tensor behind `logits`, which may be it brought to two axes."""
        flat = self.logits == self.graph.own(LOGITS)
        return str(self.graph.producer[self.logits].input[0]) if flat else self.logits

    @property
    def classes(self) -> int | None:
        """Number of classes, None where the file leaves it open."""
        return (self.graph.sample_shape(self.logits) or (None, None))[1]

    @property
    def batch(self) -> int | None:
        """Number of samples that the model takes at a time, None for any."""
        fixed = (self.inputs[0].shape[0], self.shape(self.logits)[0])
        return next((size for size in fixed if size is not None), None)

    def shape(self, name: str) -> Sizes:
        """Return the shape of a tensor, None standing for open sizes."""
        return self.graph.sizes(name) or (None,)

    def maps_of(self, layer: Site) -> Input:
        """Return what a layer's activations look like with their channels first, tokens folded."""
        shape = self.shape(layer.name)
        sizes = tuple(n for axis, n in enumerate(shape) if axis not in {0, layer.channels})
        if layer.prefix is not None:
            sizes = (None, None) if None in sizes else layer.grid
        wanted = (shape[0], shape[layer.channels], *sizes)
        return Input(layer.name, wanted, self.graph.dtype(layer.name), 1)

    def fold(self, layer: Site, tokens: int, size: tuple[int, ...] | None) -> Fold | None:
        """Return how a layer's tokens lie on an input of this size; None if it has none.

        Raises
        ------
        InvalidInputError
            They do not lie on a grid.
        """
        if layer.prefix is None or size is None:
            return None
        grid, trial = seen = self._seen(layer)
        if trial == size or self.shape(layer.name)[3 - layer.channels] is not None:
            return Fold(layer.prefix, grid)
        return fold_of(layer.name, tokens, size, layer.prefix, seen)

    def is_tiled(self, layer: Site) -> bool:
        """Return whether the number of tokens and the input's size alone tell a layer's grid."""
        grid, trial = self._seen(layer)
        if layer.prefix is None or len(trial) != len(grid):
            return False
        tokens = layer.prefix + math.prod(grid)
        found = find_fold(tokens, (trial[0], trial[1]), layer.prefix)
        return found is not None and found.grid == grid

    def _seen(self, layer: Site) -> Seen:
        """Return a layer's grid in the trial run, and the size of its picture there."""
        source = self.layers.input_of(layer)
        shape = (self.graph.sample_shape(source.name) if source else None) or ()
        trial = tuple(shape[axis] or 0 for axis in source.spatial) if source else ()
        return tuple(n for n in layer.grid if n is not None), trial


def _input(graph: Graph, name: str, channels: dict[str, int]) -> Input:
    shape = graph.sizes(name) or ()
    axis = channels.get(name, 1) if len(shape) >= 3 else None
    return Input(name, shape, graph.dtype(name), axis)


def _check_inputs(graph: Graph) -> None:
    """Refuse a model whose inputs say too little to feed it."""
    if not graph.inputs:
        raise InvalidInputError("the model has no inputs; wanted a classifier of arrays")
    for info in graph.inputs:
        if graph.shape(info.name) is None:
            raise InvalidInputError(
                f"the model does not say what shape its input {info.name!r} has; "
                "export it with shapes"
            )
        if 0 in (graph.shape(info.name) or ()):
            raise InvalidInputError(
                f"the model's input {info.name!r} has the shape {graph.shape(info.name)}, which "
                "holds nothing; export it with other sizes"
            )
    first = graph.inputs[0].name
    if not graph.shape(first):
        raise InvalidInputError(
            f"the model's input {first!r} has no axes; wanted one for the samples, and then those "
            "of an image or a signal"
        )
