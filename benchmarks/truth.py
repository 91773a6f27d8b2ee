"""What the benchmark of the default is measured on: pictures of which the truth is known.

Blocks are what stands or falls together in the tests: a scene, a mosaic, a photograph. Everything
follows from seeds, and is split in two halves that share no photograph and no handwritten digit:
on one settings are chosen, on the other they are compared. Models and photographs are read from
the folder ``CFCAM_TEST_DATA``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples" / "digit_scenes"))

import numpy as np
import scenes as digit_scenes
from networks import Network, data, network
from numpy.typing import NDArray

from cfcam_core.evaluation import mosaic
from cfcam_core.images import fit, read_image

CHOICE, REPORT = 0, 1
"""The halves: photographs of even and odd place among those with an ImageNet class; digits too."""

AREA = (0.75, 1.0)
"""Length of a crop's sides, as a share of the photograph's."""

CROPS = 5
"""Of each photograph."""

NOISE = 0.15
"""Standard deviation of the noise on mosaics, as a share of the pixel range."""

MOSAIC_MAPS = (56, 56)
"""Size at which maps of mosaics are compared with their cells: an eighth of the mosaic's."""

SIXTH = -6
"""Place, in ascending order of scores, of the class that the best one is compared with."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One or more targets, measured together and averaged before anything is tested."""

    network: Network
    pixels: NDArray[np.uint8]
    """(N, H, W) or (N, H, W, 3)."""
    inputs: NDArray[np.float32]
    """(N, C, H, W)."""
    targets: NDArray[np.intp]
    """(N,): the class that is explained."""
    others: NDArray[np.intp] | None = None
    """(N,): the class that its map is compared with."""
    masks: NDArray[np.bool_] | None = None
    """(N, h, w): where the explained class is; maps are made at that size."""

    def first(self) -> Block:
        """Return the block of its first target alone."""
        arrays = {
            field.name: each if each is None else each[:1]
            for field in fields(self)
            if field.name != "network"
            for each in [getattr(self, field.name)]
        }
        return Block(self.network, **arrays)


def manifest() -> list[dict[str, Any]]:
    """Return what is known of each photograph."""
    found: list[dict[str, Any]] = json.loads((data() / "MANIFEST.json").read_text())["images"]
    return found


@cache
def half_of_photographs(half: int) -> list[tuple[NDArray[np.uint8], dict[str, Any]]]:
    """Return every other photograph with a known ImageNet class."""
    known = [item for item in manifest() if item["imagenet_ok"]]
    return [(read_image(data() / item["file"]), item) for item in known[half::2]]


def crop(picture: NDArray[np.uint8], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random part of a picture, mirrored every other time, as a square."""
    height, width = (int(n * scale) for scale in [rng.uniform(*AREA)] for n in picture.shape[:2])
    top = rng.integers(picture.shape[0] - height + 1)
    left = rng.integers(picture.shape[1] - width + 1)
    part = picture[top : top + height, left : left + width]
    return fit(np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part), (side, side))


def scene(name: str, half: int, index: int) -> Block:
    """Return a scene of two digits, each with the mask of its ink."""
    drawn = _scenes(half, index // 50)
    n = index % 50
    pixels = drawn.images[n][None].repeat(2, axis=0)
    labels = drawn.labels[n]
    net = network(name)
    return Block(net, pixels, net.prepare(pixels), labels, labels[::-1], drawn.masks[n] != 0)


@cache
def _scenes(half: int, part: int) -> digit_scenes.Scenes:
    held_out = digit_scenes.split_digits()[1]
    return digit_scenes.make_scenes(50, held_out[half::2], 1000 + 100 * half + part)


def clean_mosaic(name: str, half: int, index: int) -> Block:
    """Return four photographs of different classes in one picture, each explained in turn."""
    return _of_cells(network(name), _four(name, half, index))


def noisy_mosaic(name: str, half: int, index: int) -> Block:
    """Return the same with Gaussian noise all over."""
    return _of_cells(network(name), _four(name, half, index), np.random.default_rng((8, index)))


@cache
def _four(name: str, half: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Draw until the model gets four crops right, one by one, and they are of four classes."""
    net, photographs = network(name), half_of_photographs(half)
    rng = np.random.default_rng((7, half, index))
    while True:
        chosen = rng.choice(len(photographs), 4, replace=False)
        cells = np.stack([crop(photographs[i][0], net.side, rng) for i in chosen])
        best = net.backend.scores(net.prepare(cells)).argmax(axis=1)
        right = [b in photographs[i][1]["imagenet_ok"] for b, i in zip(best, chosen, strict=True)]
        if all(right) and len(set(best.tolist())) == 4:
            return cells, best


def crops_mosaic(name: str, _half: int, index: int) -> Block:
    """Return four of the small pictures that come with ResNet-20, of which no half was made."""
    files = sorted((data() / "cifar_crops").glob("*.png"))
    net = network(name)
    pictures = np.stack([fit(read_image(file), (net.side, net.side)) for file in files])
    best = net.backend.scores(net.prepare(pictures)).argmax(axis=1)
    rng = np.random.default_rng((7, index))
    chosen = rng.choice(len(files), 4, replace=False)
    while len(set(best[chosen].tolist())) < 4:
        chosen = rng.choice(len(files), 4, replace=False)
    return _of_cells(net, (pictures[chosen], best[chosen]))


def _of_cells(
    net: Network,
    cells: tuple[NDArray[np.uint8], NDArray[np.intp]],
    rng: np.random.Generator | None = None,
) -> Block:
    pictures, targets = cells
    pixels = mosaic(pictures)
    if rng is not None:
        noisy = pixels + rng.normal(0, 255 * NOISE, pixels.shape)
        pixels = np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)
    four = pixels[None].repeat(4, axis=0)
    size = MOSAIC_MAPS if net.side == 224 else pixels.shape[:2]
    height, width = (length // 2 for length in size)
    cell = np.arange(4).reshape(2, 2).repeat(height, axis=0).repeat(width, axis=1)
    masks = cell == np.arange(4)[:, None, None]
    return Block(net, four, net.prepare(four), targets, masks=masks)


def photograph(name: str, half: int, index: int) -> Block:
    """Return the crops of one photograph that the model gets right; none of them may be."""
    net = network(name)
    picture, item = half_of_photographs(half)[index]
    rng = np.random.default_rng((9, half, index))
    pixels = np.stack([crop(picture, net.side, rng) for _ in range(CROPS)])
    scores = net.backend.scores(net.prepare(pixels))
    best, other = scores.argmax(axis=1), np.argsort(scores, axis=1, kind="stable")[:, SIXTH]
    right = np.isin(best, item["imagenet_ok"])
    return Block(net, pixels[right], net.prepare(pixels)[right], best[right], other[right])


def whole(name: str, half: int, index: int) -> NDArray[np.uint8]:
    """Return a whole photograph at the model's size, or for ``digits`` a scene."""
    if name == "digits":
        return scene(name, half, index).pixels[0]
    return fit(half_of_photographs(half)[index][0], (network(name).side,) * 2)


def boxed(name: str, half: int, index: int) -> Block:
    """Return a whole photograph with its mask or boxes, empty if the model does not see the object.

    For the person detector those with a person, which are in neither half; for the others the
    photographs of a half.
    """
    net = network(name)
    persons = [item for item in manifest() if item.get("vww") == 1]
    if name == "VWW":
        item, wanted = persons[index], [1]
        picture = read_image(data() / item["file"])
    else:
        picture, item = half_of_photographs(half)[index]
        wanted = item["imagenet_ok"]
    pixels = fit(picture, (net.side, net.side))[None]
    best = net.backend.scores(net.prepare(pixels)).argmax(axis=1)
    kept = np.isin(best, wanted) & bool(item["boxes"])
    mask = _mask(item, net.side)[None] if item["boxes"] else np.zeros((1, 1, 1), bool)
    return Block(net, pixels[kept], net.prepare(pixels)[kept], best[kept], masks=mask[kept])


def _mask(item: dict[str, Any], side: int) -> NDArray[np.bool_]:
    """Return where an object is: its mask where there is one, else its boxes."""
    if item["mask"]:
        drawn = read_image(data() / item["mask"])
        return np.asarray(fit(drawn, (side, side)).max(axis=-1) > 127)
    mask = np.zeros((side, side), bool)
    for x0, y0, x1, y1 in np.array(item["boxes"]) * side:
        mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return mask


LOCALISATION = ("energy", "rank", "pointing")
FAITH = ("kept", "class")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One kind of block for one model."""

    name: str
    network: str
    make: Callable[[str, int, int], Block]
    count: int
    measures: tuple[str, ...]
    secondary: bool = False
    """Whether it only accompanies: nothing is decided by it."""


DATASETS = (
    DataSet("digit scenes", "digits", scene, 160, LOCALISATION + FAITH),
    *(
        DataSet(kind, net, make, 40, LOCALISATION)
        for net in ("MobileNetV2", "SqueezeNet")
        for kind, make in (("mosaics", clean_mosaic), ("noisy mosaics", noisy_mosaic))
    ),
    *(DataSet("photographs", net, photograph, 11, FAITH) for net in ("MobileNetV2", "SqueezeNet")),
    *(
        DataSet("boxes", net, boxed, count, LOCALISATION, secondary=True)
        for net, count in (("MobileNetV2", 11), ("SqueezeNet", 11), ("VWW", 5))
    ),
    DataSet("small mosaics", "ResNet-20", crops_mosaic, 20, LOCALISATION, secondary=True),
)
