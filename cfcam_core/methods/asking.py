"""Methods that ask the model: about changed pictures, or about changed activations.

Each asks in portions, so that memory does not grow with the number of channels or samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cfcam_core.cam import Cam
from cfcam_core.capture import FloatArray
from cfcam_core.errors import InvalidInputError
from cfcam_core.methods.chance import seeded_by
from cfcam_core.methods.gradient import weights_of_derivatives
from cfcam_core.pictures import BATCH
from cfcam_core.probe import Probe
from cfcam_core.resize import resize
from cfcam_core.settings import Settings


def score_cam(
    activations: FloatArray, _gradients: FloatArray, _settings: Settings, probe: Probe
) -> Cam:
    """Score-CAM: ``sum_c w_c A_c``, w the softmax over channels of ``y(x * M_c) - y(x_b)``.

    M_c is A_c laid over the picture, linearly, and scaled to [0, 1]; y is the explained value (Wang
    et al. 2020, algorithm 1). What the baseline picture x_b scores is the same for all channels and
    falls out of the softmax, so nobody asks for it. A channel that is the same everywhere makes no
    mask; its weight is 0. The authors' code takes probabilities in place of the softmax.
    """
    size = probe.picture.shape[1:]
    if len(size) != activations.ndim - 1:
        raise InvalidInputError(
            f"score-cam lays channels over the picture, but layer {probe.layer!r} has "
            f"{activations.ndim - 1} spatial axes and the input {len(size)}; name another layer"
        )
    axes = tuple(range(1, activations.ndim))
    values = np.full(len(activations), -np.inf)
    for part in _portions(np.flatnonzero(np.ptp(activations, axis=axes))):
        masks = resize(activations[part], size)
        masks -= masks.min(axis=axes, keepdims=True)
        peaks = masks.max(axis=axes, keepdims=True)
        masks /= np.where(peaks > 0, peaks, 1)
        values[part] = probe.of_pictures(masks[:, None] * probe.picture)
    weights = np.zeros(len(activations))
    if np.isfinite(values).any():
        weights = np.exp(values - values.max())
        weights /= weights.sum()
    return Cam(np.tensordot(weights, activations, 1), weights)


def ablation_cam(
    activations: FloatArray, _gradients: FloatArray, _settings: Settings, probe: Probe
) -> Cam:
    """Ablation-CAM: ``sum_c w_c A_c`` with ``w_c = (y - y_c) / |y|``.

    y is the explained value and y_c what is left of it with channel c set to zero (Desai and
    Ramaswamy 2020). The paper divides by y, which is the same where it is positive; the magnitude
    (ours) keeps a negative logit from turning the map around. Where y is 0, nothing is divided.
    """
    value = float(probe.of_activations(activations[None])[0])
    drops = np.zeros(len(activations))
    alive = activations.any(axis=tuple(range(1, activations.ndim)))
    for part in _portions(np.flatnonzero(alive)):
        ablated = np.repeat(activations[None], len(part), axis=0)
        ablated[np.arange(len(part)), part] = 0
        drops[part] = value - probe.of_activations(ablated)
    weights = drops / (abs(value) or 1)
    return Cam(np.tensordot(weights, activations, 1), weights)


def smooth_grad_cam_plus_plus(
    activations: FloatArray,
    _gradients: FloatArray,
    _settings: Settings,
    probe: Probe,
    *,
    samples: int = 25,
    noise: float = 0.15,
) -> Cam:
    """Smooth Grad-CAM++: Grad-CAM++ with powers of the gradient averaged over noisy pictures.

    See Omeiza et al. 2019. The activations are those of the picture itself. The numerator of a_ci
    is the second power, as in Grad-CAM++, and the exponential of the score is left out here too,
    though noise makes it differ from picture to picture (both as in torchcam).

    Parameters
    ----------
    samples : int
        Noisy copies (Smilkov et al. 2017, section 3.2, see little gain beyond 50; 25 is ours).
    noise : float
        Standard deviation of the noise, as a share of the picture's range from its least to its
        greatest value (ibid.: 0.1 to 0.2). The noise is seeded with the picture.
    """
    picture, rng = probe.picture, seeded_by(probe.picture)
    width = np.float32(noise * np.ptp(picture))
    sums = np.zeros((3, *activations.shape))
    for part in _portions(np.arange(samples)):
        drawn = rng.standard_normal((len(part), *picture.shape), np.float32)
        gradients = probe.captures(picture + width * drawn).gradients.astype(np.float64)
        for power in (1, 2, 3):
            sums[power - 1] += (gradients**power).sum(axis=0)
    weights = weights_of_derivatives(activations, *(sums / samples))
    return Cam(np.tensordot(weights, activations, 1), weights)


def _portions(numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the numbers, `BATCH` of them at a time."""
    for start in range(0, len(numbers), BATCH):
        yield numbers[start : start + BATCH]
