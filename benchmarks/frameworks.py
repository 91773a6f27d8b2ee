"""The same weights in PyTorch, Keras and ONNX: how far the maps are apart, and what they look like.

Run: ``CFCAM_TEST_DATA=... python benchmarks/frameworks.py [--picture]`` with the folder of
pretrained models and photographs. Each framework runs in a process of its own. A line a network,
layer, method and pair of frameworks: the largest difference of the heatmaps, which lie in [0, 1],
and of the maps as a share of their peak; on how many pictures more than 1e-4; on how many pictures
any label of CF-CAM differs; and the largest difference of the gradients, as a share of the largest.
``--picture`` draws some photographs with the overlay of each framework to
``examples/frameworks/sheet.png``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
HELPERS = ROOT / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))

from frameworks import FRAMEWORKS, NETWORKS, VARIANTS, at, difference, photographs
from overlay_sheet import WIDTH, Row, draw

from cfcam_core import png
from cfcam_core.images import fit, read_image
from cfcam_core.overlay import overlay

PICTURE = ROOT / "examples" / "frameworks" / "sheet.png"
TITLES = {"torch": "PyTorch", "keras": "Keras", "onnx": "ONNX"}


SHOWN = ("bird.bmp", "coco_000000215245.jpg", "hot_dog.jpg", "grace_hopper.bmp")
"""Photographs in the picture; their licences are in its README."""
NETWORK, LAYER, VARIANT = "MobileNetV2", "last", "default"
"""What the picture shows."""


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--picture", action="store_true")
    arguments = parser.parse_args()
    data = Path(os.environ["CFCAM_TEST_DATA"])
    found = everything(data)
    print(
        f"{'network':<13}{'layer':<10}{'method':<11}{'pair':<13}{'pictures':>8}{'heatmaps':>10}"
        f"{'maps':>9}{'> 1e-4':>8}{'labels':>8}{'gradients':>11}"
    )
    for line in lines(found):
        print(line)
    if arguments.picture:
        titles = ["photograph", *TITLES.values()]
        png.write(PICTURE, draw(titles, list(rows(found, data))))
        print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


def everything(data: Path) -> dict[str, NDArray[Any]]:
    """Explain everything in every framework, one after the other."""
    found: dict[str, NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for framework in FRAMEWORKS:
            command = [sys.executable, str(HELPERS / "frameworks.py"), framework, data, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own file
            if done.returncode:
                sys.exit(done.stderr)
            with np.load(Path(folder) / f"{framework}.npz") as arrays:
                found.update(arrays)
    return found


def lines(found: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Yield the table's lines."""
    for name, network in NETWORKS.items():
        for layer, names in network.layers.items():
            for variant in VARIANTS:
                for one, other in combinations(names, 2):
                    apart = difference(
                        at(found, f"{name}/{one}/{layer}"),
                        at(found, f"{name}/{other}/{layer}"),
                        variant,
                    )
                    far = int((np.maximum(apart.heatmaps, apart.maps) > 1e-4).sum())
                    labels = "-" if apart.labels is None else f"{(apart.labels > 0).sum()}"
                    yield (
                        f"{name:<13}{layer:<10}{variant:<11}{f'{one}, {other}':<13}"
                        f"{len(apart.maps):>8}{apart.heatmaps.max():>10.1e}"
                        f"{apart.maps.max():>9.1e}{far:>8}{labels:>8}"
                        f"{apart.gradients.max():>11.1e}"
                    )


def rows(found: Mapping[str, NDArray[Any]], data: Path) -> Iterator[Row]:
    """Yield the picture's rows: photograph, overlays, and how far they are from the first."""
    for n, item in enumerate(photographs(data)):
        path = data / item["file"]
        if path.name not in SHOWN:
            continue
        photo = shrunk(read_image(path))
        maps = [found[f"{NETWORK}/{f}/{LAYER}/{VARIANT}/heatmaps"][n] for f in TITLES]
        name = item["labels"][0].split(",")[0]
        yield Row(
            [photo, *(overlay(each[None], photo) for each in maps)],
            [name, "", *(f"within {one_digit(np.abs(m - maps[0]).max()):.0e}" for m in maps[1:])],
        )


def shrunk(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a photograph at twice the size of the sheet: overlays are smooth, reading is fast."""
    width = 2 * WIDTH
    return fit(photo, (round(width * photo.shape[0] / photo.shape[1]), width))


def one_digit(value: float) -> float:
    """Round up to one digit."""
    unit = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / unit) * unit)


if __name__ == "__main__":
    main()
