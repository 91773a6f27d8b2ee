"""One explanation from several layers (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cfcam_core.explanation import Explanation
from cfcam_core.resize import resize


def fuse(explanations: Sequence[Explanation]) -> Explanation:
    """Average the maps of several layers on the grid of the finest.

    Each map is first divided by its largest magnitude. Weights and labels of the layers follow each
    other along the channel axis; cluster numbers of a later layer go on after those of an earlier
    one.

    Parameters
    ----------
    explanations : sequence of Explanation
        The same samples and targets at different layers, heatmaps of one size.
    """
    from cfcam_core.explainer import heatmaps, status

    if len(explanations) == 1:
        return explanations[0]
    grid = max((e.maps.shape[1:] for e in explanations), key=np.prod)
    first = explanations[0]
    maps = np.zeros((len(first), *grid), np.float32)
    for e in explanations:
        axes = tuple(range(1, e.maps.ndim))
        peak = np.abs(e.maps).max(axis=axes, keepdims=True)
        maps += resize(e.maps / np.where(peak > 0, peak, 1), grid) / np.float32(len(explanations))
    dead = [all(e.status[n] == "zero_gradient" for e in explanations) for n in range(len(first))]
    return replace(
        first,
        heatmaps=heatmaps(maps, first.heatmaps.shape[1:]),
        maps=maps,
        weights=np.concatenate([e.weights for e in explanations], axis=1),
        labels=_labels_in_a_row(explanations),
        status=tuple(status(m, influential=not d) for m, d in zip(maps, dead, strict=True)),
        layer=" + ".join(e.layer for e in explanations),
    )


def _labels_in_a_row(explanations: Sequence[Explanation]) -> np.ndarray | None:
    parts, offset = [], np.zeros((len(explanations[0]), 1), np.intp)
    for e in explanations:
        if e.labels is None:
            return None
        parts.append(np.where(e.labels >= 0, e.labels + offset, e.labels))
        offset = np.maximum(offset, parts[-1].max(axis=1, keepdims=True) + 1)
    return np.concatenate(parts, axis=1)
