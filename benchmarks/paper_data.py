"""The pictures and models on which `paper_claims.py` tests what the CF-CAM paper says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from networks import data, loader, network
from numpy.typing import NDArray

import cfcam_core as cfcam
from cfcam_core.images import fit, read_image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples" / "digit_scenes"))

SCENES, XRAYS = 60, 60


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A model, its pictures, and what the measures need to know of them."""

    name: str
    backend: cfcam.Backend
    pictures: NDArray[np.float32]
    """(N, C, H, W), preprocessed."""
    black: NDArray[np.float32]
    """(C, 1, 1): a black pixel as the model gets it."""
    ranks: tuple[int, ...]
    """Ranks by score of the classes that the best one is compared with; 1 is the best."""
    score_cams: int
    """On how many of the pictures Score-CAM is run: it asks the model once a channel."""


def photographs(name: str) -> Data:
    """Return those of known ImageNet classes. Score-CAM: 8 is the fewest that a test can tell."""
    net = network(name)
    files = [x["file"] for x in _manifest()["images"] if x["imagenet_ok"]]
    pixels = np.stack([fit(read_image(data() / file), (net.side, net.side)) for file in files])
    count = 8 if name == "MobileNetV2" else 10
    return Data(name, net.backend, net.prepare(pixels), _black(name), (6, 8, 10), count)


def crops(name: str) -> Data:
    """Return the photographs that were cut to the size of CIFAR-10's pictures."""
    net = network(name)
    files = [x["file"] for x in _manifest()["aux"] if x["file"].startswith("cifar_crops/")]
    pictures = net.prepare(np.stack([read_image(data() / file) for file in files]))
    return Data(name, net.backend, pictures, _black(name), (4, 6, 8), len(files))


def scenes(name: str) -> Data:
    """Return fresh test scenes of two digits each; the runner-up is mostly the other digit."""
    from scenes import TEST_SEED, make_scenes, split_digits

    net = network("digits")
    drawn = make_scenes(SCENES, split_digits()[1], TEST_SEED)
    black = np.zeros((1, 1, 1), np.float32)
    return Data(name, net.backend, net.prepare(drawn.images), black, (2,), SCENES)


def xrays(name: str) -> Data:
    """Return test pictures of PneumoniaMNIST, as many of either class: the paper's kind of data."""
    arrays = np.load(data() / "pneumoniamnist_balanced.npz")
    images, labels = arrays["test_images"], arrays["test_labels"].ravel()
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(labels == k))[: XRAYS // 2] for k in (0, 1)]
    pictures = np.float32(images[np.concatenate(chosen)][:, None] / 255)
    model = loader("pneumonia_cnn").load(data() / "models" / "pneumonia_small.pt")
    black = np.zeros((1, 1, 1), np.float32)
    return Data(name, cfcam.open_model(model), pictures, black, (2,), XRAYS)


def _black(name: str) -> NDArray[np.float32]:
    return network(name).prepare(np.zeros((1, 1, 1, 3)))[0]


def _manifest() -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = json.loads((data() / "MANIFEST.json").read_text())
    return found


DATA_SETS: Mapping[str, Callable[[str], Data]] = MappingProxyType(
    {
        "chest X-rays": xrays,
        "MobileNetV2": photographs,
        "SqueezeNet": photographs,
        "ResNet-20": crops,
        "digit scenes": scenes,
    }
)
"""By name, which its function is given."""
