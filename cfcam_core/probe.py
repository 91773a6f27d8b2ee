"""One sample's picture and layer as functions: what a method that asks the model is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import Capture, FloatArray
from cfcam_core.pictures import BATCH, Pictures


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What the model says of one sample if its picture, or its layer, were another.

    The explained value is that of the target: a class's logit, or the sum of logits that stands for
    a function of them.
    """

    pictures: Pictures
    sample: int
    """Which of the pictures is explained."""
    layer: str

    @property
    def picture(self) -> FloatArray:
        """(C, *size), channels first, read-only."""
        return np.asarray(self.pictures.arrays[self.sample])

    @property
    def value(self) -> float:
        """The explained value of the picture as it is."""
        return float(self._explained(self.pictures.scores[self.sample]))

    def of_pictures(self, pictures: NDArray[Any]) -> NDArray[np.float64]:
        """Return the explained value (B,) of other pictures (B, C, *size)."""
        return self._explained(self.pictures.ask(pictures))

    def of_activations(self, activations: NDArray[Any]) -> NDArray[np.float64]:
        """Return the explained value (B,) with the layer's output replaced by each of (B, C, *s).

        What goes past the layer is computed from the picture.
        """
        ask, fed = self.pictures.backend.scores_from, self.pictures.fed(self.picture[None])
        portions = (activations[i : i + BATCH] for i in range(0, len(activations), BATCH))
        scores = [ask(p, np.repeat(fed, len(p), axis=0), layer=self.layer) for p in portions]
        return self._explained(np.concatenate(scores))

    def captures(self, pictures: NDArray[Any]) -> Capture:
        """Return activations and gradients of other pictures (B, C, *size), same layer and target.

        All of them go through the model at once.
        """
        return self.pictures.backend.capture(
            self.pictures.fed(pictures),
            layer=self.layer,
            target=lambda scores: np.broadcast_to(self._cotangent, scores.shape),
        )

    @property
    def _cotangent(self) -> FloatArray:
        return np.asarray(self.pictures.cotangents[self.sample])

    def _explained(self, scores: FloatArray) -> NDArray[np.float64]:
        """Return the explained value of logits (..., K)."""
        return np.asarray(scores.astype(np.float64) @ self._cotangent)
