"""Comparisons of a toy: what is compared, by what, and when two results are the same."""

from __future__ import annotations

import numpy as np

from cfcam_core.evaluation.compare import compare

HEADS = np.array([[1.0, -0.5, 0.2], [-0.4, 0.3, 0.1], [0.2, 0.1, 0.3]]) / 8
INPUTS = np.random.default_rng(0).random((5, 1, 6, 4)).astype(np.float32) * 4
MASKS = INPUTS[:, 0] > 3
METHODS = ("cf-cam", "grad-cam", "score-cam", "random")
QUICK = ("energy-in-mask", "class-sensitivity", "keep-minus-delete", "sparseness")


def compared(model, **more):
    given = {"methods": METHODS, "metrics": QUICK, "masks": MASKS, **more}
    return compare(model, INPUTS, **given)


def same(first, second):
    assert first.to_csv() == second.to_csv()
    assert first.to_json() == second.to_json()
