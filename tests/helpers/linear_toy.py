"""A linear classifier whose only layer is its input: maps and attacks can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import cfcam_core as cfcam
from cfcam_core.targets import resolve_targets

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Linear(cfcam.Backend):
    """Logits ``sum(heads[k] * x)`` of pictures x (C, *s); heads have shape (K, C, *s)."""

    heads: Any
    input_layout: str = "channels_first"
    input_dtype: Any = np.float32

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        channels, *size = np.shape(self.heads)[1:]
        return (None, *size, channels) if self.is_last else (None, channels, *size)

    @property
    def is_last(self) -> bool:
        return self.input_layout == "channels_last"

    def layers(self) -> Any:
        return [cfcam.Layer("input", self.input_shape, "Input", is_default=True)]

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> cfcam.Capture:
        assert layer in (None, "input")
        scores = self.scores(inputs)
        targets, cotangents = resolve_targets(target, scores)
        gradients = np.tensordot(cotangents, np.asarray(self.heads, np.float32), 1)
        x = self.first(inputs)
        return cfcam.Capture(x, gradients, scores, targets, layer="input", input_size=x.shape[2:])

    def scores(self, inputs: Any) -> Array:
        flat = self.first(inputs).reshape(len(inputs), -1).astype(float)
        return np.float32(flat @ np.reshape(self.heads, (len(self.heads), -1)).T)

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Array:
        raise NotImplementedError

    def first(self, inputs: Any) -> Array:
        x = np.asarray(inputs, np.float32)
        return np.moveaxis(x, -1, 1) if self.is_last else x
