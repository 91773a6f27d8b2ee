"""CF-CAM on one sample: cluster, average and filter within clusters, weigh, sum.

The channels fall into groups that share a gradient or a direction (clusters, split by sign if asked) and channels that keep
their own (dominant ones; noise where it is kept). Groups enter the map as products of small matrices, so no filtered
gradient is ever written out channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from cfcam_core.capture import FloatArray
from cfcam_core.clustering import DOMINANT, NOISE, cluster_channels
from cfcam_core.errors import InvalidInputError
from cfcam_core.filtering import filter_maps
from cfcam_core.methods import Cam, projection
from cfcam_core.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Who shares what."""

    members: FloatArray
    """(M, C): 1 where the channel belongs to the group, else 0."""
    own: NDArray[np.intp]
    """Channels that keep their own gradient."""


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

    - ``average="gradients"``: ``g_k = filter(mean_c G_c)``. Softmax and linear weighting: ``L_i = sum_c w_c A_ci`` with raw weights
      ``mean_i g_k`` or ``mean_i G_o``, for softmax passed through a softmax over all channels in the map. Element-wise:
      ``L_i = sum_k g_ki sum_c A_ci + sum_o G_oi A_oi``.
    - ``average="directions"`` (ours): contributions ``E_c = G_c A_c``, direction ``m_k = filter(sum_c E_c / |E_c|)``, brought to
      length one; ``L_i = sum_k m_ki sum_c |E_c| + sum_o E_oi``.
    - ``average="both"`` (ours): ``sign(a) sqrt(|a b|)`` of the two maps a, b where their signs agree, else 0.

    References
    ----------
    CF-CAM, arXiv 2504.00060, version 2, section 3; the public code's steps as `cfcam_core.settings` names them.
    """
    labels = cluster_channels(activations, gradients, settings)
    if settings.filter == "public-code":
        _refuse_what_breaks_the_public_code(activations, labels)
    if settings.average == "gradients":
        return _gradient_map(activations, gradients, labels, settings)
    directed = _direction_map(activations, gradients, labels, settings)
    if settings.average == "directions":
        return directed
    shared = _gradient_map(activations, gradients, labels, settings)
    a, b = directed.map.astype(np.float64), shared.map.astype(np.float64)
    mean = np.where(a * b > 0, np.sign(a) * np.sqrt(np.abs(a)) * np.sqrt(np.abs(b)), 0)
    return Cam(mean.astype(np.float32), (directed.weights + shared.weights) / 2, labels)


def _gradient_map(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> Cam:
    """Members of a group share the group's mean gradient."""
    A, G = _rows(activations), _rows(gradients)
    groups = _groups(labels, G if settings.sign_split else None, settings)
    sizes = groups.members.sum(axis=1, keepdims=True)
    means = (groups.members @ G / sizes).reshape(len(sizes), *activations.shape[1:])
    shared = _rows(filter_maps(means, settings))
    own = groups.own
    if settings.weighting == "element-wise":
        terms = G[own] * A[own]
        flat = np.vecdot(groups.members @ A, shared, axis=0) + terms.sum(axis=0)
        weights = _group_projection(A, groups.members, shared)
        weights[own] = projection(terms, A[own])
    else:
        weights = groups.members.T @ shared.mean(axis=1)
        weights[own] = G[own].mean(axis=1)
        if settings.weighting == "softmax":
            weights = _softmax(weights, (groups.members.any(axis=0)) | _mask(own, len(A)))
        flat = weights @ A
    return Cam(flat.reshape(activations.shape[1:]), weights, labels)


def _direction_map(
    activations: FloatArray, gradients: FloatArray, labels: NDArray[np.intp], settings: Settings
) -> Cam:
    """Members of a group share the direction of their contributions; each keeps its length (ours)."""
    A = _rows(activations)
    E = _rows(gradients) * A
    groups = _groups(labels, None, settings)
    lengths = np.sqrt(np.vecdot(E, E))
    units = E / np.where(lengths > 0, lengths, 1)[:, None]
    means = (groups.members @ units).reshape(len(groups.members), *activations.shape[1:])
    directions = _rows(filter_maps(means, settings))
    norms = np.sqrt(np.vecdot(directions, directions))
    directions = directions / np.where(norms > 0, norms, 1)[:, None]
    flat = (groups.members @ lengths) @ directions + E[groups.own].sum(axis=0)
    inner = np.vecdot(groups.members.T @ directions, A) * lengths
    inner[groups.own] = np.vecdot(E[groups.own], A[groups.own])
    energy = np.vecdot(A, A)
    weights = inner / np.where(energy > 0, energy, 1)
    return Cam(flat.reshape(activations.shape[1:]), weights, labels)


def _groups(labels: NDArray[np.intp], sign_of: FloatArray | None, settings: Settings) -> _Groups:
    """Make groups of clusters, split by the sign of the rows' means if `sign_of` is given."""
    keys = labels
    if sign_of is not None:
        keys = np.where(labels >= 0, 2 * labels + (sign_of.mean(axis=1) < 0), labels)
    members = keys == np.unique(keys[keys >= 0])[:, None]
    own = labels == DOMINANT
    if settings.noise == "keep" or not (len(members) or own.any()):  # never leave nothing at all
        own |= labels == NOISE
    return _Groups(members.astype(np.float32), np.flatnonzero(own))


def _group_projection(
    activations: FloatArray, members: FloatArray, shared: FloatArray
) -> FloatArray:
    """Return `projection` of the terms ``shared_k * A_c`` without writing them out."""
    squares = activations * activations
    energy = squares.sum(axis=1)
    inner = np.vecdot(squares @ shared.T, members.T)
    return inner / np.where(energy > 0, energy, 1)


def _softmax(weights: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
    """Softmax over the channels in use; the others get zero."""
    raw = weights[used].astype(np.float64)
    exponentials = np.exp(raw - raw.max())
    out = np.zeros(len(weights), np.float32)
    out[used] = exponentials / exponentials.sum()
    return out


def _rows(maps: FloatArray) -> FloatArray:
    return maps.reshape(len(maps), prod(maps.shape[1:]))


def _mask(indices: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, np.bool_)
    mask[indices] = True
    return mask


def _refuse_what_breaks_the_public_code(activations: FloatArray, labels: NDArray[np.intp]) -> None:
    """The public code loses an axis of maps one column wide, and ends without channels if all are noise."""
    if (
        activations.ndim == 3
        and activations.shape[2] == 1 < activations.shape[1]
        and labels.max() >= 0
    ):
        raise InvalidInputError(
            f"maps of shape {activations.shape[1:]} are one column wide, where the public code fails; "
            "use another filter than 'public-code', or the default preset"
        )
    if (labels == NOISE).all():
        raise InvalidInputError(
            "every channel is noise, where the public code fails; use the default preset"
        )
