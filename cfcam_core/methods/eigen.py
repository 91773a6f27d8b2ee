"""Methods that show the main direction of the channels: a singular vector in place of weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from cfcam_core.cam import Cam, projection, rows
from cfcam_core.capture import FloatArray
from cfcam_core.settings import Settings


def eigen_cam(activations: FloatArray, _gradients: FloatArray, _settings: Settings) -> Cam:
    """Eigen-CAM: ``sum_c v_c A_c``, v the main direction of the channels.

    v is the first right singular vector of the matrix (positions x channels) of activations
    (Muhammad and Yeasin 2020). No class has a part in it. The sign of v is open; ours makes the sum
    of the map not negative. pytorch-grad-cam takes each channel's mean away first, and leaves the
    sign to the decomposition.
    """
    matrix = rows(activations).astype(np.float64)
    weights = leading(matrix)
    flat = weights @ matrix
    sign = -1 if flat.sum() < 0 else 1
    return Cam(sign * flat.reshape(activations.shape[1:]), sign * weights)


def eigen_grad_cam(activations: FloatArray, gradients: FloatArray, _settings: Settings) -> Cam:
    """Eigen-Grad-CAM: ``sum_c v_c X_c`` with ``X_c = G_c * A_c - mean(G_c * A_c)``.

    v is the first right singular vector of the matrix (positions x channels) of these. It has no
    paper; pytorch-grad-cam defines it. The sign of v, left to the decomposition there, is ours: the
    map goes along with ``sum_c G_c * A_c``.
    """
    contributions = rows(gradients).astype(np.float64) * rows(activations)
    centred = contributions - contributions.mean(axis=1, keepdims=True)
    weights = leading(centred)
    flat = weights @ centred
    if flat @ contributions.sum(axis=0) < 0:
        flat, weights = -flat, -weights
    terms = np.asarray(weights[:, None] * centred, np.float32)
    return Cam(flat.reshape(activations.shape[1:]), projection(terms, rows(activations)))


def leading(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first left singular vector (C,) of a matrix (C, P); zeros for a matrix of zeros.

    From the first eigenvector of the smaller of its two Gram matrices.
    """
    channels, positions = matrix.shape
    if not matrix.any():
        return np.zeros(channels)
    scaled = matrix / np.abs(matrix).max()
    if channels <= positions:
        return _last_eigenvector(scaled @ scaled.T)
    vector = scaled @ _last_eigenvector(scaled.T @ scaled)
    return np.asarray(vector / np.linalg.norm(vector))


def _last_eigenvector(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the eigenvector of the largest eigenvalue of a symmetric matrix."""
    last = len(gram) - 1
    _, vectors = eigh(gram, subset_by_index=[last, last])
    return np.asarray(vectors[:, 0])
