"""The CAM methods by name: each a short pure function from one sample's arrays to one map.

A method takes activations and gradients of shape (C, *s) and `Settings`, and returns a `Cam`.
Adding one is adding a line to `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from cfcam_core.cam import Cam, projection
from cfcam_core.capture import FloatArray
from cfcam_core.cf_cam import cf_cam
from cfcam_core.errors import InvalidInputError
from cfcam_core.settings import Settings

Method = Callable[[FloatArray, FloatArray, Settings], Cam]


def grad_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """Grad-CAM: ``sum_c mean(G_c) A_c`` (Selvaraju et al. 2017, equations 1 and 2)."""
    weights = gradients.mean(axis=tuple(range(1, gradients.ndim)))
    return Cam(np.tensordot(weights, activations, 1), weights)


def hires_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """HiResCAM: ``sum_c G_c * A_c`` (Draelos and Carin 2020, equation 2)."""
    contributions = gradients * activations
    return Cam(contributions.sum(axis=0), projection(contributions, activations))


METHODS: Mapping[str, Method] = MappingProxyType(
    {"cf-cam": cf_cam, "grad-cam": grad_cam, "hires-cam": hires_cam}
)


def methods() -> tuple[str, ...]:
    """Return the names that ``method=`` takes."""
    return tuple(METHODS)


def find_method(name: str) -> Method:
    """Return the method of that name, or raise `InvalidInputError` with the names there are."""
    if not isinstance(name, str) or name not in METHODS:
        raise InvalidInputError(f"there is no method {name!r}; allowed are {', '.join(METHODS)}")
    return METHODS[name]
