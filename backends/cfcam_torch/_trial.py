"""What one forward pass shows: the layers, how their arrays lie, which is the default.

What autograd has written down tells more of a model than its modules do. Only names and numbers are
kept of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cfcam_core.backend import Layer
from cfcam_core.layers import find_default
from cfcam_core.layout import Layout
from cfcam_core.tokens import Fold
from cfcam_torch._axes import SHAPING, channel_axes
from cfcam_torch._graph import (
    Edge,
    cut_edges,
    edge_of,
    gradient_edge,
    in_order,
    kind_of,
    parents,
    shape_of,
)
from cfcam_torch._inputs import Feeds
from cfcam_torch._models import is_scripted
from cfcam_torch._outputs import numpy_of, shown
from cfcam_torch._patches import find_patches
from cfcam_torch._running import undisturbed
from cfcam_torch._watching import Made, Seen, watched

PASSED_OVER = SHAPING | frozenset(
    {
        *("Alias", "Clone", "ConstantPadNd", "NativeDropout", "Permute", "Roll", "Slice"),
        *("ToCopy", "Transpose"),
    }
)
"""Operators whose output is no default layer, as no pooling's is: what they read says as much, on
no coarser grid."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a trial run has shown of a model."""

    layers: tuple[Layer, ...]
    """The maps that all paths from the input run through, in the order of execution."""
    layouts: Mapping[str, Layout]
    """How the output of a module lies, by its name; without those that are no maps."""
    returned: Mapping[str, str]
    """What a module returned, by its name, the model's own under no name; for people."""
    runs: Mapping[str, int]
    """How often a module ran."""
    input: Layout | None
    """The first picture, signal or volume among the inputs."""
    source: str | None
    """Its name."""
    spatial: tuple[int, ...]
    """Its axes of space or time; none where nothing tells them from that of the channels."""
    axes: int
    """Number of axes of a batch of the first input."""
    classes: int | None
    behind: tuple[str, ...]
    """What was looked through to the logits, the last first."""

    def size(self, feeds: Feeds) -> tuple[int, ...]:
        """Return the spatial size of the input; nothing where it is none."""
        if self.source not in feeds:
            return ()
        return tuple(feeds[self.source].shape[axis] for axis in self.spatial)


def try_out(model: nn.Module, feeds: Feeds, *, output: Any, look_through: bool) -> Facts:
    """Run the model once and return what that shows.

    Parameters
    ----------
    model : nn.Module
    feeds : dict of str to Tensor
        One sample.
    output : optional
        What the user says of where the logits are.
    look_through : bool
        Whether what closes the logits off is looked through.

    Raises
    ------
    InvalidInputError
        The model fails on this input, or `output` does not fit.
    """
    closing = look_through and not is_scripted(model)
    with undisturbed(model):
        seen = watched(model, feeds, output, closing=closing, restart=False)
        if not seen.is_connected:
            # the model has parts without gradients: begin anew behind each
            seen = watched(model, feeds, output, closing=closing, restart=True)
        return _told(seen, feeds)


def _told(seen: Seen, feeds: Feeds) -> Facts:
    axes = channel_axes(seen.nodes, seen.told)
    entry = _input_layout(seen, axes)
    spatial: tuple[int, ...] = ()
    size: tuple[int, ...] = ()
    patches: dict[Edge, tuple[int, Fold]] = {}
    if entry is not None and seen.picture is not None:
        shape = shape_of(seen.picture)
        if len(shape) > 3 or seen.picture in axes:
            spatial = tuple(axis for axis in range(1, len(shape)) if axis != entry.channels)
        size = tuple(shape[axis] for axis in spatial)
        if len(size) == 2:
            patches = find_patches(seen.nodes, seen.picture, spatial)

    def layout(name: str, edge: Edge) -> Layout | None:
        shape = shape_of(edge)
        if not 3 <= len(shape) <= 5 or shape[0] != seen.count:
            return None
        return _layout(name, shape, axes.get(edge), patches.get(edge), size)

    layouts = {name: layout(name, edge) for name, edge in seen.last.items() if name}
    known = {name: found for name, found in layouts.items() if found is not None}
    end, cuts = _cuts(seen)
    places = [
        (edge, name)
        for edge, made in seen.made.items()
        if edge in cuts and (name := _address(made, seen.runs)) in known and edge != end
    ]
    grids = {edge: _map_shape(known[name], shape_of(edge)) for edge, name in places}
    places = [(edge, name) for edge, name in places if min(grids[edge][2:]) >= 2]
    default = _default(seen, places, grids, known, len(size))
    listed = tuple(
        Layer(name, (None, *shape_of(edge)[1:]), seen.made[edge].kind, name == default)
        for edge, name in places
    )
    logits = seen.output.logits
    first = next(value for value in feeds.values() if isinstance(value, Tensor))
    return Facts(
        layers=listed,
        layouts=MappingProxyType(known),
        returned=MappingProxyType({**seen.returned, "": shown(seen.output.raw)}),
        runs=MappingProxyType(dict(seen.runs)),
        input=entry,
        source=seen.source,
        spatial=spatial,
        axes=first.ndim,
        classes=None if logits is None else logits.shape[1],
        behind=seen.output.behind,
    )


def _cuts(seen: Seen) -> tuple[Edge | None, set[Edge]]:
    """Return the logits, and what all paths from the picture run through.

    Where there is no picture, all that is fed counts.
    """
    if seen.end is None or not seen.end.requires_grad:
        return None, set()
    end = edge_of(seen.end)
    sources = seen.sources if seen.picture is None else {seen.picture[0]}
    before = in_order([end])
    if sources.isdisjoint(before):
        sources = seen.sources
    return end, cut_edges(before, sources, end)


def _input_layout(seen: Seen, axes: Mapping[Edge, int]) -> Layout | None:
    """Return how the first picture lies; channels last only where something tells."""
    if seen.picture is None:
        return None
    shape = shape_of(seen.picture)
    last = len(shape) >= 4 and shape[-1] in {1, 3, 4} and shape[1] not in {1, 3, 4}
    return Layout("input", axes.get(seen.picture, len(shape) - 1 if last else 1))


def _layout(
    name: str,
    shape: tuple[int, ...],
    channels: int | None,
    patches: tuple[int, Fold] | None,
    size: tuple[int, ...],
) -> Layout:
    """Return how the output of a module lies."""
    if patches is not None:
        return Layout(name, 3 - patches[0], patches[1], size)
    if channels is None or not 1 <= channels < len(shape):
        channels = 2 if len(shape) == 3 and len(size) == 2 else 1
    return Layout(name, channels)


def _map_shape(layout: Layout, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (N, C, *s) of a layer's maps."""
    spatial = [n for axis, n in enumerate(shape) if axis not in {0, layout.channels}]
    if layout.patches is not None:
        spatial = list(layout.patches.grid)
    return (shape[0], shape[layout.channels], *spatial)


def _address(made: Made, runs: Mapping[str, int]) -> str:
    """Return the name under which a tensor is found: the outermost module that returns it.

    Only a module's last run counts. Modules that merely hand on what others made are left out. Of
    those that return it among other things it is the innermost, if there is nothing else: what the
    outer ones hand on may be read by nobody.
    """
    names = [name for name, turn in made.by if name and turn == runs[name]]
    bare = [one for one in names if one in made.bare]
    found = (bare or names or [""])[0]
    for name in bare:
        if found.startswith(f"{name}."):
            found = name
    return found


def _default(
    seen: Seen,
    places: Sequence[tuple[Edge, str]],
    grids: Mapping[Edge, tuple[int, ...]],
    layouts: Mapping[str, Layout],
    axes: int,
) -> str | None:
    """Return the name of the layer that is explained if none is named."""
    edges = {edge for edge, _ in places}
    plain = [(edge, name) for edge, name in places if not _is_moved(edge, edges)]
    if not plain:
        return None
    picked = _best(seen)

    def gradient(i: int) -> NDArray[Any] | None:
        edge, name = plain[i]
        (found,) = torch.autograd.grad(
            picked, [gradient_edge(edge)], retain_graph=True, allow_unused=True
        )
        if found is None:
            return None
        layout = layouts[name]
        return layout.maps(numpy_of(found), layout.size or None)

    def is_cut(i: int) -> bool:
        return plain[i][0] in edges

    chosen = find_default(
        [grids[edge] for edge, _ in plain], axes=axes, gradient=gradient, is_cut=is_cut
    )
    return None if chosen is None else plain[chosen][1]


def _best(seen: Seen) -> Tensor:
    """Return the sum of the best score of each sample."""
    assert seen.end is not None  # noqa: S101 - asked only where a gradient was recorded
    with torch.enable_grad():
        return seen.end.reshape(len(seen.end) if seen.end.ndim else 1, -1).amax(1).sum()


def _is_moved(edge: Edge, listed: set[Edge]) -> bool:
    """Whether a tensor only holds what a listed one does, elsewhere or on a coarser grid."""
    while kind_of(edge[0]) in PASSED_OVER or "Pool" in kind_of(edge[0]):
        read = parents(edge[0])
        if not read or read[0] is None:
            return False
        edge = read[0]
        if edge in listed:
            return True
    return False
