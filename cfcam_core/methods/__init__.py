"""The CAM methods by name: each a short pure function from one sample's arrays to one map.

A method takes activations and gradients of shape (C, *s) and `Settings`, and returns a `Cam`; one
that asks the model gets a `Probe` besides. Adding one is adding a line to the table, or
`register_method`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cfcam_core.cam import Cam
from cfcam_core.capture import FloatArray
from cfcam_core.cf_cam import cf_cam
from cfcam_core.errors import InvalidInputError
from cfcam_core.methods.asking import ablation_cam, score_cam, smooth_grad_cam_plus_plus
from cfcam_core.methods.chance import random_map
from cfcam_core.methods.eigen import eigen_cam, eigen_grad_cam
from cfcam_core.methods.gradient import (
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from cfcam_core.probe import Probe
from cfcam_core.settings import Settings


@dataclass(frozen=True, slots=True)
class Method:
    """One way to make a map."""

    function: Callable[..., Cam]
    """Takes activations (C, *s), gradients (C, *s) and `Settings`."""
    source: str
    """Where it is from, for people."""
    asks_model: bool = False
    """Whether the function takes a `Probe` besides: then it needs a model, arrays will not do."""
    uses_gradients: bool = True
    """Whether the map follows from the gradients it is given: zeros then leave nothing to show."""

    def cam(
        self,
        activations: FloatArray,
        gradients: FloatArray,
        settings: Settings,
        probe: Probe | None,
    ) -> Cam:
        """Run the method on one sample, and check what it returns: it may be a user's."""
        asked = (probe,) if self.asks_model else ()
        cam = self.function(activations, gradients, settings, *asked)
        channels, *size = activations.shape
        came = f"a {type(cam).__name__}"
        if isinstance(cam, Cam):
            shapes = np.shape(cam.map), np.shape(cam.weights)
            if shapes == ((*size,), (channels,)):
                return cam
            came = f"a map of shape {shapes[0]} and weights of shape {shapes[1]}"
        raise InvalidInputError(
            f"the method made {came} of activations {activations.shape}; wanted a Cam with a map "
            f"of shape {(*size,)} and weights of shape {(channels,)}"
        )


_TABLE = {
    "cf-cam": Method(cf_cam, "arXiv 2504.00060"),
    "grad-cam": Method(grad_cam, "arXiv 1610.02391"),
    "grad-cam++": Method(grad_cam_plus_plus, "arXiv 1710.11063"),
    "xgrad-cam": Method(xgrad_cam, "arXiv 2008.02312"),
    "hires-cam": Method(hires_cam, "arXiv 2011.08891"),
    "layer-cam": Method(layer_cam, "IEEE Transactions on Image Processing 30 (2021)"),
    "eigen-cam": Method(eigen_cam, "arXiv 2008.00299", uses_gradients=False),
    "eigen-grad-cam": Method(eigen_grad_cam, "pytorch-grad-cam"),
    "score-cam": Method(score_cam, "arXiv 1910.01279", asks_model=True, uses_gradients=False),
    "ablation-cam": Method(ablation_cam, "WACV 2020", asks_model=True, uses_gradients=False),
    "smooth-grad-cam++": Method(
        smooth_grad_cam_plus_plus, "arXiv 1908.01224", asks_model=True, uses_gradients=False
    ),
    "random": Method(random_map, "ours: the level of chance", uses_gradients=False),
}

METHODS: Mapping[str, Method] = MappingProxyType(_TABLE)
"""All methods, those of users included."""


def methods() -> tuple[str, ...]:
    """Return the names that ``method=`` takes."""
    return tuple(METHODS)


def without_asking() -> str:
    """Return, as part of an advice, the methods that do not ask the model."""
    names = ", ".join(name for name, method in METHODS.items() if not method.asks_model)
    return f"a method that does not ask: {names}"


def find_method(name: str) -> Method:
    """Return the method of that name, or raise `InvalidInputError` with the names there are."""
    if not isinstance(name, str) or name not in METHODS:
        raise InvalidInputError(f"there is no method {name!r}; allowed are {', '.join(METHODS)}")
    return METHODS[name]


def register_method(
    name: str,
    function: Callable[..., Cam],
    *,
    source: str = "",
    asks_model: bool = False,
    uses_gradients: bool = True,
) -> None:
    """Add a method of your own, for this process.

    Parameters
    ----------
    name : str
        What ``method=`` and ``--method`` will take.
    function : callable
        Takes one sample's activations and gradients, both read-only float32 of shape (C, *s), and
        `Settings`, and returns a `cfcam_core.Cam`: a signed map (*s) and the channels' weights
        (C,). The same arrays must give the same map.
    source : str
        Where it is from, for people.
    asks_model : bool
        Whether `function` takes a fourth argument, a `cfcam_core.probe.Probe`: the sample's picture
        and layer as functions.
    uses_gradients : bool
        Whether gradients that are zero everywhere leave nothing to show.

    Raises
    ------
    InvalidInputError
        There is a method of that name, or `function` cannot be called.

    Examples
    --------
    >>> import functools
    >>> from cfcam_core.methods.asking import smooth_grad_cam_plus_plus
    >>> rough = functools.partial(smooth_grad_cam_plus_plus, samples=4)
    >>> register_method("rough-grad-cam++", rough, asks_model=True)  # doctest: +SKIP
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name={name!r} is no name for a method; pass text")
    if not callable(function):
        raise InvalidInputError(
            f"function is a {type(function).__name__}; pass one that takes activations, gradients "
            "and settings and returns a Cam"
        )
    if name in METHODS:
        raise InvalidInputError(f"there is a method {name!r} already; choose another name")
    _TABLE[name] = Method(function, source, asks_model, uses_gradients)
