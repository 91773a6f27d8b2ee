"""A linear classifier whose only layer is its input: maps, curves and attacks by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import cfcam_core as cfcam
from cfcam_core.targets import resolve_targets

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Linear(cfcam.Backend):
    """Logits ``sum(heads[k] * x) + bias`` of pictures x (C, *s); heads have shape (K, C, *s)."""

    heads: Any
    bias: float = 0.0
    input_layout: str = "channels_first"
    input_dtype: Any = np.float32
    batches: list[int] = field(default_factory=list)
    """How many pictures it was asked about at a time."""

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
        self.batches.append(len(inputs))
        heads = np.asarray(self.heads, float)
        # one picture after the other: none shall depend on its batch, not even in the last bit
        logits = [(heads * x).reshape(len(heads), -1).sum(axis=1) for x in self.first(inputs)]
        return np.asarray(np.stack(logits) + self.bias, np.float32)

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Array:
        return self.scores(inputs=np.moveaxis(activations, 1, -1) if self.is_last else activations)

    def first(self, inputs: Any) -> Array:
        x = np.asarray(inputs, np.float32)
        return np.moveaxis(x, -1, 1) if self.is_last else x
