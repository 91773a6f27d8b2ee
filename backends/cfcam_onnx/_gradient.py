"""The reverse sweep: from a cotangent of the logits to one of any tensor they depend on.

The only place that walks a graph backwards and adds cotangents up. The rules are looked up, not
known, and the model's own nodes are never changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx

from cfcam_onnx._broadcast import unbroadcast
from cfcam_onnx._emit import Emitter
from cfcam_onnx._graph import STANDARD, Graph, operator, reads
from cfcam_onnx._quantized import Carriers, is_zero
from cfcam_onnx._rules import INTEGER_ARITHMETIC, RULES, Rule
from cfcam_onnx._tensor import Node, Tensor


@dataclass(slots=True)
class Problems:
    """Nodes that no gradient gets through, by operator and reason."""

    nodes: dict[tuple[str, str], list[onnx.NodeProto]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, node: onnx.NodeProto, reason: str) -> None:
        """Note that a node cannot be differentiated."""
        self.nodes[operator(node), reason].append(node)

    @property
    def outputs(self) -> set[str]:
        """What the nodes make."""
        return {name for nodes in self.nodes.values() for node in nodes for name in node.output}

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def __str__(self) -> str:
        # the sweep runs backwards: the last node noted is the first of the model
        return "; ".join(
            f"{name} ({len(nodes)}x, first at {nodes[-1].name or nodes[-1].output[0]!r}): {reason}"
            for (name, reason), nodes in sorted(self.nodes.items())
        )


def differentiable_tensors(graph: Graph, logits: str) -> set[str]:
    """Return the tensors that have a gradient: no operator without a rule is on a way to `logits`.

    Only ways through floats count, quantized ones among them, and none through operators whose
    gradient is zero.
    """
    carriers, leading, blocked = Carriers.of(graph), {logits}, set[str]()
    for node in reversed(graph.needed([logits])):
        if is_zero(node) or not leading.intersection(node.output):
            continue
        floats = {name for name in reads(node) if name in carriers}
        leading |= floats
        if _rule(node, carriers) is None or blocked.intersection(node.output):
            blocked |= floats
    return leading - blocked


def active_tensors(graph: Graph, targets: Iterable[str], logits: str) -> set[str]:
    """Return the float tensors between any of `targets` and `logits`, those included, if any."""
    carriers = Carriers.of(graph)
    nodes = [node for node in graph.needed([logits]) if not is_zero(node)]
    after = set(targets)
    for node in nodes:
        if after.intersection(reads(node)):
            after.update(name for name in node.output if name and name in carriers)
    before = {logits}
    for node in reversed(nodes):
        if before.intersection(node.output):
            before.update(name for name in reads(node) if name in carriers)
    return after & before


def ends_of_floats(graph: Graph, target: str, logits: str) -> list[onnx.NodeProto]:
    """Return the nodes that turn numbers computed from `target` into integers on their way."""
    carriers, after, found = Carriers.of(graph), {target}, []
    for node in graph.needed([logits]):
        if is_zero(node) or not after.intersection(reads(node)):
            continue
        floats = [name for name in node.output if name and name in carriers]
        after.update(floats)
        if not floats:
            found.append(node)
    return found


def sweep(
    emit: Emitter, targets: Sequence[str], logits: str, cotangent: Tensor
) -> tuple[dict[str, Tensor], Problems]:
    """Emit the gradients of ``sum(cotangent * logits)`` with respect to `targets`, in one pass.

    Returns
    -------
    gradients : dict of str to Tensor
        One a target; empty if there are problems, or if the logits do not depend on a target.
    problems : Problems
        All nodes that could not be differentiated, not only the first.
    """
    active, carriers = active_tensors(emit.graph, targets, logits), Carriers.of(emit.graph)
    problems = Problems()
    if not active.issuperset(targets):
        for target in set(targets) - active:
            for proto in reversed(ends_of_floats(emit.graph, target, logits)):
                problems.add(proto, _reason(proto, carriers) or "no gradient gets through integers")
        return {}, problems
    parts: dict[str, list[Tensor]] = defaultdict(list)
    parts[logits].append(cotangent)
    for proto in reversed(emit.graph.needed([logits])):
        gs = [_total(parts[name]) if name in active else None for name in proto.output]
        read = active.intersection(reads(proto))
        if not read or not any(gs) or is_zero(proto):
            continue
        node = emit.node(proto)
        try:
            found = _apply(emit, node, gs, active, carriers)
        except NotImplementedError as reason:
            problems.add(proto, str(reason))
            found = dict.fromkeys(read, cotangent)  # go on, to find the other problems too
        for name, g in found.items():
            parts[name].append(g)
    totals = {target: _total(parts[target]) for target in targets}
    if problems:
        return {}, problems
    return {name: total for name, total in totals.items() if total is not None}, problems


def _apply(
    emit: Emitter,
    node: Node,
    gs: Sequence[Tensor | None],
    active: set[str],
    carriers: Carriers,
) -> dict[str, Tensor]:
    """Return the cotangent of each active input."""
    rule = _rule(node.proto, carriers)
    if rule is None:
        raise NotImplementedError(_reason(node.proto, carriers) or "no gradient rule")
    if rule.every_output:
        cotangents = rule.function(emit, node, *gs)
    elif gs[0] is None or any(gs[1:]):
        raise NotImplementedError("the logits depend on an output other than the first")
    else:
        cotangents = rule.function(emit, node, gs[0])
    found: dict[str, Tensor] = {}
    for i, x in enumerate(node.inputs):
        if x is None or x.own not in active:
            continue
        g = cotangents[i] if i < len(cotangents) else None
        if g is None:
            raise NotImplementedError(f"no gradient with respect to input {i}")
        g = _unbroadcast(emit, g, node, x, rule)
        found[x.own] = found[x.own] + g if x.own in found else g
    return found


def _unbroadcast(emit: Emitter, g: Tensor, node: Node, x: Tensor, rule: Rule) -> Tensor:
    """Return `g` added up over the axes along which the operator repeated `x`.

    An operand with more axes than the result, or with fewer than the operator works on, was not
    repeated: the rule has given its cotangent as it is.
    """
    core, small, large = rule.broadcasts, x.shape, node.y.shape
    if core is None:
        return g
    if small is not None and large is not None:
        if len(small) < core or len(small) > len(large):
            return g
        large = (*large[: len(large) - core], *small[len(small) - core :])
    return unbroadcast(emit, g, x, large, core)


def _total(parts: list[Tensor]) -> Tensor | None:
    """Add up what came in from all readers of a tensor; the sum is kept for the next who asks."""
    while len(parts) > 1:
        parts[:2] = [parts[0] + parts[1]]
    return parts[0] if parts else None


def _rule(node: onnx.NodeProto, carriers: Carriers) -> Rule | None:
    """Return the rule, which arithmetic on integers that stand for floats has none of."""
    if node.domain not in STANDARD or carriers.compute_in(node):
        return None
    return RULES.get(node.op_type)


def _reason(node: onnx.NodeProto, carriers: Carriers) -> str | None:
    """Return what to do about an operator that other tools have put into a model."""
    known = node.op_type in INTEGER_ARITHMETIC or node.op_type.startswith("QLinear")
    if known or carriers.compute_in(node):
        return "quantized arithmetic; quantize the model in the QDQ format instead"
    if node.domain not in STANDARD:
        return "no gradient rule; pass the model as it was before it was optimized for a runtime"
    return None
