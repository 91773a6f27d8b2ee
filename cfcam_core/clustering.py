"""A label for each channel of a sample: dominant (-2), noise (-1), or a cluster (>= 0)."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from cfcam_core.cam import rows
from cfcam_core.capture import FloatArray
from cfcam_core.dbscan import dbscan
from cfcam_core.errors import InvalidInputError
from cfcam_core.neighbours import interpolate, neighbours
from cfcam_core.settings import Clusterer, Settings

DOMINANT = -2
NOISE = -1


def cluster_channels(
    activations: FloatArray, gradients: FloatArray, settings: Settings
) -> NDArray[np.intp]:
    """Label every channel of one sample.

    Parameters
    ----------
    activations, gradients : ndarray of float32, shape (C, *s)
    settings : Settings
        Fields from `cluster_on` to `clusterer` are used.

    Returns
    -------
    ndarray of int, shape (C,)
        -2 dominant, -1 noise (dead channels too, where they are dropped), 0, 1, ... clusters.

    Raises
    ------
    InvalidInputError
        Under ``eps_rule="float32"`` where the public code fails: a single channel left to cluster,
        or values whose squares overflow float32. From a passed clusterer that fails or returns
        labels of the wrong shape.
    """
    features = channel_features(activations, gradients, settings)
    norms = _norms(features, settings)
    if not np.isfinite(norms).all():
        raise InvalidInputError(
            "activations are so large that their squares overflow float32, where the public code "
            "finds no cluster; scale them down, or use eps_rule='rank'"
        )
    labels = np.full(len(features), NOISE, np.intp)
    live = norms > 0 if settings.drop_dead else np.ones(len(norms), np.bool_)
    dominant = live & dominant_channels(norms, live, settings.dominant_percentile)
    labels[dominant] = DOMINANT
    rest = np.flatnonzero(live & ~dominant)
    if len(rest):
        chosen = features.take(rest, axis=0)
        if settings.unit_norm:
            chosen /= np.where(norms > 0, norms, 1)[rest, None]
        labels[rest] = _labels(chosen, settings)
    return labels


def shares(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> tuple[FloatArray, FloatArray]:
    """Return how much of each channel is clustered, and how much is dominant, each in 0 to 1.

    Notes
    -----
    Ours. With n the norm of what is compared, d the least norm of a dominant channel, m the median
    norm of live channels and w the width ``settings.gradual``: dominant is ``clip(1 - (d - n) / (w
    d), 0, 1)``, clustered ``(1 - dominant) min(n / (w m), 1)``, the last factor only where dead
    channels are dropped. Both are continuous where a channel becomes dominant, or dies.
    """
    dominant = (labels == DOMINANT).astype(np.float32)
    if not settings.gradual:
        return 1 - dominant, dominant
    norms = _norms(channel_features(activations, gradients, settings), settings)
    if dominant.any():
        least = norms[labels == DOMINANT].min()
        dominant = np.clip(1 - (least - norms) / (settings.gradual * least), 0, 1)
    alive = np.ones_like(norms)
    if settings.drop_dead and norms.any():
        alive = np.minimum(norms / (settings.gradual * np.median(norms[norms > 0])), 1)
    return (1 - dominant) * alive, dominant


def channel_features(
    activations: FloatArray, gradients: FloatArray, settings: Settings
) -> FloatArray:
    """Return what is compared between channels, shape (C, P), P the number of positions."""
    if settings.cluster_on == "contributions":
        return rows(gradients) * rows(activations)
    return rows(activations)


def _norms(features: FloatArray, settings: Settings) -> FloatArray:
    if settings.eps_rule == "rank":
        return np.asarray(np.sqrt(np.vecdot(features, features)))
    with np.errstate(over="ignore"):  # added up in numpy.linalg.norm's order, bit for bit
        return np.asarray(np.sqrt(np.add.reduce(features * features, axis=1)))


def dominant_channels(
    norms: FloatArray, live: NDArray[np.bool_], percentile: float | None
) -> NDArray[np.bool_]:
    """Return which channels reach that percentile of the live channels' norms, if any do."""
    if percentile is None or not live.any():
        return np.zeros(len(norms), np.bool_)
    ordered = np.sort(norms[live])
    place = (len(ordered) - 1) * (percentile / 100)
    at = int(place)
    high = ordered[min(at + 1, len(ordered) - 1)]
    return np.asarray(norms >= interpolate(ordered[at], high, place - at))


def _labels(features: FloatArray, settings: Settings) -> NDArray[np.intp]:
    """Cluster the (N, K) features of the channels that are neither dead nor dominant."""
    count = len(features)
    if settings.clusterer is not None:
        return _foreign_labels(settings.clusterer, features)
    if count == 1:
        if settings.eps_rule == "float32":
            raise InvalidInputError(
                "a single channel is left to cluster, where the public code fails; "
                "use eps_rule='rank', under which it is a cluster of its own"
            )
        return np.zeros(1, np.intp)
    least = settings.eps_floor
    if settings.eps_rule == "rank":
        ordered = np.sort(np.sqrt(np.vecdot(features, features)))
        least *= float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2  # their median
    later, degrees, _ = neighbours(
        features, percentile=settings.eps_percentile, least=least, rule=settings.eps_rule
    )
    min_samples = max(settings.min_samples_least, int(count * settings.min_samples_share))
    return dbscan(later, degrees, min_samples=min_samples)


def _foreign_labels(clusterer: Clusterer, features: FloatArray) -> NDArray[np.intp]:
    """Ask a clusterer of the user's; it is copied first, so that fitting leaves no trace on it."""
    try:
        labels = np.asarray(copy(clusterer).fit_predict(features))
    except ValueError as error:
        raise InvalidInputError(
            f"{clusterer!r} failed on {len(features)} channels: {error}"
        ) from error
    if labels.shape != (len(features),) or labels.dtype.kind not in "iu":
        raise InvalidInputError(
            f"{clusterer!r} returned {labels.dtype} labels of shape {labels.shape}; "
            f"wanted integers of shape ({len(features)},)"
        )
    return np.maximum(labels.astype(np.intp), NOISE)
