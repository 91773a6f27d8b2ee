"""Which settings of CF-CAM point at the right picture of a mosaic: the grid pointing game.

Run: ``CFCAM_TEST_DATA=... python benchmarks/localisation.py`` with the folder of pretrained models
and photographs. Each mosaic holds four photographs of different classes that the model gets right
one by one; each class is explained in turn, clean and with Gaussian noise (standard deviation 0.15
of the pixel range). The number is the share of the positive map's energy in the right cell; chance
is 0.25.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

import cfcam_core as cfcam
from cfcam_core.errors import BlankMapWarning
from cfcam_core.images import fit, read_image

SIDE = 224
NOISE = 0.15
DEFAULT = cfcam.Settings()
VARIANTS: dict[str, tuple[str, cfcam.Settings]] = {
    "grad-cam": ("grad-cam", DEFAULT),
    "hires-cam": ("hires-cam", DEFAULT),
    "cf-cam reference": ("cf-cam", cfcam.Settings.preset("reference")),
    "cf-cam paper": ("cf-cam", cfcam.Settings.preset("paper")),
    "cf-cam default": ("cf-cam", DEFAULT),
    "  average=directions": ("cf-cam", replace(DEFAULT, average="directions")),
    "  average=gradients": ("cf-cam", replace(DEFAULT, average="gradients")),
    "  no sign split": ("cf-cam", replace(DEFAULT, sign_split=False)),
    "  no dominant channels": ("cf-cam", replace(DEFAULT, dominant_percentile=None)),
    "  noise kept": ("cf-cam", replace(DEFAULT, noise="keep")),
    "  eps_percentile=2": ("cf-cam", replace(DEFAULT, eps_percentile=2.0)),
    "  filter=none": ("cf-cam", replace(DEFAULT, filter="none")),
    "  filter=gaussian": ("cf-cam", replace(DEFAULT, filter="gaussian")),
    "  clustered contributions": ("cf-cam", replace(DEFAULT, cluster_on="contributions")),
}


@dataclass(frozen=True)
class Classifier:
    """A pretrained model opened for mosaics, and how pixels become its input."""

    name: str
    backend: cfcam.Backend
    layers: tuple[str | None, ...]
    preprocess: Callable[[np.ndarray], np.ndarray]


def classifiers(data: Path, folder: Path) -> Iterator[Classifier]:
    """Yield MobileNetV2 and SqueezeNet 1.1 (in float32), their input size left open."""
    spec = importlib.util.spec_from_file_location("mobilenet", data / "loaders/mobilenet_v2.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    path = folder / "mobilenet_v2.onnx"
    loader.build_onnx(data / "models/mobilenet_v2_imagenet_int8.npz", path)
    mobilenet = open_any_size(onnx.load(path))
    yield Classifier(
        "MobileNetV2",
        mobilenet,
        (None, "b14.add", "b11.add", "b7.add"),
        lambda x: np.float32(x / 127.5 - 1).transpose(2, 0, 1),
    )
    squeezenet = open_any_size(onnx.load(data / "models/squeezenet1_1_fp16.onnx"))
    yield Classifier(
        "SqueezeNet",
        squeezenet,
        (None, "fire7/concat_1", "fire5/concat_1"),
        lambda x: np.float32(x[..., ::-1] - [103.939, 116.779, 123.68]).transpose(2, 0, 1),
    )


def open_any_size(model: onnx.ModelProto) -> cfcam.Backend:
    """Free batch, height and width of a model whose graph does not depend on them; use float32."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            single = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(single, tensor.name))
    weights = {tensor.name for tensor in graph.initializer}
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT16:
            kind.elem_type = onnx.TensorProto.FLOAT
        if value.name not in weights and len(kind.shape.dim) == 4:
            for axis, name in ((0, "N"), (2, "H"), (3, "W")):
                kind.shape.dim[axis].dim_param = f"{value.name}_{name}"
    del graph.value_info[:]
    return cfcam.open_model(model)


def photographs(data: Path) -> list[tuple[np.ndarray, set[int]]]:
    """Return the photographs with known ImageNet classes at the models' input size."""
    manifest = json.loads((data / "MANIFEST.json").read_text())
    return [
        (fit(read_image(data / item["file"]), (SIDE, SIDE)), set(item["imagenet_ok"]))
        for item in manifest["images"]
        if item["imagenet_ok"]
    ]


def mosaics(
    model: Classifier, photos: list[tuple[np.ndarray, set[int]]], count: int, seed: int
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield 2 x 2 mosaics of photographs that the model gets right, with the cells' classes."""
    right = []
    for picture, classes in photos:
        best = int(model.backend.scores(model.preprocess(picture)[None]).argmax())
        if best in classes:
            right.append((picture, best))
    rng = np.random.default_rng(seed)
    made = 0
    while made < count:
        chosen = [right[i] for i in rng.choice(len(right), 4, replace=False)]
        if len({label for _, label in chosen}) == 4:
            made += 1
            a, b, c, d = (picture for picture, _ in chosen)
            yield np.vstack([np.hstack([a, b]), np.hstack([c, d])]), [k for _, k in chosen]


def energy_in_cell(heatmap: np.ndarray, cell: int) -> float:
    """Return the share of a heatmap in one quarter; chance for a blank one."""
    half = np.array(heatmap.shape) // 2
    quarters = heatmap.reshape(2, half[0], 2, half[1]).sum(axis=(1, 3)).ravel()
    return float(quarters[cell] / quarters.sum()) if quarters.any() else 0.25


def evaluate(model: Classifier, scenes: list[tuple[np.ndarray, list[int]]], seed: int) -> dict:
    """Return for each variant the energies of every (layer, clean or noisy)."""
    rng = np.random.default_rng(seed)
    energies: dict[str, dict[tuple[str, bool], list[float]]] = {name: {} for name in VARIANTS}
    for scene, labels in scenes:
        for noisy in (False, True):
            spread = 255 * NOISE if noisy else 0.0
            pixels = np.clip(scene + rng.normal(0, 1, scene.shape) * spread, 0, 255)
            batch = np.repeat(model.preprocess(pixels)[None], 4, axis=0)
            for layer in model.layers:
                capture = model.backend.capture(batch, layer=layer, target=labels)
                for name, (method, settings) in VARIANTS.items():
                    found = cfcam.explain_arrays(
                        capture.activations,
                        capture.gradients,
                        method=method,
                        settings=settings,
                        size=(56, 56),
                    )
                    energies[name].setdefault((capture.layer, noisy), []).extend(
                        energy_in_cell(h, cell) for cell, h in enumerate(found.heatmaps)
                    )
    return energies


def main() -> None:
    """Print a table a model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mosaics", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", BlankMapWarning)  # a blank map counts as chance
    data = Path(os.environ["CFCAM_TEST_DATA"])
    photos = photographs(data)
    with tempfile.TemporaryDirectory() as folder:
        for model in classifiers(data, Path(folder)):
            scenes = list(mosaics(model, photos, arguments.mosaics, arguments.seed))
            energies = evaluate(model, scenes, arguments.seed)
            columns = list(energies["grad-cam"])
            print(f"\n{model.name}: {4 * len(scenes)} targets, energy in the right cell")
            heads = [f"{layer}{' noisy' if noisy else ''}" for layer, noisy in columns]
            print(f"{'':<24}" + "".join(f"{head:>22}" for head in heads) + f"{'mean':>9}")
            for name, cells in energies.items():
                means = [np.mean(cells[column]) for column in columns]
                numbers = "".join(f"{m:>22.3f}" for m in means)
                print(f"{name:<24}{numbers}{np.mean(means):>9.4f}", flush=True)


if __name__ == "__main__":
    main()
