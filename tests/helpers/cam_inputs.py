"""Activations and gradients for CF-CAM, and how its maps are compared."""

from dataclasses import replace

import numpy as np

import cfcam_core as cfcam
from cfcam_core.settings import Settings

DEFAULT = Settings()
PLAIN = replace(DEFAULT, filter="none", cluster_on="contributions", gradual=0.0)


def relu_like(seed, channels=48, size=(5, 6)):
    """Channels in groups that share a pattern, after a ReLU, some of them dead; gradients alike."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(4, *size))
    group = rng.integers(0, 4, channels)
    A = np.maximum(patterns[group] + rng.normal(0, 0.4, (channels, *size)), 0)
    A *= rng.lognormal(0, 0.5, (channels, *[1] * len(size)))
    A[rng.random(channels) < 0.2] = 0
    G = rng.normal(0, 1e-3, (4, *size))[group] + rng.normal(0, 5e-4, (channels, *size))
    return A.astype(np.float32), G.astype(np.float32)


def explain(A, G, settings, **kwargs):
    return cfcam.explain_arrays(A, G, settings=settings, **kwargs)


def assert_same_map(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-30))
