"""What autograd has recorded of a run, as a graph of edges with shapes. Nothing is run here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from cfcam_core.cuts import cut_points

Edge = tuple[Any, int]
"""A node of autograd's graph and the number of one of its outputs: a tensor."""


def edge_of(tensor: Tensor) -> Edge:
    """Return the edge that stands for a tensor."""
    if tensor.grad_fn is not None:
        return (tensor.grad_fn, tensor.output_nr)
    with torch.inference_mode(False), torch.enable_grad():
        found = get_gradient_edge(tensor)
    return (found.node, found.output_nr)


def gradient_edge(edge: Edge) -> GradientEdge:
    """Return an edge as `torch.autograd.grad` takes it."""
    return GradientEdge(*edge)


def kind_of(node: Any) -> str:
    """Return the operator that a node belongs to, such as ``Convolution`` or ``Add``."""
    return re.sub(r"(Backward)?\d*$", "", node.name().rsplit("::", 1)[-1])


def shape_of(edge: Edge) -> tuple[int, ...]:
    """Return the shape of a tensor; nothing where it is not known."""
    node, number = edge
    variable = getattr(node, "variable", None)
    if variable is not None:
        return tuple(variable.shape)
    try:
        return tuple(int(size) for size in node._input_metadata[number].shape)  # noqa: SLF001
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return ()


def outputs_of(node: Any) -> int:
    """Return how many tensors an operator has made."""
    try:
        return len(node._input_metadata)  # noqa: SLF001 - the inputs of the reverse step
    except (AttributeError, RuntimeError):
        return 1


def parents(node: Any) -> list[Edge | None]:
    """Return what an operator has read; None for what needs no gradient."""
    return [None if one[0] is None else one for one in node.next_functions]


def in_order(ends: Iterable[Edge]) -> list[Any]:
    """Return all nodes before some tensors, what is read before what reads it."""
    found: dict[Any, None] = {}
    seen: set[Any] = set()
    stack = [(node, False) for node, _ in ends]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            found.setdefault(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((one[0], False) for one in node.next_functions if one[0] is not None)
    return list(found)


def cut_edges(nodes: Iterable[Any], sources: set[Any], end: Edge) -> set[Edge]:
    """Return the tensors that every path from the sources to the end runs through.

    Parameters
    ----------
    nodes : iterable of nodes
        All before the end, what is read before what reads it.
    sources : set of nodes
    end : Edge
    """
    steps = [
        (
            [edge for edge in parents(node) if edge is not None],
            [(node, number) for number in range(outputs_of(node))],
        )
        for node in nodes
        if node not in sources
    ]
    return set(cut_points(steps, [(node, 0) for node in sources], [end]))
