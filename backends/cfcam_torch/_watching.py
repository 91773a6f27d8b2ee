"""One run with every module watched: what it returned, and what autograd has recorded of that."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cfcam_torch._axes import DENSE
from cfcam_torch._graph import Edge, edge_of, in_order, kind_of
from cfcam_torch._inputs import Feeds, picture_of, samples
from cfcam_torch._models import is_scripted
from cfcam_torch._outputs import (
    Closing,
    Output,
    as_rows,
    features_first,
    find_output,
    first_tensor,
    logits_of,
    shown,
    tensors_of,
    with_tensor,
)
from cfcam_torch._running import Action, restarted, run


@dataclass(eq=False, slots=True)
class Made:
    """A tensor that modules have returned."""

    kind: str
    """Class of the innermost of them."""
    by: list[tuple[str, int]] = field(default_factory=list)
    """Names of the modules, the innermost first, and in which of its runs each returned it."""
    bare: set[str] = field(default_factory=set)
    """Those that returned it as it is, not among other things."""


@dataclass(eq=False, slots=True)
class Seen:
    """What has been watched in a run."""

    count: int
    """Number of samples."""
    made: dict[Edge, Made] = field(default_factory=dict)
    last: dict[str, Edge] = field(default_factory=dict)
    """What a module returned last, by its name."""
    returned: dict[str, str] = field(default_factory=dict)
    """The same for people, of all modules."""
    runs: Counter[str] = field(default_factory=Counter)
    told: dict[Edge, int] = field(default_factory=dict)
    """Axes of channels that modules tell of."""
    sources: set[Any] = field(default_factory=set)
    """Nodes of what is fed, and of where gradients begin anew."""
    picture: Edge | None = None
    source: str | None = None
    """Name of the input that is the picture."""
    output: Output = field(default_factory=lambda: Output(None, None))
    end: Tensor | None = None
    """The logits, or what stands for them."""
    nodes: list[Any] = field(default_factory=list)
    """All that autograd has recorded, what is read before what reads it."""

    @property
    def is_connected(self) -> bool:
        """Whether gradients flow from the logits to what was fed."""
        if self.end is None or not self.end.requires_grad:
            return False
        return not self.sources.isdisjoint(in_order([edge_of(self.end)]))


def watched(model: nn.Module, feeds: Feeds, output: Any, *, closing: bool, restart: bool) -> Seen:
    """Run the model with gradients recorded everywhere and return what was seen.

    To be called inside `undisturbed`.

    Parameters
    ----------
    model : nn.Module
    feeds : dict of str to Tensor
    output : optional
        What the user says of where the logits are.
    closing : bool
        Whether what closes the logits off is looked through.
    restart : bool
        Whether to begin gradients anew behind modules that return something without.
    """
    seen = Seen(samples(feeds))
    own = _sources(seen, feeds)
    modules = [] if is_scripted(model) else list(model.named_modules())
    actions = [
        (module, _action(seen, name, module, restart=restart))
        for name, module in modules
        if not is_scripted(module)
    ]
    with Closing() if closing else nullcontext() as watch:
        raw = run(model, own, actions, record=True)
        with torch.enable_grad():
            seen.output = find_output(raw, seen.count, output, watch)
    if output is None and seen.output.logits is not None:
        _check_first(raw, seen.count)
    seen.end = first_tensor(raw) if seen.output.logits is None else seen.output.logits
    if seen.end is not None and seen.end.requires_grad:
        seen.nodes = in_order([edge_of(seen.end), *seen.made])
        if not seen.sources:
            seen.sources = {node for node in seen.nodes if kind_of(node).startswith("Embedding")}
    return seen


def _check_first(raw: Any, count: int) -> None:
    """Refuse features in front of the logits that are made of them.

    Raises
    ------
    InvalidInputError
        Another tensor (N, K) in the output is made of the one that would be taken, with weights.
    """
    first = logits_of(raw)
    if first is None or not first.requires_grad:
        return
    own = set(in_order([edge_of(first)]))
    for other in tensors_of(raw):
        if other is first or not other.requires_grad or as_rows(other, count) is None:
            continue
        nodes = set(in_order([edge_of(other)]))
        if edge_of(first)[0] in nodes and any(kind_of(node) in DENSE for node in nodes - own):
            raise features_first(raw, first, other)


def _sources(seen: Seen, feeds: Feeds) -> Feeds:
    """Return what to feed so that gradients flow to it; what that is, is noted."""
    own, picture = dict(feeds), picture_of(feeds)
    for name, value in feeds.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().clone().requires_grad_()
            seen.sources.add(edge_of(leaf)[0])
            own[name] = leaf
            if name == picture:
                seen.picture, seen.source = edge_of(leaf), name
    return own


def _kind(module: nn.Module) -> str:
    """Return the class of a module; of an exported one, that which it had before."""
    before = getattr(module, "type_name", None)
    name = before() if callable(before) else None
    return name.rsplit(".", 1)[-1] if isinstance(name, str) and name else type(module).__name__


def _action(seen: Seen, name: str, module: nn.Module, *, restart: bool) -> Action:
    kind = _kind(module)

    def action(output: Any) -> Any:
        seen.runs[name] += 1
        seen.returned[name] = shown(output)
        tensor, replaced = first_tensor(output), None
        if tensor is None:
            return None
        if not tensor.requires_grad:
            if not restart:
                return None
            leaf, handed_on = restarted(tensor)
            seen.sources.add(edge_of(leaf)[0])
            replaced = with_tensor(output, tensor, handed_on)
            tensor = handed_on
        edge = edge_of(tensor)
        made = seen.made.setdefault(edge, Made(kind))
        made.by.append((name, seen.runs[name]))
        if isinstance(output, Tensor):
            made.bare.add(name)
        seen.last[name] = edge
        if isinstance(module, nn.RNNBase):
            seen.told[edge] = tensor.ndim - 1
        return replaced

    return action
