"""What is known of a SavedModel once it is open: inputs, logits, layers. Nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cfcam_core.errors import InvalidInputError, LayerNotFoundError, UnsupportedOpError
from cfcam_tensorflow._saved_model.graph import SavedGraph
from cfcam_tensorflow._saved_model.inputs import Feeds, SavedInput, shown
from cfcam_tensorflow._saved_model.layers import (
    Names,
    Site,
    channel_axes,
    cut_points,
    differentiable,
    logits_of,
    needed,
    reached,
)


class SavedClassifier:
    """A flat graph with its inputs, its logits and the places that can be explained.

    Parameters
    ----------
    graph : SavedGraph
    output : str or int, optional
        Which output is explained.
    look_through : bool
        Whether to look behind a closing Softmax and the like.

    Raises
    ------
    InvalidInputError
        There is no such output, or the outputs depend on no input.
    """

    def __init__(self, graph: SavedGraph, *, output: Any = None, look_through: bool = True) -> None:
        self.graph = graph
        chosen = self._chosen(output)
        self.is_classifier = chosen is not None
        self.logits_behind: tuple[str, ...] = ()
        if chosen is not None and look_through:
            chosen, self.logits_behind = logits_of(graph.facts, chosen)
        self.ends = graph.outputs if chosen is None else (chosen,)
        ops = needed(graph.facts, self.ends)
        self._channels = channel_axes(ops)
        self.inputs = tuple(self._input(name, tensor) for name, tensor in graph.inputs.items())
        self.picture = max(self.inputs, key=lambda one: len(one.spatial))
        self._reach = {one.name: reached(ops, one.tensor) for one in self.inputs}
        flowing = set[str]().union(*self._reach.values())
        self._ops = {op.name: op for op in ops if any(t.name in flowing for t in op.inputs)}
        self._names = Names(list(self._ops.values()))
        self._usable, self.without_gradient = differentiable(ops, self.ends)
        sources = [one for one in self.inputs if one.spatial] or [self.picture]
        own = {one.name: set(cut_points(ops, self.ends, one.tensor)) for one in sources}
        every = set[str]().union(*own.values()) & self._usable
        self.maps = [
            t.name
            for op in self._ops.values()
            for t in op.outputs
            if t.shape.rank in {3, 4, 5} and t.dtype.is_floating
        ]
        self._maps = set(self.maps)
        self.cuts = [
            name for name in self.maps if name in every and graph.tensor(name).op.type != "Identity"
        ]
        self.main = own[self.picture.name]

    @property
    def classes(self) -> int | None:
        """Number of classes; None where the graph leaves it open, or there are none."""
        if not self.is_classifier:
            return None
        sizes = self.graph.tensor(self.ends[0]).shape.as_list()[1:]
        return None if None in sizes else int(np.prod(sizes))

    def check_classifier(self) -> None:
        """Refuse what takes logits where there are none."""
        if self.is_classifier:
            return
        outputs = [self.graph.tensor(name) for name in self.graph.outputs]
        there = ", ".join(shown(_sizes(one)) for one in outputs)
        raise InvalidInputError(
            f"the model's output has shape {there}; wanted logits (N, K). Open it with output= a "
            "function of the raw output that makes them, or pass a callable target that makes a "
            "scalar or (N,) of it"
        )

    def site(self, tensor: str) -> Site:
        """Return a tensor seen as a layer."""
        found = self.graph.tensor(tensor)
        shape = _sizes(found) or ()
        axis = self._channels.get(tensor, len(shape) - 1)
        if found.op.name not in self._ops:
            return Site(tensor, "input", "Input", "", axis, shape)
        name = self._names.names[found.op.name]
        if found.name != f"{found.op.name}:0":
            name = f"{name}:{found.value_index}"
        module = self._names.module(found.op.name)
        return Site(tensor, name, found.op.type, module, axis, shape)

    def site_named(self, name: str) -> Site:
        """Return the last map of what has a name: a tensor, an operation, a layer or ``input``.

        Raises
        ------
        LayerNotFoundError
            There is none, or it is no map.
        UnsupportedOpError
            It is an input that takes no gradient.
        """
        if name == "input" and name not in self._ops:
            return self._first()
        base, _, number = name.partition(":")
        ops = self._names.operations(base)
        made = [
            t.name
            for op in reversed(ops)
            for t in self._ops[op].outputs
            if not number or t.value_index == int(number)
        ]
        found = [one for one in made if one in self._maps]
        if not found:
            shapes = ", ".join(shown(_sizes(self.graph.tensor(one))) for one in made)
            raise LayerNotFoundError(
                f"layer {name!r} is no map: it makes {shapes or 'nothing'}; wanted floats with a "
                "batch, channels and one to three spatial axes"
            )
        return self.site(next((one for one in found if one in self._usable), found[0]))

    def input_of(self, site: Site) -> SavedInput | None:
        """Return the first input that a layer is a map of; tokens may be those of a picture."""
        sources = [
            one
            for one in self.inputs
            if one.spatial and (one.tensor == site.tensor or site.tensor in self._reach[one.name])
        ]
        axes = len(site.shape) - 2
        alike = [one for one in sources if len(one.spatial) == axes]
        tokens = [one for one in sources if axes == 1 and len(one.spatial) == 2]
        return next(iter(alike or tokens), None)

    def size_of(self, site: Site, feeds: Feeds) -> tuple[int, ...] | None:
        """Return the spatial size of the input that a layer is a map of."""
        source = self.input_of(site)
        return None if source is None else source.size(feeds)

    # ------------------------------------------------------------------------------- within

    def _first(self) -> Site:
        picture = self.picture
        if not picture.spatial:
            raise LayerNotFoundError("the model's inputs have no spatial axes; name a layer")
        if not self.graph.tensor(picture.tensor).dtype.is_floating:
            raise UnsupportedOpError(
                f"the input {picture.name!r} holds {picture.dtype}, which has no gradient; name a "
                "layer behind it"
            )
        return self.site(picture.tensor)

    def _input(self, name: str, tensor: str) -> SavedInput:
        found = self.graph.tensor(tensor)
        shape = _sizes(found)
        axis = self._channels.get(tensor, len(shape or ()) - 1)
        return SavedInput(name, tensor, shape, np.dtype(found.dtype.as_numpy_dtype), axis)

    def _chosen(self, output: Any) -> str | None:
        """Return the tensor that is explained; None where no output is of logits."""
        graph, outputs = self.graph, self.graph.outputs
        names = output_names(graph)
        if output is None:
            return next((name for name in outputs if self._is_logits(name)), None)
        if isinstance(output, int) and -len(outputs) <= output < len(outputs):
            found = outputs[output]
        elif isinstance(output, str) and output in names:
            found = names[output]
        else:
            try:
                found = graph.tensor(output if ":" in output else f"{output}:0").name
            except (KeyError, ValueError, TypeError) as error:
                raise InvalidInputError(
                    f"the SavedModel has no output {output!r}; there are {', '.join(names)}. "
                    "Allowed are their names and numbers, names of tensors, and a callable"
                ) from error
        if not self._is_logits(found):
            raise InvalidInputError(
                f"output {output!r} has shape {shown(_sizes(graph.tensor(found)))}; wanted logits "
                "(N, K), or a function of the raw output that makes them"
            )
        return found

    def _is_logits(self, name: str) -> bool:
        """Whether a tensor is (N, K), or has but single positions besides, as (N, K, 1, 1)."""
        tensor = self.graph.tensor(name)
        sizes = _sizes(tensor)
        if sizes is None or len(sizes) < 2 or not tensor.dtype.is_floating:
            return False
        return len(sizes) == 2 or sum(size != 1 for size in sizes[1:]) == 1


def output_names(graph: SavedGraph) -> dict[str, str]:
    """Return the outputs by the signature's names."""
    structure = graph.structure
    keys = sorted(structure) if isinstance(structure, Mapping) else []
    if len(keys) != len(graph.outputs):
        keys = [f"output_{i}" for i in range(len(graph.outputs))]
    return dict(zip(keys, graph.outputs, strict=True))


def _sizes(tensor: Any) -> tuple[int | None, ...] | None:
    return None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
