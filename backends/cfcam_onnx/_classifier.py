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
from cfcam_onnx._axes import channel_axes
from cfcam_onnx._bounds import bounds_of
from cfcam_onnx._cache import Entries
from cfcam_onnx._gradient import active_tensors, differentiable_tensors, ends_of_floats
from cfcam_onnx._graph import Graph
from cfcam_onnx._inputs import Input, Sizes, shown
from cfcam_onnx._layers import Site, cut_points, default_site, site
from cfcam_onnx._learned import learned_once
from cfcam_onnx._limits import Limits
from cfcam_onnx._logits import find_logits, without_zip_maps
from cfcam_onnx._model import prepare
from cfcam_onnx._probe import is_incomplete, probe
from cfcam_onnx._programs import problems_from
from cfcam_onnx._reading import blaming, read_model
from cfcam_onnx._scopes import match, modules
from cfcam_onnx._tokens import Fold, find_fold


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
            self.bounds = bounds_of(graph, limits)
            failure, self.entries = None, Entries()  # only a trial run is worth a look at the disk
            if is_incomplete(graph):
                ends = [info.name for info in graph.model.graph.output]
                failure, self.entries = learned_once(
                    graph,
                    ends,
                    entries.of(graph.model, graph.weights),
                    lambda: probe(graph, ends, threads=threads, limits=limits),
                )
            self.logits, self.logits_behind = find_logits(
                graph, output, failure, look_through=look_through
            )
            self._channels = channel_axes(graph)
            self.inputs = self._find_inputs()
            self.picture = max(self.inputs, key=lambda one: len(one.spatial))
            nodes = [node for node in graph.nodes if node.op_type not in {"Shape", "Size"}]
            self._reach = {one.name: graph.reached([one.name], nodes) for one in self.inputs}
            self._places, self.sites, self.default = self._find_places()
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
        return [
            Layer(s.name, self.shape(s.name), s.kind, s is self.default, s.module)
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
        axes = len(layer.grid)
        return next((one for one in self._inputs_of(layer.name) if len(one.spatial) == axes), None)

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
        height, width = size
        fold = find_fold(tokens, (height, width), layer.prefix)
        if fold is None:
            raise InvalidInputError(
                f"the {tokens} tokens of layer {layer.name!r}, {layer.prefix} of them in front, "
                f"are no rows and columns of patches of an input of {height} x {width}; resize "
                "the input to a multiple of the model's patches"
            )
        return fold

    def later_site(self, stops: set[str]) -> Site | None:
        """Return the first site among or behind the tensors `stops`, with axes like the input's."""
        after: set[str] = set()
        for node in reversed(self.graph.nodes):
            after.update(node.output)
            if stops.intersection(node.output):
                break
        axes = len(self.picture.spatial)
        return next((s for s in self.sites if s.name in after and len(s.grid) == axes), None)

    def _has_samples(self, place: Site) -> bool:
        """Whether the first axis may be that of the samples; behind an LSTM it is not."""
        sizes = {(self.graph.sample_shape(n) or (None,))[0] for n in (place.name, self.logits)}
        return len(sizes - {None}) < 2

    def _refuse_blocked(self) -> None:
        """Say why no gradient reaches any of the places, if operators are to blame."""
        if not self._places:
            return
        with blaming(self.source):
            problems = problems_from(self.graph, self.logits, [self._places[-1].name])
        if problems:
            raise UnsupportedOpError(
                f"no layer can be explained: {problems}. Export the model with standard operators"
            )

    def _find_places(self) -> tuple[list[Site], list[Site], Site | None]:
        """Return the places on the way from any input, those with a gradient, and the default."""
        graph, usable = self.graph, differentiable_tensors(self.graph, self.logits)
        inputs = [one for one in self.inputs if one.spatial] or [self.picture]
        cuts = {one.name: set(cut_points(graph, self.logits, one.name)) for one in inputs}
        every = set[str]().union(*cuts.values())
        found = [self._site(o) for node in graph.nodes for o in node.output if o in every]
        places = [s for s in found if s is not None and s.least >= 2 and self._has_samples(s)]
        sites = [s for s in places if s.name in usable]
        own = [s for s in sites if s.name in cuts[self.picture.name]]
        axes = len(self.picture.spatial)
        return places, sites, default_site(graph, self.logits, own, axes, self._channels)

    def _inputs_of(self, name: str) -> list[Input]:
        return [one for one in self.inputs if name in self._reach[one.name]]

    def _site(self, name: str) -> Site | None:
        """Return a tensor seen as a layer; tokens are folded that are patches of a picture."""
        axes = {len(one.spatial): one for one in reversed(self._inputs_of(name))}
        image = None if 1 in axes or 2 not in axes else axes[2]
        shape = image and self.graph.sample_shape(image.name)
        height, width = (shape[a] for a in image.spatial) if image and shape else (None, None)
        size = None if height is None or width is None else (height, width)
        return site(self.graph, name, self._channels, size)

    def _named(self, name: str) -> Site:
        tensors = {o for n in self.graph.nodes for o in n.output if o}
        tensors.update(one.name for one in self.inputs)
        by_node = {node.name: node.output[0] for node in self.graph.nodes if node.name}
        tensor = name if name in tensors else by_node.get(name)
        if tensor is None and name == "input":
            tensor = self.picture.name
        if tensor is None:
            return self._module(name, tensors | set(by_node))
        found = self._site(tensor)
        if found is None or not self._has_samples(found):
            raise LayerNotFoundError(f"layer {name!r} is {self._described(tensor)}")
        if tensor not in active_tensors(self.graph, [tensor], self.logits) and not ends_of_floats(
            self.graph, tensor, self.logits
        ):
            raise LayerNotFoundError(f"the logits do not depend on layer {name!r}; choose another")
        return found

    def _module(self, name: str, others: set[str]) -> Site:
        """Return the last map that a module makes; `others` are names that were looked at."""
        there = modules(self.graph.nodes)
        paths = match(name, there)
        if not paths:
            close = get_close_matches(name, sorted(others.union(there)), n=5, cutoff=0.4)
            listed = ", ".join(close or [s.name for s in self.sites])
            raise LayerNotFoundError(
                f"the model has no layer {name!r}; the closest names are {listed or '(none)'}"
            )
        if len(paths) > 1:
            raise LayerNotFoundError(
                f"layer {name!r} may be any of {len(paths)} modules: {', '.join(paths[:8])}"
                f"{', ...' if len(paths) > 8 else ''}; pass the whole path"
            )
        leading = active_tensors(self.graph, [one.name for one in self.inputs], self.logits)
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
        return (
            f"{self.graph.dtype(tensor)} of shape {shown(self.shape(tensor))}; wanted a float "
            "tensor (N, C, *spatial) with one to three spatial axes"
        )

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


def _numbers(shape: Sequence[int | str | None]) -> Sizes:
    return tuple(size if isinstance(size, int) else None for size in shape)
