"""The two front doors: `explain` for a model, `explain_arrays` for arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cfcam_core.backend import SeveralLayers
from cfcam_core.cam import Cam
from cfcam_core.capture import Capture, FloatArray, number_array, spatial_size
from cfcam_core.errors import BlankMapWarning, InvalidInputError
from cfcam_core.explanation import Explanation, Status
from cfcam_core.fusion import fuse
from cfcam_core.methods import find_method, without_asking
from cfcam_core.pictures import Pictures
from cfcam_core.probe import Probe
from cfcam_core.registry import open_model
from cfcam_core.resize import resize
from cfcam_core.settings import PRESETS, Settings


def explain(
    model: Any,
    inputs: Any,
    *,
    layer: Any = None,
    target: Any = None,
    method: str = "cf-cam",
    settings: Settings | None = None,
    size: Sequence[int] | None = None,
    backend: str | None = None,
) -> Explanation:
    """Explain which parts of each input a classifier's score rests on.

    Parameters
    ----------
    model : object, str or path
        A PyTorch module, a Keras model, an ``onnx.ModelProto``, a path to a model file, or an
        opened `Backend`.
    inputs : array_like
        Batch in the model's own layout, already preprocessed; one unbatched sample where that is
        unambiguous.
    layer : str, int, layer object, list of these, or None
        Where to look: a name, an index into ``open_model(model).layers()``, an object of the
        framework. A list fuses several layers (see `cfcam_core.fusion.fuse`). None: the last layer
        with a spatial grid.
    target : None, int, sequence of int, or callable
        Class to explain: the best of each sample, one for all, one for each, or a function of the
        scores, a NumPy array (N, K), that returns classes or what to explain in their place, one
        float a sample: ``lambda s: s[:, 281] - s[:, 282]``. See
        `cfcam_core.targets.resolve_targets`.
    method : str
        One of `methods`.
    settings : Settings, optional
        What CF-CAM does at each stage; other methods ignore it. Default: ``Settings()``.
    size : sequence of int, optional
        Size of the heatmaps. Default: the spatial size of the model's input.
    backend : str, optional
        Name of the backend; told from the model by default.

    Returns
    -------
    Explanation
        Heatmaps in [0, 1], one a sample, and everything they were made from.

    Raises
    ------
    BackendNotFoundError, BackendUnavailableError
        Nothing opens this model, or its framework is not installed.
    LayerNotFoundError, UnsupportedOpError, InvalidInputError
        The layer, an operator, or an argument is not usable; the message says what is.

    Warns
    -----
    BlankMapWarning
        A map is blank: the message names the sample and the reason.

    Examples
    --------
    >>> cfcam.explain("model.onnx", batch).overlay(images)  # doctest: +SKIP
    """
    asks = find_method(method).asks_model  # before the model is opened and run
    choice = _settings(settings)
    opened = open_model(model, backend)
    if isinstance(layer, list | tuple):
        if not layer:
            raise InvalidInputError("layer is an empty list; name one layer or more, or pass None")
        captures = (
            opened.captures(inputs, layers=layer, target=target)
            if isinstance(opened, SeveralLayers)
            else [opened.capture(inputs, layer=one, target=target) for one in layer]
        )
    else:
        captures = [opened.capture(inputs, layer=layer, target=target)]
    if asks and captures[0].scores is None:
        raise InvalidInputError(
            f"{method} asks the model about other inputs and compares logits (N, K), but the "
            f"output of this one has another form; use {without_asking()}"
        )
    pictures = Pictures.of(opened, inputs, target=target) if asks else None
    seen = captures[0].input_size or ()
    if (
        pictures
        and seen not in {(), pictures.arrays.shape[2:]}
        and len(seen) == (pictures.arrays.ndim - 2)
    ):
        raise InvalidInputError(
            f"the backend reads the inputs as pictures of size {seen}, but its input_layout makes "
            f"them {pictures.arrays.shape[2:]}; correct that attribute, channels_first or "
            f"channels_last, or use {without_asking()}"
        )
    return _warned(fuse([finish(each, method, choice, size, pictures) for each in captures]))


def explain_arrays(
    activations: ArrayLike,
    gradients: ArrayLike,
    *,
    method: str = "cf-cam",
    settings: Settings | None = None,
    size: Sequence[int] | None = None,
    spatial_dims: int | None = None,
    channels_last: bool = False,
) -> Explanation:
    """Explain from activations and gradients that you already have; no framework is needed.

    Parameters
    ----------
    activations : array_like
        Output of a layer. With ``spatial_dims=None``, 2 axes are one sample (C, T), 3 one (C, H,
        W), 4 a batch (N, C, H, W) and 5 a batch (N, C, D, H, W).
    gradients : array_like
        Gradient of the explained logit with respect to `activations`, same shape.
    method, settings : optional
        As in `explain`; methods that ask the model, such as ``score-cam``, need one.
    size : sequence of int, optional
        Size of the heatmaps. Default: that of the maps.
    spatial_dims : int, optional
        Number of spatial axes, 1 to 3; then the batch axis may be there or not.
    channels_last : bool
        Whether the channel axis comes last instead of before the spatial axes.

    Returns
    -------
    Explanation
        N = 1 for a single sample; `scores` is None and `targets` are -1.

    Raises
    ------
    InvalidInputError
        Shapes differ or cannot be told apart, values are not finite, or an argument is unknown.

    Warns
    -----
    BlankMapWarning
        A map is blank: the message names the sample and the reason.
    """
    A = _batch(number_array(activations, "activations"), spatial_dims, channels_last=channels_last)
    G = _batch(number_array(gradients, "gradients"), spatial_dims, channels_last=channels_last)
    return _warned(finish(Capture(A, G), method, _settings(settings), size))


def finish(
    capture: Capture,
    method: str,
    settings: Settings,
    size: Sequence[int] | None,
    pictures: Pictures | None = None,
) -> Explanation:
    """Run the method on every sample and turn the maps into heatmaps."""
    found = find_method(method)
    if found.asks_model and pictures is None:
        raise InvalidInputError(
            f"{method} asks the model, and arrays are none; use explain with a model, or "
            f"{without_asking()}"
        )
    spatial = capture.activations.shape[2:]
    wanted = capture.input_size or spatial if size is None else spatial_size(size, spatial)
    cams = [
        found.cam(A, G, settings, Probe(pictures, n, capture.layer) if pictures else None)
        for n, (A, G) in enumerate(zip(capture.activations, capture.gradients, strict=True))
    ]
    with np.errstate(over="ignore"):
        maps = np.stack([cam.map for cam in cams]).astype(np.float32)
        weights = np.stack([cam.weights for cam in cams]).astype(np.float32)
    if not (np.isfinite(maps).all() and np.isfinite(weights).all()):
        raise InvalidInputError(
            f"a map overflows float32: activations reach {np.abs(capture.activations).max():.3g} "
            f"and gradients {np.abs(capture.gradients).max():.3g}; scale them down"
        )
    return Explanation(
        heatmaps=heatmaps(maps, wanted),
        maps=maps,
        weights=weights,
        labels=_stacked_labels(cams),
        targets=np.asarray(capture.targets),
        scores=capture.scores,
        status=tuple(
            status(m, influential=not found.uses_gradients or bool(G.any()))
            for m, G in zip(maps, capture.gradients, strict=True)
        ),
        layer=capture.layer,
        method=method,
        settings=settings if method == "cf-cam" else None,
    )


def heatmaps(maps: FloatArray, size: Sequence[int]) -> FloatArray:
    """Return ``u / max(u)`` with ``u`` the upsampled positive part of each map; zeros stay zeros.

    Nothing is subtracted, so a flat positive map stays flat and positive.
    """
    up = resize(np.maximum(maps, 0), size)
    peak = up.max(axis=tuple(range(1, up.ndim)), keepdims=True)
    return np.asarray(up / np.where(peak > 0, peak, 1), np.float32)


def status(signed_map: FloatArray, *, influential: bool) -> Status:
    """Say in a word whether a map shows anything, and if not, why.

    Parameters
    ----------
    signed_map : ndarray of shape (*s)
    influential : bool
        Whether any gradient differs from zero.
    """
    if not influential:
        return "zero_gradient"
    if signed_map.max() <= 0 and signed_map.min() < 0:
        return "all_negative"
    spread, peak = np.ptp(signed_map), np.abs(signed_map).max()
    return "flat" if spread <= FLAT * peak else "ok"


FLAT = 1e-5
"""A map whose values differ by less than this share of its peak is the same everywhere."""

_REASONS = {
    "zero_gradient": "the score does not depend on this layer (all gradients are zero)",
    "all_negative": (
        "the map is nowhere positive: what it shows speaks against the class; try another class, "
        "layer or method"
    ),
    "flat": "the map is the same everywhere",
}


def _warned(explanation: Explanation) -> Explanation:
    """Warn about every blank map, once for each reason."""
    for reason, meaning in _REASONS.items():
        samples = [n for n, s in enumerate(explanation.status) if s == reason]
        if samples:
            names = ", ".join(map(str, samples))
            message = f"the map of sample {names} shows nothing ({reason}): {meaning}"
            warnings.warn(message, BlankMapWarning, stacklevel=3)
    return explanation


def _stacked_labels(cams: Sequence[Cam]) -> NDArray[np.intp] | None:
    labels = [cam.labels for cam in cams if cam.labels is not None]
    return np.stack(labels) if labels else None


def _settings(settings: Settings | None) -> Settings:
    if settings is None:
        return PRESETS["default"]
    if not isinstance(settings, Settings):
        raise InvalidInputError(
            f"settings is a {type(settings).__name__}; "
            "pass a Settings, such as Settings.preset('paper')"
        )
    return settings


def _batch(array: NDArray[Any], spatial_dims: int | None, *, channels_last: bool) -> NDArray[Any]:
    """Bring an array to (N, C, *s)."""
    if spatial_dims is None:
        single = array.ndim in {2, 3}
        allowed, hint = array.ndim in {2, 3, 4, 5}, "2 to 5 axes, or pass spatial_dims"
    else:
        if spatial_dims not in (1, 2, 3):
            raise InvalidInputError(f"spatial_dims={spatial_dims!r}; allowed are 1, 2 and 3")
        single = array.ndim == spatial_dims + 1
        allowed = single or array.ndim == spatial_dims + 2
        hint = f"{spatial_dims + 1} axes for a sample or {spatial_dims + 2} for a batch"
    if not allowed:
        raise InvalidInputError(f"an array of shape {array.shape} came; wanted {hint}")
    batch = array[None] if single else array
    return np.moveaxis(batch, -1, 1) if channels_last else batch
