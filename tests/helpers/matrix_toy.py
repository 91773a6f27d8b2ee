"""A classifier of one matrix product, in NumPy: its curves can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

import cfcam_core as cfcam
from cfcam_core.targets import resolve_targets

Array = np.ndarray[Any, Any]


class MatrixToy(cfcam.Backend):
    """Logits ``sum_p weights[k, p] * x[p] + bias`` of pictures; the layer is the input itself.

    `batches` lists how many pictures it was asked about at a time.
    """

    input_layout = "channels_first"

    def __init__(self, weights: Any, bias: float = 0.0) -> None:
        self.weights = np.asarray(weights, np.float32)  # (K, C, *size)
        self.bias = bias
        self.batches: list[int] = []

    def layers(self) -> Any:
        return [cfcam.Layer("input", (None, *self.weights.shape[1:]), "Input", is_default=True)]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> cfcam.Capture:
        scores = self.scores(inputs)
        targets, cotangents = resolve_targets(target, scores)
        gradients = np.tensordot(cotangents, self.weights, 1)
        size = self.weights.shape[2:]
        return cfcam.Capture(inputs, gradients, scores, targets, layer="input", input_size=size)

    def scores(self, inputs: Any) -> Array:
        pictures = np.asarray(inputs, np.float64)
        self.batches.append(len(pictures))
        flat = self.weights.reshape(len(self.weights), -1)
        # one picture after the other: none shall depend on its batch, not even in the last bit
        logits = [(flat * picture.ravel()).sum(axis=1, dtype=np.float64) for picture in pictures]
        return np.asarray(np.stack(logits) + self.bias, np.float32)

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Array:
        return self.scores(activations)
