"""Arrays turned: from what the core has to what programs take, and back. Nothing is run here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import Capture
from cfcam_core.targets import resolve_targets
from cfcam_core.tokens import Fold
from cfcam_onnx._classifier import Classifier
from cfcam_onnx._layers import Site


def seeds(
    model: Classifier, target: Any, samples: int, *, scores: Callable[[], NDArray[np.float32]]
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return classes and cotangents; `scores` are asked for only if the target needs them.

    For the arg-max (None) both only hold a place: the program finds them itself.
    """
    classes = model.classes
    if target is None:
        targets, cotangents = np.full(samples, -1), np.zeros((samples, classes or 1), np.float32)
    elif callable(target) or classes is None:
        targets, cotangents = resolve_targets(target, scores())
    else:
        logits = np.broadcast_to(np.float32(0), (samples, classes))
        targets, cotangents = resolve_targets(target, logits)
    double = model.graph.dtype(model.logits) == np.float64
    return targets, cotangents.astype(np.float64) if double else cotangents


def captured(
    model: Classifier,
    where: Site,
    pair: Sequence[NDArray[Any]],
    *,
    feeds: Mapping[str, NDArray[Any]],
    logits: NDArray[Any],
    targets: NDArray[np.intp],
) -> Capture:
    """Return a layer's activations and gradients as the core has them: channels first."""
    source = model.layers.input_of(where)
    size = source.size(feeds) if source else None
    activations, gradients = (np.moveaxis(array, where.channels, 1) for array in pair)
    fold = model.fold(where, activations.shape[-1], size)
    if fold is not None:
        activations, gradients = fold.maps(activations), fold.maps(gradients)
    return Capture(activations, gradients, logits, targets, where.name, size)


def as_layer(where: Site, maps: NDArray[Any], tokens: NDArray[Any] | None) -> NDArray[Any]:
    """Return maps (N, C, *s) as the layer has them; `tokens` are its own, if some have no place."""
    if where.prefix is not None:
        own = maps[:, :, 0, :0] if tokens is None else tokens
        maps = Fold(where.prefix, maps.shape[2:]).tokens(maps, own)
    return np.ascontiguousarray(np.moveaxis(maps, 1, where.channels))
