"""What the CF-CAM paper (arXiv 2504.00060) claims, tested on other data.

Run: ``CFCAM_TEST_DATA=... python benchmarks/paper_claims.py [--only NAME ...]`` with the folder of
pretrained models and photographs; it writes ``docs/paper_claims.md``. What was measured is kept in
``.paper_claims``, a file a picture and method, and not measured again: delete the folder after a
change of a method or a measure. With `--only` it measures and writes no page, so that several can
run side by side.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from paper_claims_page import page
from paper_data import DATA_SETS, ROOT, Data

import cfcam_core as cfcam
from cfcam_core.errors import BlankMapWarning
from cfcam_core.evaluation import (
    deletion,
    insertion,
    map_correlation,
    masked_confidence,
    published_drop,
    published_gain,
)
from cfcam_core.evaluation.published import window_ssim
from cfcam_core.explainer import finish
from cfcam_core.pictures import Pictures

PAGE = ROOT / "docs" / "paper_claims.md"
KEPT = ROOT / ".paper_claims"
STEPS = 25
LEVELS = (0.05, 0.1, 0.2, 0.5, 2.0)
"""Noise in standard deviations of each sample's gradients; 0 is the clean map."""
DRAWS = 2
ABSOLUTE = (0.1, 1.0, 10.0)
"""Noise in units of the gradient, as the public code adds it; its curve goes from 1 to 10."""
KEEPS = 0.01
"""By how much a noisy map must be more like its own class's clean map than any other's (ours)."""
DEFAULT = cfcam.Settings()
METHODS = MappingProxyType(
    {
        "Grad-CAM": ("grad-cam", DEFAULT),
        "Grad-CAM++": ("grad-cam++", DEFAULT),
        "Smooth Grad-CAM++": ("smooth-grad-cam++", DEFAULT),
        "public CF-CAM": ("cf-cam", cfcam.Settings.preset("reference")),
        "CF-CAM, paper's filter": ("cf-cam", cfcam.Settings.preset("paper")),
        "our default": ("cf-cam", DEFAULT),
        "Score-CAM": ("score-cam", DEFAULT),
    }
)


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise on gradients."""

    level: float
    absolute: bool
    seed: tuple[int, ...]

    def __call__(self, capture: cfcam.Capture) -> cfcam.Capture:
        """Return a capture with noisy gradients, each sample's with its own noise."""
        G = capture.gradients
        width = self.level if self.absolute else self.level * G.std(axis=(1, 2, 3), keepdims=True)
        drawn = np.random.default_rng(self.seed).standard_normal(G.shape, np.float32)
        return replace(capture, gradients=G + np.float32(width) * drawn)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A backend that remembers what it was asked about a picture, and puts noise on gradients."""

    backend: Any
    answers: dict[tuple[Any, ...], Any]
    target: int
    noise: Noise | None = None

    def scores(self, inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits."""
        key = ("scores", _hash(inputs.tobytes()))
        if key not in self.answers:
            self.answers[key] = self.backend.scores(inputs)
        return np.asarray(self.answers[key])

    def capture(self, inputs: NDArray[Any], *, layer: Any = None, target: Any) -> cfcam.Capture:
        """Return activations and noisy gradients."""
        key = ("capture", self.target, _hash(inputs.tobytes()))
        if key not in self.answers:
            self.answers[key] = self.backend.capture(inputs, layer=layer, target=target)
        return self.noise(self.answers[key]) if self.noise else self.answers[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


class Scene:
    """One picture of a data set, and its maps by class and method."""

    def __init__(self, data: Data, number: int) -> None:
        self.data, self.number = data, number
        self.picture = data.pictures[number : number + 1]
        order = np.argsort(-data.backend.scores(self.picture)[0], kind="stable")
        self.classes = [int(order[rank - 1]) for rank in (1, *data.ranks)]
        answers: dict[tuple[Any, ...], Any] = {}
        self.asked = [Asked(data.backend, answers, k) for k in self.classes]
        self.pictures = [Pictures.of(data.backend, self.picture, target=k) for k in self.classes]

    def heatmap(
        self, method: str, which: int = 0, noise: Noise | None = None, *, small: bool = False
    ) -> NDArray[np.float32]:
        """Return a heatmap (1, *size) of one of the classes; small: at the layer's size."""
        name, settings = METHODS[method]
        asked = replace(self.asked[which], noise=noise)
        capture = asked.capture(self.picture, target=self.classes[which])
        size = capture.activations.shape[2:] if small else None
        pictures = replace(self.pictures[which], backend=asked)
        return finish(capture, name, settings, size, pictures).heatmaps

    def measure(self, method: str) -> dict[str, Any]:
        """Return everything that is measured of one method."""
        clean = [self.heatmap(method, which) for which in range(len(self.classes))]
        return {**self._faithfulness(clean[0]), **self._stability(method, clean)}

    def _faithfulness(self, heatmap: NDArray[np.float32]) -> dict[str, float]:
        data, target = self.data, self.classes[0]
        given = (data.backend, self.picture, heatmap)
        masked = masked_confidence(*given, target=target, baseline=data.black)
        bare = None if self.picture.shape[1] == 3 else "zero"
        found = {
            "drop": masked.drop,
            "increase": masked.increase,
            "deletion": deletion(*given, target=target, steps=STEPS).auc,
            "insertion": insertion(*given, target=target, steps=STEPS).auc,
            "insertion0": insertion(*given, target=target, steps=STEPS, baseline="zero").auc,
            "code_drop": published_drop(*given, target=target, baseline=data.black),
            "code_gain": published_gain(*given, target=target, baseline=bare),
        }
        return {name: float(values[0]) for name, values in found.items()}

    def _stability(self, method: str, clean: list[NDArray[np.float32]]) -> dict[str, Any]:
        own, *others = clean
        found: dict[str, Any] = {
            "class_r": _mean(map_correlation(own, other) for other in others),
            "levels": {"0": self._alike(own, clean)},
            "heat": float(own.mean()),
        }
        deaf = method == "Score-CAM"  # takes no gradients: its noisy map is its clean one
        for level in LEVELS:
            noises = [Noise(level, False, (self.number, draw)) for draw in range(DRAWS)]
            noisy = [own] if deaf else [self.heatmap(method, noise=noise) for noise in noises]
            each = [self._alike(heatmap, clean) for heatmap in noisy]
            found["levels"][str(level)] = {k: _mean(e[k] for e in each) for k in each[0]}
        small = self.heatmap(method, small=True)
        found["absolute"] = {}
        for level in () if deaf else ABSOLUTE:
            noise = Noise(level, absolute=True, seed=(self.number,))
            found["absolute"][f"{level:g}"] = {
                "layer": _alike(small, self.heatmap(method, 0, noise, small=True)),
                "input": _alike(own, self.heatmap(method, 0, noise)),
            }
        found["spread"] = float(self.asked[0].capture(self.picture, target=None).gradients.std())
        return found

    @staticmethod
    def _alike(noisy: NDArray[np.float32], clean: list[NDArray[np.float32]]) -> dict[str, float]:
        """Return the likeness to the own class's clean map, and the lead over the others'."""
        if not clean[0].any():
            return dict.fromkeys(("ssim", "margin", "kept"), float("nan"))
        own, *others = (float(window_ssim(each, noisy)[0]) for each in clean)
        lead = own - np.array(others)
        return {"ssim": own, "margin": float(lead.mean()), "kept": float(lead.min() > KEEPS)}


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the public code's similarity; NaN where the first is blank."""
    return float(window_ssim(a, b)[0]) if a.any() else float("nan")


def _mean(values: Iterable[Any]) -> float:
    """Return the mean of the values that there are."""
    numbers = np.array([float(np.squeeze(v)) for v in values])
    valued = numbers[~np.isnan(numbers)]
    return float(valued.mean()) if valued.size else float("nan")


def _hash(given: bytes) -> str:
    return hashlib.blake2b(given, digest_size=8).hexdigest()


def place(data: str, number: int, method: str) -> Path:
    """Return where a method's result on a picture is kept; CF-CAM's depends on its settings."""
    name, settings = METHODS[method]
    version = _hash(settings.to_json().encode()) if name == "cf-cam" else name
    return KEPT / data / f"{number:03}-{version}.json"


def measure(data: Data) -> None:
    """Measure what is not kept yet, the dear method last."""
    for dear in (False, True):
        methods = [m for m in METHODS if (m == "Score-CAM") == dear]
        for number in range(data.score_cams if dear else len(data.pictures)):
            missing = [m for m in methods if not place(data.name, number, m).exists()]
            scene, start = Scene(data, number) if missing else None, time.monotonic()
            for method in missing:
                assert scene is not None
                file = place(data.name, number, method)
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(scene.measure(method)))
                part.replace(file)
            if missing:
                print(f"{data.name} {number} {time.monotonic() - start:.1f} s", flush=True)


def kept() -> dict[str, dict[str, list[dict[str, Any] | None]]]:
    """Return by data set and method what was measured of each picture, None where nothing was."""
    found: dict[str, dict[str, list[dict[str, Any] | None]]] = {}
    for name in DATA_SETS:
        count = 1 + max((int(f.name[:3]) for f in (KEPT / name).glob("*.json")), default=-1)
        found[name] = {
            method: [
                json.loads(file.read_text()) if file.exists() else None
                for file in (place(name, number, method) for number in range(count))
            ]
            for method in METHODS
        }
    return {name: methods for name, methods in found.items() if any(methods["Grad-CAM"])}


def main() -> None:
    """Measure what is missing; write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(DATA_SETS), help="write no page")
    parser.add_argument("--no-measuring", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", BlankMapWarning)  # such a map has no value, and is counted so
    only = () if arguments.no_measuring else arguments.only or DATA_SETS
    for name in only:
        measure(DATA_SETS[name](name))
    if not arguments.only:
        PAGE.write_text(page(kept(), steps=STEPS, draws=DRAWS, keeps=KEEPS, absolute=ABSOLUTE))
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
