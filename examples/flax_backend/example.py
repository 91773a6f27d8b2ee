"""Explains a tiny network that tells warm from cold colours, and writes ``overlay.png``."""

from pathlib import Path

import numpy as np
from flax import nnx

import cfcam_core as cfcam
from cfcam_core import png

rngs = nnx.Rngs(0)
model = nnx.Sequential(
    *(nnx.Conv(3, 2, (5, 5), rngs=rngs), nnx.relu),
    *(lambda maps: maps.mean((1, 2)), nnx.Linear(2, 2, rngs=rngs)),
)
model.layers[0].kernel[...] = np.array([[1, -1], [0, 0], [-1, 1]]) / 25  # red or blue
model.layers[3].kernel[...] = np.array([[1, -1], [-1, 1]])  # warm or cold

picture = np.random.default_rng(0).uniform(0, 0.3, (96, 128, 3)).astype("f")
picture[20:50, 70:110] += (0.7, 0.4, 0.0)
picture[50:80, 15:50] += (0.0, 0.3, 0.6)
warm, cold = (cfcam.explain(model, picture, target=k).overlay(picture) for k in (0, 1))
png.write(Path("overlay.png"), np.hstack([warm, cold]))
