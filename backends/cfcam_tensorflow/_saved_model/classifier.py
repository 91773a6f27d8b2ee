"""What is known of a SavedModel once it is open: inputs, logits, layers. Nothing is run here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cfcam_core.cuts import cut_points
from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_core.inputs import shown
from cfcam_tensorflow._inputs import Feeds, Input, Inputs
from cfcam_tensorflow._saved_model.graph import ADVICE, SavedGraph
from cfcam_tensorflow._saved_model.looking import (
    channel_axes,
    differentiable,
    logits_of,
    needed,
    reached,
)
from cfcam_tensorflow._saved_model.names import Names

NO_NUMBERS = frozenset({"resource", "string", "variant"})
"""Dtypes of tables, text and lists."""


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor that can be explained."""

    tensor: str
    name: str
    """Path of the operation that makes it, without calls of functions."""
    kind: str
    module: str
    """Dotted path of the layer that makes it, where the scopes tell."""
    channels: int
    """Axis of the channels."""
    shape: tuple[int | None, ...]

    @property
    def spatial(self) -> tuple[int, ...]:
        """Axes of space or time; none where it is no signal, picture or volume."""
        axes = len(self.shape)
        return tuple(a for a in range(1, axes) if a != self.channels) if 3 <= axes <= 5 else ()


class SavedClassifier:
    """A flat graph with its inputs, its logits and the places that can be explained."""

    def __init__(self, graph: SavedGraph, output: Any = None, *, look_through: bool = True) -> None:
        self.graph = graph
        chosen = self._chosen(output)
        self.is_classifier = chosen is not None
        self.logits_behind: tuple[str, ...] = ()
        if chosen is not None and look_through:
            chosen, self.logits_behind = logits_of(graph.facts, chosen)
        self.ends = graph.outputs if chosen is None else (chosen,)
        ops = needed(graph.facts, self.ends)
        strange = {t.dtype.name for op in ops if op.type == "Placeholder" for t in op.outputs}
        if strange & NO_NUMBERS:
            raise UnsupportedOpError(
                f"the SavedModel reads {', '.join(sorted(strange & NO_NUMBERS))} besides arrays of "
                f"numbers, such as tables or text; {ADVICE}"
            )
        self._channels = channel_axes(ops)
        numbers = {
            name: tensor
            for name, tensor in graph.inputs.items()
            if graph.tensor(tensor).dtype.name not in NO_NUMBERS
        }
        self.inputs = Inputs([self._input(*one) for one in numbers.items()], list(numbers), list)
        self._reach = {tensor: reached(ops, tensor) for tensor in numbers.values()}
        flowing = set[str]().union(*self._reach.values())
        self._ops = {op.name: op for op in ops if any(t.name in flowing for t in op.inputs)}
        self._names = Names(self._ops)
        self.sources = [self.site(tensor) for tensor in numbers.values()]
        """The inputs, in order."""
        self.picture = max(self.sources, key=lambda one: len(one.spatial))
        steps = [([t.name for t in op.inputs], [t.name for t in op.outputs]) for op in ops]
        starts = [one for one in self.sources if one.spatial] or [self.picture]
        own = {one.tensor: cut_points(steps, [one.tensor], self.ends) for one in starts}
        cuts = set().union(*own.values())
        self.main = set(own[self.picture.tensor])
        """Tensors that all paths from the (first) picture run through."""
        self._usable, self.without_gradient = differentiable(ops, self.ends)
        self.maps = {
            t.name: self.site(t.name)
            for op in self._ops.values()
            for t in op.outputs
            if t.shape.rank in {3, 4, 5} and t.dtype.is_floating
        }
        """All that could be explained, by tensor, in order."""
        self.cuts = [
            site
            for name, site in self.maps.items()
            if name in cuts & self._usable and site.kind != "Identity"
        ]
        """Those that all paths from an input run through."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None where the graph leaves it open, or there are none."""
        sizes = self.graph.tensor(self.ends[0]).shape.as_list()[1:] if self.is_classifier else None
        return None if sizes is None or None in sizes else int(np.prod(sizes))

    def check_classifier(self) -> None:
        """Refuse what takes logits where there are none."""
        if not self.is_classifier:
            there = ", ".join(self._shown(name) for name in self.graph.outputs)
            raise InvalidInputError(
                f"the model's output has shape {there}; wanted logits (N, K). Open it with output= "
                "a function of the raw output that makes them, or pass a callable target that "
                "makes a scalar or (N,) of it"
            )

    def tensors(self, feeds: Feeds) -> dict[str, Any]:
        """Return what is fed, by tensor."""
        return {one.tensor: x for one, x in zip(self.sources, feeds.arrays, strict=True)}

    def site(self, tensor: str) -> Site:
        """Return a tensor seen as a layer."""
        found = self.graph.tensor(tensor)
        shape, op = _sizes(found) or (), found.op.name
        axis = self._channels.get(tensor, len(shape) - 1)
        if op not in self._ops:
            return Site(tensor, "input", "Input", "", axis, shape)
        name = self._names.names[op]
        if found.value_index:
            name = f"{name}:{found.value_index}"
        return Site(tensor, name, found.op.type, self._names.modules[op], axis, shape)

    def site_named(self, name: str) -> Site:
        """Return the last map of what has a name: an operation, a layer, a tensor or ``input``."""
        if name == "input" and name not in self._ops:
            return self._first()
        named = [one for one in self.maps.values() if name in {one.name, one.tensor}]
        if named:
            return named[0]
        ops = self._names.operations(name)
        made = [t.name for op in reversed(ops) for t in self._ops[op].outputs]
        found = [self.maps[one] for one in made if one in self.maps]
        if not found:
            raise LayerNotFoundError(
                f"layer {name!r} is no map: it makes {', '.join(map(self._shown, made)) or 'none'};"
                " wanted floats with a batch, channels and one to three spatial axes"
            )
        return next((one for one in found if one.tensor in self._usable), found[0])

    def size_of(self, site: Site, feeds: Feeds) -> tuple[int, ...] | None:
        """Return the size of the (first) input that a layer is made of, one with its axes first."""
        sizes = [
            tuple(array.shape[axis] for axis in one.spatial)
            for one, array in zip(self.sources, feeds.arrays, strict=True)
            if one.spatial and site.tensor in self._reach[one.tensor]
        ]
        alike = [size for size in sizes if len(size) == len(site.spatial)]
        return next(iter(alike or sizes), None)

    # ------------------------------------------------------------------------------- within

    def _first(self) -> Site:
        if not self.picture.spatial:
            raise LayerNotFoundError("the model's inputs have no spatial axes; name a layer")
        found = self.graph.tensor(self.picture.tensor)
        if not found.dtype.is_floating:
            raise UnsupportedOpError(
                f"the input {found.op.name!r} holds {found.dtype.name}, which has no gradient; "
                "name a layer behind it"
            )
        return self.picture

    def _input(self, name: str, tensor: str) -> Input:
        found = self.graph.tensor(tensor)
        dtype = np.dtype(found.dtype.as_numpy_dtype)
        is_known = dtype.kind in "fiub"  # bfloat16 is no dtype of NumPy's
        return Input(name, _sizes(found), dtype if is_known else np.dtype(np.float32))

    def _chosen(self, output: Any) -> str | None:
        """Return the tensor that is explained; None where no output is of logits."""
        names, outputs = self.graph.output_names, self.graph.outputs
        if output is None:
            return next((name for name in outputs if self._is_logits(name)), None)
        if isinstance(output, str) and output in names:
            found = names[output]
        elif isinstance(output, int) and -len(outputs) <= output < len(outputs):
            found = outputs[output]
        else:
            raise InvalidInputError(
                f"the SavedModel has no output {output!r}; there are {', '.join(names)}. Allowed "
                "are their names and numbers, and a callable"
            )
        if not self._is_logits(found):
            raise InvalidInputError(
                f"output {output!r} has shape {self._shown(found)}; wanted logits (N, K), or a "
                "function of the raw output that makes them"
            )
        return found

    def _is_logits(self, name: str) -> bool:
        """Whether a tensor is (N, K), or has but single positions besides, as (N, K, 1, 1)."""
        tensor = self.graph.tensor(name)
        sizes = (_sizes(tensor) or ())[1:]
        alone = len(sizes) == 1 or sum(size != 1 for size in sizes) == 1
        return bool(alone and tensor.dtype.is_floating)

    def _shown(self, name: str) -> str:
        sizes = _sizes(self.graph.tensor(name))
        return "any shape" if sizes is None else shown(sizes)


def _sizes(tensor: Any) -> tuple[int | None, ...] | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
