"""The two files that come with the package: a network, and a few scenes with ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray

MODEL = Path(__file__).with_name("digits.onnx")
SCENES = Path(__file__).with_name("scenes.npz")


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Pictures of two digits each, made from handwriting that the network was not trained on."""

    images: NDArray[np.uint8]
    """(S, H, W), gray."""
    labels: NDArray[np.uint8]
    """(S, 2): the two digits."""
    masks: NDArray[np.uint8]
    """(S, 2, H, W): 1 where that digit's ink is."""

    def inputs(self) -> FloatArray:
        """Return what the network takes, (2 S, 1, H, W) in [0, 1]: each scene once a digit."""
        return np.float32(1 / 255) * self.images[:, None].astype(np.float32).repeat(2, axis=0)

    def targets(self) -> NDArray[np.intp]:
        """Return the digit to explain in each row of `inputs`, (2 S,)."""
        return self.labels.reshape(-1).astype(np.intp)

    def right(self) -> NDArray[np.uint8]:
        """Return the mask of the explained digit for each row of `inputs`, (2 S, H, W)."""
        return self.masks.reshape(-1, *self.masks.shape[2:])

    def other(self) -> NDArray[np.uint8]:
        """Return the mask of the scene's other digit for each row of `inputs`, (2 S, H, W)."""
        return self.masks[:, ::-1].reshape(-1, *self.masks.shape[2:])


def load_scenes() -> Scenes:
    """Return the shipped scenes."""
    with np.load(SCENES, allow_pickle=False) as arrays:
        return Scenes(arrays["images"], arrays["labels"], arrays["masks"])
