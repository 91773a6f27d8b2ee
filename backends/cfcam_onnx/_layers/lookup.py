"""What users call the layers of a model: a name, an index, a module, or nothing at all."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx

from cfcam_core.backend import Layer
from cfcam_core.errors import LayerNotFoundError, UnsupportedOpError
from cfcam_core.inputs import shown
from cfcam_onnx._gradient import active_tensors, differentiable_tensors, ends_of_floats
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input
from cfcam_onnx._layers.patches import find_patches
from cfcam_onnx._layers.scopes import match, modules
from cfcam_onnx._layers.sites import PICTURE, Site, cut_points, default_site, site
from cfcam_onnx._programs import problems_from
from cfcam_onnx._reading import blaming


class Layers:
    """The layers of one model: those listed, the default, and any tensor that has a name.

    Parameters
    ----------
    graph : Graph
    logits : str
    inputs : list of Input
    channels : dict of str to int
        What `cfcam_onnx._layers.axes.channel_axes` has found.
    source : onnx.ModelProto
        The model as it was read, to be blamed.
    """

    def __init__(
        self,
        graph: Graph,
        logits: str,
        inputs: list[Input],
        channels: dict[str, int],
        source: onnx.ModelProto,
    ) -> None:
        self._graph, self._logits, self._inputs = graph, logits, inputs
        self._channels, self._source = channels, source
        self._picture = max(inputs, key=lambda one: len(one.spatial))
        nodes = [node for node in graph.nodes if node.op_type not in {"Shape", "Size"}]
        self._reach = {one.name: graph.reached([one.name], nodes) for one in inputs}
        self._patches = {
            one.name: find_patches(graph, one.name, one.spatial)
            for one in inputs
            if len(one.spatial) == PICTURE
        }
        self._places, self.sites, self.default = self._find_places()
        self._by_name: dict[str, Site] = {}  # names that have been asked for

    def listed(self) -> list[Layer]:
        """Return the sites as users see them."""
        return [
            Layer(s.name, self._graph.sizes(s.name) or (), s.kind, s is self.default, s.module)
            for s in self.sites
        ]

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
                    f"the model has no layer with spatial axes {self._like_the_input}that all "
                    f"paths run through; name a tensor with layer={self._or_input}"
                )
            return self.default
        if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
            if not -len(self.sites) <= layer < len(self.sites):
                raise LayerNotFoundError(
                    f"layer {layer} is out of range: the model has {len(self.sites)} layers"
                    + (f", 0 to {len(self.sites) - 1}" if self.sites else "")
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
        axes = len(layer.grid)
        return next((one for one in self._inputs_of(layer.name) if len(one.spatial) == axes), None)

    def later_site(self, stops: set[str]) -> Site | None:
        """Return the first site among or behind the tensors `stops`, with axes like the input's."""
        after: set[str] = set()
        for node in reversed(self._graph.nodes):
            after.update(node.output)
            if stops.intersection(node.output):
                break
        axes = len(self._picture.spatial)
        return next((s for s in self.sites if s.name in after and len(s.grid) == axes), None)

    @property
    def _or_input(self) -> str:
        usable = differentiable_tensors(self._graph, self._logits)
        return ', or pass layer="input"' if self._picture.name in usable else ""

    @property
    def _like_the_input(self) -> str:
        return "like the picture's " if len(self._picture.spatial) == PICTURE else ""

    def _can_be_explained(self, name: str) -> bool:
        """Whether a name that there is stands for a map, and for one that the logits depend on."""
        try:
            self._named(name)
        except LayerNotFoundError:
            return False
        return True

    def _has_samples(self, place: Site) -> bool:
        """Whether the first axis may be that of the samples; behind an LSTM it is not."""
        sizes = {(self._graph.sample_shape(n) or (None,))[0] for n in (place.name, self._logits)}
        return len(sizes - {None}) < 2

    def _refuse_blocked(self) -> None:
        """Say why no gradient reaches any of the places, if operators are to blame."""
        if not self._places:
            return
        axes = len(self._picture.spatial)
        last = ([one for one in self._places if len(one.grid) == axes] or self._places)[-1]
        with blaming(self._source):
            problems = problems_from(self._graph, self._logits, [last.name])
        if problems:
            raise UnsupportedOpError(
                f"no layer can be explained: {problems}. Export the model with standard operators"
            )

    def _find_places(self) -> tuple[list[Site], list[Site], Site | None]:
        """Return the places on the way from any input, those with a gradient, and the default."""
        graph, usable = self._graph, differentiable_tensors(self._graph, self._logits)
        inputs = [one for one in self._inputs if one.spatial] or [self._picture]
        cuts = {one.name: set(cut_points(graph, self._logits, one.name)) for one in inputs}
        every = set[str]().union(*cuts.values())
        found = [self._site(o) for node in graph.nodes for o in node.output if o in every]
        places = [s for s in found if s is not None and s.least >= 2 and self._has_samples(s)]
        sites = [s for s in places if s.name in usable]
        own = [s for s in sites if s.name in cuts[self._picture.name]]
        axes = len(self._picture.spatial)
        return places, sites, default_site(graph, self._logits, own, axes, self._channels)

    def _inputs_of(self, name: str) -> list[Input]:
        return [one for one in self._inputs if name in self._reach[one.name]]

    def _site(self, name: str) -> Site | None:
        """Return a tensor seen as a layer; tokens are folded that are patches of a picture."""
        patches = next((there[name] for there in self._patches.values() if name in there), None)
        return site(self._graph, name, self._channels, patches)

    def _named(self, name: str) -> Site:
        tensors = {o for n in self._graph.nodes for o in n.output if o}
        tensors.update(one.name for one in self._inputs)
        by_node = {node.name: node.output[0] for node in self._graph.nodes if node.name}
        tensor = name if name in tensors else by_node.get(name)
        if tensor is None and name == "input":
            tensor = self._picture.name
        if tensor is None:
            return self._module(name, tensors | set(by_node))
        found = self._site(tensor)
        if found is None or not self._has_samples(found):
            raise LayerNotFoundError(f"layer {name!r} is {self._described(tensor)}")
        if tensor not in active_tensors(self._graph, [tensor], self._logits) and not ends_of_floats(
            self._graph, tensor, self._logits
        ):
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        return found

    def _module(self, name: str, others: set[str]) -> Site:
        """Return the last map that a module makes; `others` are names that were looked at."""
        there = modules(self._graph.nodes)
        paths = match(name, there)
        if not paths:
            close = get_close_matches(name, sorted(others.union(there)), n=20, cutoff=0.4)
            fine = [one for one in close if self._can_be_explained(one)][:5]
            listed = ", ".join(fine or [s.name for s in self.sites])
            lacking = "" if there else "; this file holds no module paths"
            raise LayerNotFoundError(
                f"the model has no layer {name!r}; the closest names are {listed or '(none)'}"
                + lacking
            )
        if len(paths) > 1:
            raise LayerNotFoundError(
                f"layer {name!r} may be any of {len(paths)} modules: {', '.join(paths[:8])}"
                f"{', ...' if len(paths) > 8 else ''}; pass the whole path"
            )
        leading = active_tensors(self._graph, [one.name for one in self._inputs], self._logits)
        made = [o for node in reversed(there[paths[0]]) for o in node.output if o in leading]
        if not made:
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        maps = [s for s in map(self._site, made) if s is not None and self._has_samples(s)]
        if not maps:
            raise LayerNotFoundError(
                f"module {paths[0]!r} makes no map: its last tensor {made[0]!r} is "
                f"{self._described(made[0])}"
            )
        return next((s for s in maps if s.least >= 2), maps[0])

    def _described(self, tensor: str) -> str:
        graph, shape = self._graph, shown(self._graph.sizes(tensor) or (None,))
        return (
            f"{graph.dtype(tensor)} of shape {shape}; wanted a float tensor "
            "(N, C, *spatial) with one to three spatial axes"
        )
