"""What is known of a classifier once it is open: its inputs, its logits, its layers.

Worked out once, so that threads may share it. Nothing is run here
but the trial run of `cfcam_onnx._probe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx

from cfcam_core.backend import Layer
from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_onnx._gradient import active_tensors, differentiable_tensors, ends_of_floats
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input, Sizes, shown
from cfcam_onnx._layers import Site, channel_axes, cut_points, default_site, site
from cfcam_onnx._logits import find_logits
from cfcam_onnx._model import prepare
from cfcam_onnx._probe import is_incomplete, probe
from cfcam_onnx._programs import problems_from
from cfcam_onnx._reading import blaming, read_model


class Classifier:
    """A model that was read and understood; see `OnnxBackend` for parameters and errors."""

    def __init__(self, model: Any, *, output: str | None, threads: int | None) -> None:
        read = read_model(model)
        self.source = onnx.ModelProto()
        self.source.CopyFrom(read.model)
        with blaming(self.source):
            self.graph = graph = Graph(prepare(read.model), read.weights)
            _check_inputs(graph)
            failure = None
            if is_incomplete(graph):
                ends = [info.name for info in graph.model.graph.output]
                failure = probe(graph, ends, threads=threads)
            self.logits, self.logits_behind = find_logits(graph, output, failure)
            self._channels = channel_axes(graph)
            self.inputs = self._find_inputs()
            cuts = cut_points(graph, self.logits)
            found = [site(graph, name, self._channels) for name in cuts]
            self._places = [
                s for s in found if s is not None and s.least >= 2 and self._has_samples(s)
            ]
            usable = differentiable_tensors(graph, self.logits)
            self.sites = [s for s in self._places if s.name in usable]
            self.default = default_site(graph, self.logits, self.sites)
            self._by_name: dict[str, Site] = {}  # names that have been asked for
            self._sources: dict[str, Input | None] = {}  # and where those layers come from

    @property
    def classes(self) -> int | None:
        """Number of classes, None where the file leaves it open."""
        size = (self.graph.sample_shape(self.logits) or (None, None))[1]
        return size if isinstance(size, int) else None

    @property
    def batch(self) -> int | None:
        """Number of samples that the model takes at a time, None for any."""
        fixed = (self.inputs[0].shape[0], self.shape(self.logits)[0])
        return next((size for size in fixed if size is not None), None)

    def shape(self, name: str) -> Sizes:
        """Return the shape of a tensor, None standing for open sizes."""
        return _numbers(self.graph.shape(name) or (None,))

    def layers(self) -> list[Layer]:
        """Return the sites as users see them."""
        return [Layer(s.name, self.shape(s.name), s.kind, s is self.default) for s in self.sites]

    def resolve(self, layer: Any) -> Site:
        """Return the place a user means.

        Raises
        ------
        LayerNotFoundError
            With what there is instead.
        UnsupportedOpError
            No layer was named, and behind every place there are operators without a gradient.
        """
        if layer is None:
            if self.default is None:
                self._refuse_blocked()
                raise LayerNotFoundError(
                    "the model has no layer with spatial axes that all paths run through; "
                    "name a tensor with layer="
                )
            return self.default
        if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
            if not -len(self.sites) <= layer < len(self.sites):
                raise LayerNotFoundError(
                    f"layer {layer} is out of range: the model has {len(self.sites)} layers"
                )
            return self.sites[layer]
        name = layer.name if isinstance(layer, Layer) else layer
        if not isinstance(name, str):
            raise LayerNotFoundError(
                f"layer {layer!r} is a {type(layer).__name__}; pass a name, an index or None"
            )
        if name not in self._by_name:
            self._by_name[name] = self._named(name)
        return self._by_name[name]

    def input_of(self, layer: Site) -> Input | None:
        """Return the first input that the layer is a map of, with as many spatial axes."""
        if layer.name not in self._sources:
            nodes = [n for n in self.graph.nodes if n.op_type not in {"Shape", "Size"}]
            alike = [one for one in self.inputs if len(one.spatial) == len(layer.grid)]
            above = (i for i in alike if layer.name in self.graph.reached([i.name], nodes))
            self._sources[layer.name] = next(above, None)
        return self._sources[layer.name]

    def later_site(self, stops: set[str]) -> Site | None:
        """Return the first site among or behind the tensors `stops`, with axes like the input's."""
        after: set[str] = set()
        for node in reversed(self.graph.nodes):
            after.update(node.output)
            if stops.intersection(node.output):
                break
        axes = len(self.inputs[0].spatial)
        return next((s for s in self.sites if s.name in after and len(s.grid) == axes), None)

    def _has_samples(self, place: Site) -> bool:
        """Whether the first axis may be that of the samples; behind an LSTM it is not."""
        sizes = {(self.graph.sample_shape(n) or (None,))[0] for n in (place.name, self.logits)}
        return len(sizes - {None}) < 2

    def _refuse_blocked(self) -> None:
        """Say why no gradient reaches any of the places, if operators are to blame."""
        problems = self._places and problems_from(self.graph, self.logits, [self._places[-1].name])
        if problems:
            raise UnsupportedOpError(
                f"no layer can be explained: {problems}. Export the model with standard operators"
            )

    def _named(self, name: str) -> Site:
        graph = self.graph
        tensors = {o for n in graph.nodes for o in n.output if o} | {i.name for i in self.inputs}
        by_node = {node.name: node.output[0] for node in graph.nodes if node.name}
        tensor = name if name in tensors else by_node.get(name)
        if tensor is None:
            close = get_close_matches(name, sorted(tensors | set(by_node)), n=5, cutoff=0.4)
            there = ", ".join(close or [s.name for s in self.sites])
            raise LayerNotFoundError(
                f"the model has no layer {name!r}; the closest names are {there or '(none)'}"
            )
        found = site(graph, tensor, self._channels)
        if found is None:
            raise LayerNotFoundError(
                f"layer {name!r} is {graph.dtype(tensor)} of shape {shown(self.shape(tensor))}; "
                "wanted a float tensor (N, C, *spatial) with one to three spatial axes"
            )
        if tensor not in active_tensors(graph, [tensor], self.logits) and not ends_of_floats(
            graph, tensor, self.logits
        ):
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        return found

    def _find_inputs(self) -> list[Input]:
        found = []
        for info in self.graph.inputs:
            shape = self.graph.shape(info.name) or ()
            channels = self._channels.get(info.name, 1) if len(shape) >= 3 else None
            dtype = self.graph.dtype(info.name)
            found.append(Input(info.name, _numbers(shape), dtype, channels))
        return found


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
    first = graph.inputs[0].name
    if not graph.shape(first):
        raise InvalidInputError(
            f"the model's input {first!r} has no axes; wanted one for the samples, and then those "
            "of an image or a signal"
        )


def _numbers(shape: Sequence[int | str | None]) -> Sizes:
    return tuple(size if isinstance(size, int) else None for size in shape)
