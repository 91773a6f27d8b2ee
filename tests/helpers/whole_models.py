"""Opening whole ONNX models, images for them, and the slopes their gradients must have."""

from __future__ import annotations

from typing import Any

import cfcam_onnx
import numpy as np
from cfcam_onnx import OnnxBackend

RNG = np.random.default_rng(5)
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


def images(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape or (3, 3, 12, 10)).astype(np.float32)


def opened(model: Any, **how: Any) -> OnnxBackend:
    return cfcam_onnx.open_model(model, threads=1, **how)


def numeric_gradient(backend: OnnxBackend, x: np.ndarray, layer: str, klass: int) -> np.ndarray:
    """Central differences of one logit and the gradient, both along a few random directions."""
    capture = backend.capture(x, layer=layer, target=klass)
    step, found = 1e-2, []
    for _ in range(8):
        v = RNG.standard_normal(capture.activations.shape).astype(np.float32)
        ahead = backend.scores_from(capture.activations + step * v, x, layer=layer)
        behind = backend.scores_from(capture.activations - step * v, x, layer=layer)
        slope = ((ahead - behind) / (2 * step))[:, klass]
        found.append([slope, (capture.gradients * v).reshape(len(x), -1).sum(axis=1)])
    return np.array(found)


def default_of(backend: OnnxBackend) -> str:
    (name,) = [layer.name for layer in backend.layers() if layer.is_default]
    return name
