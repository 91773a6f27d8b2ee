"""What is known of a classifier once it is open: its inputs, its logits, its layers.

Worked out once, so that threads may share it. Nothing is run here
but the trial run of `cfcam_onnx._probe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from cfcam_core.backend import Layer
from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_onnx._gradient import active_tensors
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input, Sizes, shown
from cfcam_onnx._layers import Site, channel_axes, cut_points, default_site, site
from cfcam_onnx._logits import find_logits
from cfcam_onnx._model import blaming, prepare, read_model
from cfcam_onnx._probe import is_incomplete, probe


class Classifier:
    """A model that was read and understood; see `OnnxBackend` for parameters and errors."""

    def __init__(self, model: Any, *, output: str | None, threads: int | None) -> None:
        source = read_model(model)
        with blaming(source):
            self.graph = graph = Graph(prepare(source))
            if is_incomplete(graph):
                probe(graph, [info.name for info in graph.model.graph.output], threads=threads)
            self.logits, self.logits_behind = find_logits(graph, output)
            self._channels = channel_axes(graph)
            self.inputs = self._find_inputs()
            cuts = cut_points(graph, self.logits)
            found = [site(graph, name, self._channels) for name in cuts]
            self.sites = [s for s in found if s is not None and s.least >= 2]
            self.default = default_site(graph, self.logits, self.sites)
            self._by_name: dict[str, Site] = {}  # names that have been asked for

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
        """
        if layer is None:
            if self.default is None:
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
        if tensor not in active_tensors(graph, tensor, self.logits):
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        return found

    def _find_inputs(self) -> list[Input]:
        found = []
        for info in self.graph.inputs:
            shape = self.graph.shape(info.name)
            if shape is None:
                raise InvalidInputError(
                    f"the model does not say what shape its input {info.name!r} has; "
                    "export it with shapes"
                )
            channels = self._channels.get(info.name, 1) if len(shape) >= 3 else None
            dtype = self.graph.dtype(info.name)
            found.append(Input(info.name, _numbers(shape), dtype, channels))
        if not found:
            raise InvalidInputError("the model has no inputs; wanted a classifier of arrays")
        return found


def _numbers(shape: Sequence[int | str | None]) -> Sizes:
    return tuple(size if isinstance(size, int) else None for size in shape)
