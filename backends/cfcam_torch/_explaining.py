"""One run and the gradients of the explained scores with respect to some layers' outputs.

Nothing is recorded before the first of these layers, and no gradient of a weight is ever computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cfcam_core.errors import InvalidInputError, LayerNotFoundError
from cfcam_core.targets import resolve_targets
from cfcam_torch._inputs import Feeds, samples
from cfcam_torch._outputs import (
    Closing,
    Output,
    find_output,
    first_tensor,
    no_classifier,
    numpy_of,
    shown,
    tensors_of,
    with_tensor,
)
from cfcam_torch._running import Action, modules_of, restarted, run, undisturbed

INPUT = "input"
"""Name of the first picture, signal or volume among the inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """What one run gave."""

    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    """What a layer returned and the gradient with respect to it, by the layer's name."""
    scores: NDArray[np.float32] | None
    targets: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the output of a run is read."""

    output: Any
    """What the user says of where the logits are."""
    closed: bool
    """Whether the logits are closed off and to be looked through to."""

    def of(
        self,
        model: nn.Module,
        feeds: Feeds,
        actions: Any = (),
        *,
        record: bool,
        count: int | None = None,
    ) -> Output:
        """Run the model and return its output as a classifier's, of `count` samples if given."""
        with Closing() if self.closed else nullcontext() as watch:
            raw = run(model, feeds, actions, record=record)
            with torch.set_grad_enabled(torch.is_grad_enabled() or bool(actions) or record):
                return find_output(raw, count or samples(feeds), self.output, watch)


class Seed:
    """What is differentiated: the explained scores of an output; a target is resolved once."""

    def __init__(self, target: Any, count: int) -> None:
        self._target, self._count = target, count
        self._resolved: tuple[NDArray[np.intp], NDArray[np.float32]] | None = None
        self.scores: NDArray[np.float32] | None = None

    @property
    def targets(self) -> NDArray[np.intp]:
        """Classes, (N,); -1 where there is no single one."""
        return np.full(self._count, -1) if self._resolved is None else self._resolved[0]

    def of(self, output: Output) -> tuple[Tensor, Tensor]:
        """Return a tensor and the cotangent that belongs to it."""
        if output.logits is None:
            value = self._asked(output.raw)
            return value, torch.ones_like(value)
        if self._resolved is None:
            self.scores = numpy_of(output.logits)
            self._resolved = resolve_targets(self._target, self.scores)
        return output.logits, torch.from_numpy(self._resolved[1]).to(output.logits)

    def _asked(self, raw: Any) -> Tensor:
        if not callable(self._target):
            raise no_classifier(shown(raw), self._count)
        with torch.enable_grad():
            value = self._target(raw)
        if not isinstance(value, Tensor) or value.shape not in {(), (self._count,)}:
            raise InvalidInputError(
                f"the target made {shown(value)} of the model's output, {shown(raw)}; wanted a "
                f"tensor, scalar or of shape ({self._count},), that depends on it"
            )
        return value


def explained(
    model: nn.Module,
    feeds: Feeds,
    layers: Mapping[str, nn.Module | None],
    *,
    source: str | None,
    target: Any,
    reading: Reading,
    slow: set[str],
) -> Explained:
    """Run the model and return layers' outputs and gradients.

    Parameters
    ----------
    model : nn.Module
    feeds : dict of str to Tensor
    layers : mapping of str to nn.Module
        By name; None for the input itself.
    source : str, optional
        Name of the input that counts as the picture.
    target : optional
        As for `cfcam_core.targets.resolve_targets`, or of the raw output where that is no
        classifier's.
    reading : Reading
    slow : set of str
        Layers known to need gradients recorded from the start; grows.

    Raises
    ------
    InvalidInputError
        The model fails, is no classifier, or the target does not fit.
    LayerNotFoundError
        A layer does not run, or the scores do not depend on it.
    """
    seed = Seed(target, samples(feeds))
    from_start = INPUT in layers or bool(slow.intersection(layers)) or _has_backward_hooks(model)
    with undisturbed(model):
        for record in (False, True)[from_start:]:
            made: dict[str, Tensor] = {}
            versions: dict[str, int] = {}
            own = _prepared(feeds, made, source, record=record, explain_input=INPUT in layers)
            actions = [
                (m, _leaf(made, versions, name)) for name, m in layers.items() if m is not None
            ]
            output = reading.of(model, own, actions, record=record)
            _check_unchanged(made, versions)
            value, cotangent = seed.of(output)
            gradients = _gradients(value, cotangent, made)
            missing = [name for name in layers if gradients.get(name) is None]
            if not missing:
                break
            if record:
                if output.logits is None and not value.requires_grad and is_differentiable(output):
                    raise InvalidInputError(
                        f"the target made {shown(value)} without a gradient; it must depend on the "
                        "model's output, by operations that have one"
                    )
                raise _unreached(missing[0], made, is_blind=not value.requires_grad)
            slow.update(missing)
        arrays = {name: (made[name], gradients[name]) for name in layers}
        pairs = {
            name: (numpy_of(a), numpy_of(g)) for name, (a, g) in arrays.items() if g is not None
        }
    return Explained(pairs, seed.scores, seed.targets)


def replaced(
    turn: int, change: Callable[[NDArray[np.float32]], NDArray[Any]]
) -> tuple[Action, list[bool]]:
    """Return what puts changed numbers in the place of a layer's own, in one of its runs.

    Parameters
    ----------
    turn : int
        Which of its runs; the first is 1.
    change : callable
        Takes the layer's own array, returns the one to put in its place.

    Returns
    -------
    action : callable
    runs : list of bool
        Grows with each of its runs: whether it returned the tensor as it is.
    """
    runs: list[bool] = []

    def action(output: Any) -> Any:
        runs.append(isinstance(output, Tensor))
        tensor = first_tensor(output)
        if tensor is None or len(runs) != turn:
            return None
        array = torch.from_numpy(np.array(change(numpy_of(tensor)), np.float32))
        return with_tensor(output, tensor, array.to(tensor))

    return action, runs


def _has_backward_hooks(model: nn.Module) -> bool:
    """Return whether the user watches gradients, which then flow through all of the model."""
    return any(m._backward_hooks or m._backward_pre_hooks for m in modules_of(model))  # noqa: SLF001


def _prepared(
    feeds: Feeds, made: dict[str, Tensor], source: str | None, *, record: bool, explain_input: bool
) -> Feeds:
    """Return the inputs of a run; where all is recorded, as tensors that gradients flow to."""
    if not record:
        return feeds
    own = dict(feeds)
    for name, value in feeds.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            leaf = value.detach().requires_grad_()
            if explain_input and name == source:
                made[INPUT] = leaf
            own[name] = leaf
    return own


def _leaf(made: dict[str, Tensor], versions: dict[str, int], name: str) -> Action:
    """Return what takes note of a layer's output and records gradients from there on."""

    def action(output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None:
            return None
        made[name], handed_on = restarted(tensor)
        versions[name] = made[name]._version  # noqa: SLF001 - autograd's count of changes in place
        return with_tensor(output, tensor, handed_on)

    return action


def _check_unchanged(made: Mapping[str, Tensor], versions: Mapping[str, int]) -> None:
    """Refuse a layer whose output the model has changed under another name."""
    for name, version in versions.items():
        if made[name]._version != version:  # noqa: SLF001
            raise LayerNotFoundError(
                f"layer {name!r} hands on what it got, and the model changes that in place by "
                "another name; name the layer before it, or the one behind"
            )


def _gradients(
    value: Tensor, cotangent: Tensor, made: Mapping[str, Tensor]
) -> dict[str, Tensor | None]:
    if not value.requires_grad or not made:
        return {}
    try:
        found: Sequence[Tensor | None] = torch.autograd.grad(
            value, list(made.values()), cotangent, allow_unused=True
        )
    except RuntimeError as error:
        raise InvalidInputError(
            f"torch cannot differentiate the model from {', '.join(made)} on: {error}"
        ) from error
    return dict(zip(made, found, strict=True))


def is_differentiable(output: Output) -> bool:
    """Return whether any tensor in a model's output has a gradient."""
    return any(tensor.requires_grad for tensor in tensors_of(output.raw))


def _unreached(name: str, made: Mapping[str, Tensor], *, is_blind: bool) -> LayerNotFoundError:
    """Return the error for a layer without a gradient."""
    if name not in made:
        why = "it did not run on these inputs"
    elif is_blind:
        why = (
            "behind it the model detaches what it computes, runs under torch.no_grad, or has "
            "quantized operators, which have no gradient"
        )
    else:
        why = "the scores do not depend on it, or the model detaches what it returns"
    return LayerNotFoundError(
        f"layer {name!r} has no gradient: {why}; name another layer, such as one of layers()"
    )
