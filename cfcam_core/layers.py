"""What users call the layers of a model, and which one is meant if they name none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.backend import Layer
from cfcam_core.errors import LayerNotFoundError

FINE = 3
"""Least positions an axis of a default layer, where the model has such a layer."""


def find_layer(
    layer: Any,
    layers: Sequence[Layer],
    *,
    parts: Mapping[str, Any] | None = None,
    names: Iterable[str] | None = None,
) -> str:
    """Return the name that is meant by a name, an index into `layers`, a `Layer` or None.

    Parameters
    ----------
    layer : str, int, Layer, object of the framework, or None
    layers : sequence of Layer
        What is listed, the default marked.
    parts : mapping of str to object, optional
        The model's layers by name: then one of these objects will do for `layer`.
    names : iterable of str, optional
        All that may be named. Default: any name will do.

    Raises
    ------
    LayerNotFoundError
        The index is out of range, there is no default or no such name, or it is none of these.
    """
    name = _meant(layer, layers, parts)
    if names is not None and name not in names:
        raise unknown_layer(name, names)
    return name


def _meant(layer: Any, layers: Sequence[Layer], parts: Mapping[str, Any] | None) -> str:
    for name, part in (parts or {}).items():
        if part is layer:
            return name
    if layer is None:
        default = next((one.name for one in layers if one.is_default), None)
        if default is None:
            raise LayerNotFoundError(
                "the model has no layer with a spatial grid that all paths run through; "
                'name one with layer=, or pass layer="input"'
            )
        return default
    if isinstance(layer, int | np.integer) and not isinstance(layer, bool):
        if not -len(layers) <= layer < len(layers):
            there = f", 0 to {len(layers) - 1}" if layers else ""
            raise LayerNotFoundError(
                f"layer {layer} is out of range: the model has {len(layers)} layers{there}"
            )
        return layers[int(layer)].name
    name = layer.name if isinstance(layer, Layer) else layer
    if not isinstance(name, str):
        also = "" if parts is None else ", one of the model's own layers"
        raise LayerNotFoundError(
            f"layer {layer!r} is a {type(layer).__name__}; pass a name, an index{also} or None"
        )
    return name


def unknown_layer(name: str, names: Iterable[str]) -> LayerNotFoundError:
    """Return the error for a name that no layer has, with those closest to it."""
    names = list(names)
    close = get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
    return LayerNotFoundError(
        f"the model has no layer {name!r}; the closest names are {', '.join(close) or '(none)'}"
    )


def find_default(
    shapes: Sequence[tuple[int, ...]],
    axes: int,
    gradient: Callable[[int], NDArray[Any] | None],
    is_cut: Callable[[int], bool] | None = None,
) -> int | None:
    """Return which map is explained if none is named: the last that shows where.

    All paths from the input run through it, the gradient of a logit is not zero on it, and in more
    than one channel, where there is such a map: that leaves out maps of single classes, and patches
    that only a class token would be read from. Where all gradients are zero, as behind units that
    are dead on this input, the last map will do. Maps with as many spatial axes as the input, and
    at least `FINE` positions an axis, go first.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of each map (N, C, *s), in the order of execution. Those that only pool, pad or move what
        others have made should not be among them.
    axes : int
        Number of spatial axes of the input.
    gradient : callable
        Takes the number of a map; returns the gradient of one logit a sample with respect to it,
        channels first, or None where there is none. Asked from the last map on, as is `is_cut`.
    is_cut : callable, optional
        Takes the number of a map; returns whether all paths from the input run through it. Default:
        they run through each.
    """
    order = sorted(
        (i for i, shape in enumerate(shapes) if min(shape[2:], default=0) >= 2),
        key=lambda i: (len(shapes[i]) == axes + 2, min(shapes[i][2:]) >= FINE, i),
        reverse=True,
    )
    for least in (2, 1, 0):  # channels
        for i in order:
            found = gradient(i)
            if found is None or _channels_with_gradient(found) < least:
                continue
            if is_cut is None or is_cut(i):
                return i
    return None


def _channels_with_gradient(gradient: NDArray[Any]) -> int:
    """Return in how many channels of the first sample the gradient differs from zero."""
    return int(gradient[0].reshape(gradient.shape[1], -1).any(axis=1).sum())


def is_bottleneck(swapped: NDArray[Any], own: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether all that a model knows of its input has gone through a layer, by trial.

    Parameters
    ----------
    swapped : ndarray of shape (N, K)
        Logits of one input, with the layer's output on an other input put in its place.
    own, other : ndarray of shape (N, K)
        Logits of that input, and of the other.

    Notes
    -----
    Ours. If nothing goes past the layer, `swapped` equals `other`: the distance between the two is
    compared with that between `own` and `other`.
    """
    scale = np.abs(own - other).max()
    return bool(np.abs(swapped - other).max() <= 1e-2 * scale + 1e-5 * np.abs(other).max())
