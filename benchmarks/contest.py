"""Who is compared on the truth, and what is measured of each: a block in, lists of numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
from networks import Network
from numpy.typing import NDArray
from truth import Block

import cfcam_core as cfcam
from cfcam_core.capture import Capture
from cfcam_core.errors import InvalidInputError
from cfcam_core.evaluation import (
    energy_in_mask,
    keep_minus_delete,
    map_correlation,
    plan_robustness,
    pointing_game,
    rank_accuracy,
    robustness_of_image,
)
from cfcam_core.evaluation.protocol import RobustnessPlan
from cfcam_core.explainer import finish
from cfcam_core.methods import METHODS
from cfcam_core.pictures import Pictures
from cfcam_core.settings import PRESETS, Settings

Contestants = Mapping[str, tuple[str, Settings]]

DEFAULT = "cf-cam"
"""The name of CF-CAM as it comes; its other presets are named after it."""

SHARE, BASELINE = 0.2, "mean"
"""Of keep-minus-delete."""

NOISES, OVERLAP = ("gaussian", "salt_and_pepper", "speckle"), 0.9
"""Of robustness: perturbations, in five severities each, and p of the rank-biased overlap."""

FAMILY: dict[str, tuple[str, Settings]] = {
    DEFAULT: ("cf-cam", Settings()),
    **{f"{DEFAULT} {name}": ("cf-cam", PRESETS[name]) for name in ("reference", "paper")},
    **{name: (name, Settings()) for name in cfcam.methods() if name != "cf-cam"},
}
SLOW = {name: FAMILY[name] for name in FAMILY if METHODS[FAMILY[name][0]].asks_model}
FAST = {name: choice for name, choice in FAMILY.items() if name not in SLOW}

_OPTIONS: dict[str, Sequence[Any]] = {
    "cluster_on": ("contributions",),
    "average": ("gradients", "directions"),
    "sign_split": (False,),
    "filter": ("none", "bilateral"),
    "sigma_spatial": (3.0, 8.0),
    "noise": ("keep",),
    "eps_percentile": (2.0, 10.0, 50.0),
    "dominant_percentile": (None, 50.0, 90.0),
    "gradual": (0.0, 1.0),
    "sigma_agreement": (0.0, 1.0),
}
_TOGETHER: tuple[dict[str, Any], ...] = (
    *(
        {"average": "gradients", "weighting": weighting, "sign_split": split}
        for weighting in ("softmax", "linear")
        for split in (True, False)
    ),
    {"weighting": "linear"},
    {"average": "gradients", "sign_split": False},
    *({"average": "gradients", "filter": name} for name in ("none", "bilateral")),
    *({"average": "directions", "filter": name} for name in ("none", "bilateral")),
    *({"cluster_on": "contributions", "average": one} for one in ("gradients", "directions")),
    {"cluster_on": "contributions", "eps_percentile": 10.0},
    {"dominant_percentile": None, "noise": "keep"},
    {"dominant_percentile": None, "average": "directions"},
    {"dominant_percentile": None, "average": "gradients"},
    {"filter": "bilateral", "sigma_agreement": 0.0},
    {"dominant_percentile": 90.0, "sigma_agreement": 1.0},
    {"gradual": 0.0, "sigma_agreement": 0.0},
)
SWEEP: dict[str, tuple[str, Settings]] = {
    "the default": ("cf-cam", Settings()),
    **{
        ", ".join(f"{name}={value}" for name, value in change.items()): (
            "cf-cam",
            replace(Settings(), **change),
        )
        for change in (
            *({name: value} for name, values in _OPTIONS.items() for value in values),
            *_TOGETHER,
        )
    },
}
"""Settings around the default: one change at a time, then the main ones together."""


def measure(
    block: Block, contestants: Contestants, measures: Sequence[str], layers: Sequence[str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return for each layer and contestant each measure's values, one a target.

    A blank map counts as chance: the mask's share of the area for energy and rank accuracy, what
    the random map gets for keep-minus-delete; it points nowhere, and is correlated with nothing
    (NaN).
    """
    if not len(block.targets):
        return {}
    net, found = block.network, {}
    size = block.inputs.shape[-2:] if block.masks is None else block.masks.shape[1:]
    for place in layers:
        layer = net.layers[place]
        numbers: dict[str, dict[str, list[float]]] = {}
        maps = _maps(block, contestants, layer, size, compared="class" in measures)
        for name, own, other in maps:
            values = _of_truth(own, block.masks) if "energy" in measures else {}
            if "kept" in measures:
                values["kept"] = keep_minus_delete(
                    net.backend,
                    block.inputs,
                    own,
                    target=block.targets,
                    share=SHARE,
                    baseline=BASELINE,
                )
            if other is not None:
                values["class"] = map_correlation(own, other)
            values["blank"] = own.max(axis=(1, 2)) <= 0
            numbers[name] = {key: np.asarray(each, float) for key, each in values.items()}
        if "kept" in measures:
            chance = numbers["random"]["kept"]
            for values in numbers.values():
                values["kept"] = np.where(np.isnan(values["kept"]), chance, values["kept"])
        found[place] = numbers
    return found


def _of_truth(maps: NDArray[Any], masks: NDArray[np.bool_] | None) -> dict[str, NDArray[Any]]:
    assert masks is not None
    blank, area = maps.max(axis=(1, 2)) <= 0, masks.mean(axis=(1, 2))
    return {
        "energy": np.where(blank, area, energy_in_mask(maps, masks)),
        "rank": np.where(blank, area, rank_accuracy(maps, masks)),
        "pointing": pointing_game(maps, masks),
    }


def _maps(
    block: Block,
    contestants: Contestants,
    layer: str | None,
    size: Sequence[int],
    *,
    compared: bool,
) -> Any:
    """Yield each contestant's heatmaps for the targets, and for the other classes if wanted."""
    backend = block.network.backend
    remembering: Any = Remembering(backend)
    asked = any(METHODS[method].asks_model for method, _ in contestants.values())
    seen = [
        (
            backend.capture(block.inputs, layer=layer, target=each),
            replace(Pictures.of(backend, block.inputs, target=each), backend=remembering)
            if asked
            else None,
        )
        for each in ([block.targets, block.others] if compared else [block.targets])
    ]
    for name, choice in contestants.items():
        maps = [heatmaps(capture, choice, size, pictures) for capture, pictures in seen]
        yield name, maps[0], maps[1] if compared else None


class Remembering:
    """A model that remembers what it said of a batch.

    Score-CAM asks the same of all classes of a picture: the four of a mosaic cost as much as one.
    """

    def __init__(self, backend: cfcam.Backend) -> None:
        self._backend, self._said = backend, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def scores(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits (B, K)."""
        key = blake2b(np.ascontiguousarray(inputs), digest_size=16).digest()
        if key not in self._said:
            self._said[key] = self._backend.scores(inputs)
        return self._said[key]


def heatmaps(
    capture: Capture,
    choice: tuple[str, Settings],
    size: Sequence[int],
    pictures: Pictures | None = None,
) -> NDArray[np.float32]:
    """Return a contestant's heatmaps (N, *size); zeros for samples that it refuses.

    The public presets refuse what the public code fails on.
    """
    method, settings = choice
    try:
        return finish(capture, method, settings, size, pictures).heatmaps
    except InvalidInputError:
        if len(capture.activations) == 1:
            return np.zeros((1, *size), np.float32)
        parts = (
            replace(capture, **{name: getattr(capture, name)[n : n + 1] for name in _PER_SAMPLE})
            for n in range(len(capture.activations))
        )
        return np.concatenate([heatmaps(part, choice, size) for part in parts])


_PER_SAMPLE = ("activations", "gradients", "scores", "targets")


def robust(net: Network, pixels: NDArray[np.uint8], index: int, place: str) -> dict[str, Any]:
    """Return what robustness to noise is computed from, for one picture (H, W, 3) or (H, W)."""
    gray = pixels.ndim == 2
    return robustness_of_image(
        net.backend,
        pixels[None] if gray else pixels,
        plan(net, place),
        index=index,
        preprocess=None if gray else lambda unit: net.prepare(255 * unit),
    )


def plan(net: Network, place: str) -> RobustnessPlan:
    """Return what is measured of robustness: on digit scenes of all methods, else of fast ones."""
    family = FAMILY if net.name == "digits" else FAST
    return plan_robustness(methods=family, perturbations=NOISES, layer=net.layers[place], p=OVERLAP)
