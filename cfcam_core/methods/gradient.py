"""Methods that need activations and gradients alone, and one pass over them.

Below, A_c and G_c are the activations and gradients of channel c, i and j are positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.cam import Cam, projection, rows
from cfcam_core.capture import FloatArray
from cfcam_core.settings import Settings


def grad_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """Grad-CAM: ``sum_c mean(G_c) A_c`` (Selvaraju et al. 2017, equations 1 and 2)."""
    weights = gradients.mean(axis=_spatial(gradients))
    return Cam(np.tensordot(weights, activations, 1), weights)


def grad_cam_plus_plus(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """Grad-CAM++: ``sum_c w_c A_c`` with ``w_c = sum_i a_ci relu(G_ci)``.

    There ``a_ci = G_ci^2 / (2 G_ci^2 + (sum_j A_cj) G_ci^3)`` (Chattopadhyay et al. 2018, equations
    10 and 19). The paper explains the exponential of the logit: that gives all gradients the same
    factor, which vanishes when a map is normalised and is left out. Where the denominator is 0,
    a_ci is.
    """
    first = gradients.astype(np.float64)
    weights = weights_of_derivatives(activations, first, first**2, first**3)
    return Cam(np.tensordot(weights, activations, 1), weights)


def xgrad_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """XGrad-CAM: ``sum_c w_c A_c`` with ``w_c = sum_i G_ci A_ci / sum_j A_cj`` (Fu et al. 2020).

    A channel whose activations sum to 0 gets the weight 0.
    """
    A = rows(activations).astype(np.float64)
    weights = _quotient(np.vecdot(rows(gradients), A), A.sum(axis=1))
    return Cam(np.tensordot(weights, activations, 1), weights)


def hires_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """HiResCAM: ``sum_c G_c * A_c`` (Draelos and Carin 2020, equation 2)."""
    return _summed(gradients * activations, activations)


def layer_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """LayerCAM: ``sum_c relu(G_c) * A_c`` (Jiang et al. 2021)."""
    return _summed(np.maximum(gradients, 0) * activations, activations)


def weights_of_derivatives(
    activations: FloatArray,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    third: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return ``sum_i D2_ci / (2 D2_ci + (sum_j A_cj) D3_ci) relu(D1_ci)`` for each channel.

    D1 to D3 stand for the first three derivatives, each (C, *s), as Grad-CAM++ takes them: the
    powers of the gradient. A quotient by 0 is 0.
    """
    axes = _spatial(activations)
    totals = activations.sum(axis=axes, dtype=np.float64, keepdims=True)
    shares = _quotient(second, 2 * second + totals * third)
    return np.asarray((shares * np.maximum(first, 0)).sum(axis=axes))


def _summed(terms: FloatArray, activations: FloatArray) -> Cam:
    """Return the map that is the sum of the channels' terms (C, *s)."""
    return Cam(terms.sum(axis=0), projection(terms, activations))


def _quotient(above: NDArray[Any], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``above / below``, 0 where `below` is 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(below), where=below != 0))


def _spatial(maps: NDArray[Any]) -> tuple[int, ...]:
    """Return the axes behind that of the channels."""
    return tuple(range(1, maps.ndim))
