"""A model small enough for numbers on paper: a few functions of each pixel, and a linear head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import cfcam_core as cfcam
from cfcam_core.targets import resolve_targets

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Toy(cfcam.Backend):
    """Pictures (N, 1, *s), maps ``A_c = features[c](x)``, logits ``sum_c heads[k, c] sum(A_c)``.

    With `shortcut` the sum of the picture's pixels is added to all logits, past the layer.
    """

    heads: Any
    features: tuple[Callable[[Array], Array], ...] = (
        lambda x: x,
        lambda x: (x - 3) ** 2,
        lambda x: np.full_like(x, 5),
    )
    shortcut: float = 0
    input_layout: str = "channels_first"
    asked: list[int] = field(default_factory=list)
    """How many pictures or activations came at a time."""

    def layers(self) -> Any:
        return [cfcam.Layer("maps", (None, len(self.features), None), "Toy", is_default=True)]

    def activations(self, inputs: Any) -> Array:
        x = np.asarray(inputs, np.float32)
        x = x[..., 0] if self.input_layout == "channels_last" else x[:, 0]
        return np.stack([feature(x) for feature in self.features], axis=1).astype(np.float32)

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> cfcam.Capture:
        A, scores = self.activations(inputs), self.scores(inputs)
        targets, cotangents = resolve_targets(target, scores)
        G = np.zeros_like(A) + (cotangents @ self.heads).reshape(*A.shape[:2], *[1] * (A.ndim - 2))
        sizes = np.shape(inputs)
        size = sizes[1:-1] if self.input_layout == "channels_last" else sizes[2:]
        return cfcam.Capture(A, G, scores, targets, layer=layer or "maps", input_size=size)

    def scores(self, inputs: Any) -> Array:
        return self.scores_from(self.activations(inputs), inputs)

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Array:
        self.asked.append(len(activations))
        assert layer in {None, "maps"}
        flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
        assert len(flat) == len(activations)
        sums = activations.reshape(*activations.shape[:2], -1).sum(axis=2, dtype=np.float64)
        logits = sums @ np.transpose(self.heads) + self.shortcut * flat.sum(axis=1)[:, None]
        return np.asarray(logits, np.float32)
