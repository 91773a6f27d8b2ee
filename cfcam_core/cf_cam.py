"""CF-CAM on one sample: cluster, average and filter within clusters, weigh, sum.

The channels fall into groups that share a gradient or a direction (clusters, split by sign if
asked) and channels that keep their own (dominant ones; noise where it is kept). Groups enter the
map as products of small matrices, so no filtered gradient is ever written out channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfcam_core.cam import Cam, energy, near_one, rows
from cfcam_core.capture import FloatArray
from cfcam_core.clustering import NOISE, cluster_channels, shares
from cfcam_core.errors import InvalidInputError
from cfcam_core.filtering import filter_maps, filtered_means, gaussian
from cfcam_core.settings import Settings

CANCELLED = 1e-5
"""A sum of unit vectors shorter than this share of their number is nothing but rounding errors."""


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Who shares what."""

    members: FloatArray
    """(M, C): how much of the channel belongs to the group, 0 to 1."""
    own: FloatArray
    """(C,): how much of the channel keeps its own gradient, 0 to 1."""


def cf_cam(activations: FloatArray, gradients: FloatArray, settings: Settings) -> Cam:
    """Run CF-CAM on one sample.

    Parameters
    ----------
    activations, gradients : ndarray of float32, shape (C, *s)
    settings : Settings

    Returns
    -------
    Cam
        Signed map (*s), weights (C,), labels (C,).

    Notes
    -----
    With groups k (clusters, or their halves by sign), members c in k, own channels o, positions i:

    - ``average="gradients"``: ``g_k = filter(mean_c G_c)``. Softmax and linear weighting: ``L_i =
      sum_c w_c A_ci`` with raw weights ``mean_i g_k`` or ``mean_i G_o``, for softmax passed through
      a softmax over all channels in the map. Element-wise: ``L_i = sum_k g_ki sum_c A_ci + sum_o
      G_oi A_oi``.
    - ``average="directions"`` (ours): contributions ``E_c = G_c A_c``, direction ``m_k =
      filter(sum_c E_c / |E_c|)``, brought to length one; ``L_i = sum_k m_ki sum_c |E_c| + sum_o
      E_oi``.
    - ``average="both"`` (ours): ``L = S(a+) S(b+) sqrt(p_a p_b)`` with ``S`` a Gaussian of width
      ``sigma_agreement`` and ``a+`` the positive part of each of the two maps a, b as a share of
      its highest value p. It is nowhere negative: for what speaks against the class, explain a
      target of the opposite sign. Where it is nowhere positive, the first of gradients and
      directions that is stands in, or the first.

    A channel counts in its cluster, and as one of the own, by its `cfcam_core.clustering.shares`.

    References
    ----------
    CF-CAM, arXiv 2504.00060, version 2, section 3, and its public code; `cfcam_core.settings` says
    which step comes from where.
    """
    if settings.eps_rule == "float32":  # as published: everything is compared as it comes
        labels = cluster_channels(activations, gradients, settings)
        return _from_labels(activations, gradients, labels, settings)
    (A, up_a), (G, up_g) = near_one(activations), near_one(gradients)
    own_scale = settings.clusterer is not None and not settings.unit_norm  # it may have a radius
    labels = cluster_channels(*((activations, gradients) if own_scale else (A, G)), settings)
    if settings.filter == "public-code" or settings.weighting == "softmax":
        return _from_labels(activations, gradients, labels, settings)  # absolute numbers again
    cam = _from_labels(A, G, labels, settings)
    if up_a == up_g == 0:
        return cam
    return Cam(np.ldexp(cam.map, up_a + up_g), np.ldexp(cam.weights, up_g), labels)


def _from_labels(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> Cam:
    if settings.filter == "public-code":
        _refuse_what_breaks_the_public_code(activations, labels)
    if settings.average == "gradients":
        return _gradient_map(activations, gradients, labels, settings)
    directed = _direction_map(activations, gradients, labels, settings)
    if settings.average == "directions":
        return directed
    shared = _gradient_map(activations, gradients, labels, settings)
    agreed = _agreement(directed.map, shared.map, settings.sigma_agreement)
    if not agreed.any():
        return directed if directed.map.max() > 0 >= shared.map.max() else shared
    return Cam(agreed, (directed.weights + shared.weights) / 2, labels)


def _agreement(a: FloatArray, b: FloatArray, sigma: float) -> NDArray[np.float64]:
    """Return what two maps (*s) both show: positive where both are, or nearly there."""
    peaks = [float(each.max()) for each in (a, b)]
    if min(peaks) <= 0:
        return np.zeros(a.shape)
    parts = np.maximum(np.stack([a / peaks[0], b / peaks[1]]), 0)
    if sigma > 0:
        parts = gaussian(parts, sigma=sigma)
    return np.asarray(parts.prod(axis=0, dtype=np.float64) * np.sqrt(peaks[0] * peaks[1]))


def _gradient_map(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> Cam:
    """Let the members of a group share the group's mean gradient."""
    A, G = rows(activations), rows(gradients)
    total = G @ np.ones(G.shape[1], np.float32)
    groups = _groups(A, G, labels, total < 0 if settings.sign_split else None, settings)
    M, own = groups.members, groups.own
    shape = (len(M), *activations.shape[1:])
    means = (M @ G / M.sum(axis=1, keepdims=True)).reshape(shape)
    if settings.weighting == "element-wise":
        shared = rows(filter_maps(means, settings))
        E = G * A
        flat = np.einsum("kp,kp->p", M @ A, shared) + own @ E
        inner = np.vecdot((A * A) @ shared.T, M.T) + own * np.vecdot(E, A)
        weights = inner / energy(A)
    else:
        weights = filtered_means(means, settings) @ M + own * total / G.shape[1]
        if settings.weighting == "softmax":
            weights = _softmax(weights, M.any(axis=0) | (own > 0))
        flat = weights @ A
    return Cam(flat.reshape(shape[1:]), weights, labels)


def _direction_map(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> Cam:
    """Let a group share the direction of its contributions, each member keeping its length."""
    A = rows(activations)
    G = rows(gradients)
    E = G * A
    groups = _groups(A, G, labels, None, settings)
    M, own = groups.members, groups.own
    shape = (len(M), *activations.shape[1:])
    lengths = np.sqrt(np.vecdot(E, E))
    inverse = np.divide(1, lengths, where=lengths > 0, out=np.zeros_like(lengths))
    directions = rows(filter_maps((M * inverse @ E).reshape(shape), settings))
    norms = np.sqrt(np.vecdot(directions, directions))[:, None]
    clear = norms > CANCELLED * M.sum(axis=1, keepdims=True)
    directions = np.divide(directions, norms, where=clear, out=np.zeros_like(directions))
    flat = M @ lengths @ directions + own @ E
    inner = np.vecdot(A @ directions.T, M.T) * lengths + own * np.vecdot(E, A)
    return Cam(flat.reshape(shape[1:]), inner / energy(A), labels)


def _groups(
    activations: FloatArray,
    gradients: FloatArray,
    labels: NDArray[np.intp],
    negative: NDArray[np.bool_] | None,
    settings: Settings,
) -> _Groups:
    """Make groups of the clusters, each split in two if `negative` tells the signs apart."""
    keys = labels if negative is None else np.where(labels >= 0, 2 * labels + negative, labels)
    clustered, own = shares(activations, gradients, labels, settings)
    members = (keys == np.arange(keys.max() + 1)[:, None]) * clustered
    members = members[members.any(axis=1)]
    if settings.noise == "keep" or not (len(members) or own.any()):  # never leave nothing at all
        own = np.where(labels == NOISE, 1, own)
    return _Groups(members.astype(np.float32), own.astype(np.float32))


def _softmax(weights: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
    """Softmax over the channels in use; the others get zero."""
    raw = weights[used].astype(np.float64)
    exponentials = np.exp(raw - raw.max())
    out = np.zeros(len(weights), np.float32)
    out[used] = exponentials / exponentials.sum()
    return out


def _refuse_what_breaks_the_public_code(activations: FloatArray, labels: NDArray[np.intp]) -> None:
    """Raise where that code loses the axis of maps one column wide, or is left without channels."""
    if (
        activations.ndim == 3
        and activations.shape[2] == 1 < activations.shape[1]
        and labels.max() >= 0
    ):
        raise InvalidInputError(
            f"maps of shape {activations.shape[1:]} are one column wide, where the public code "
            "fails; use another filter than 'public-code', or the default preset"
        )
    if (labels == NOISE).all():
        raise InvalidInputError(
            "every channel is noise, where the public code fails; use the default preset"
        )
