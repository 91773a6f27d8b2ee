"""Noise that belongs to an array, and the map that is nothing but noise."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfcam_core.cam import Cam, rows
from cfcam_core.capture import FloatArray
from cfcam_core.settings import Settings


def random_map(activations: FloatArray, _gradients: FloatArray, _settings: Settings) -> Cam:
    """Random: uniform noise at the layer's resolution, the level of chance (ours).

    The seed is three digits of the activations' energy, and where there is most of it. Rounding
    does not reach these, so a sample gets the same noise in any batch and framework. No channel has
    a part in the map: the weights are 0.
    """
    energy = rows(activations).astype(np.float64) ** 2
    facts = f"{energy.sum():.2e} {energy.sum(axis=1).argmax()} {energy.sum(axis=0).argmax()}"
    noise = seeded_by(np.frombuffer(facts.encode(), np.uint8)).random(activations.shape[1:])
    return Cam(noise, np.zeros(len(activations)))


def seeded_by(array: NDArray[Any]) -> np.random.Generator:
    """Return a generator seeded with an array's bytes, so that a batch equals its samples."""
    digest = blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
