"""The same pretrained networks in several frameworks, explained: for tests and for the table.

``python tests/helpers/frameworks.py keras DATA FOLDER`` writes what one framework says to
``FOLDER/keras.npz``: TensorFlow has a process of its own. PyTorch and Keras also export what ONNX
then opens, so ONNX comes last.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
from numpy.typing import NDArray

import cfcam_core as cfcam
from cfcam_core.errors import BlankMapWarning
from cfcam_core.images import fit, read_image

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "reference": {"settings": cfcam.Settings.preset("reference")},
    "grad-cam": {"method": "grad-cam"},
    "hires-cam": {"method": "hires-cam"},
}
"""What is explained in every framework, as arguments of `cfcam_core.explain_arrays`."""

FRAMEWORKS = ("torch", "keras", "onnx")


@dataclass(frozen=True, slots=True)
class Network:
    """Pretrained weights that several frameworks run."""

    pictures: str
    """Which pictures it looks at."""
    side: int
    layers: Mapping[str, Mapping[str, str | None]]
    """Layers by a name of ours, and what each framework calls them; None is the default."""
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """Makes channels-last input of pictures (N, H, W, 3)."""


def _imagenet(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    mean, spread = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return (np.float32(pictures) / np.float32(255) - mean) / spread


NETWORKS = {
    "MobileNetV2": Network(
        "photographs",
        224,
        {
            "last": {"torch": None, "keras": None, "onnx": None},
            "block 16": {
                "torch": "features.17",
                "keras": "block_16_project_BN",
                "onnx": "b16.project",
            },
            "block 13": {
                "torch": "features.14",
                "keras": "block_13_project_BN",
                "onnx": "b13.project",
            },
        },
        lambda pictures: np.float32(pictures) / np.float32(127.5) - 1,
    ),
    "ResNet-20": Network(
        "crops",
        32,
        {
            "last": {"torch": None, "onnx": None},
            "layer3.1": {"torch": "layer3.1", "onnx": "layer3.1"},
        },
        _imagenet,
    ),
    "VWW": Network(
        "photographs",
        96,
        {"last": {"keras": None, "h5": None, "onnx": None}},
        lambda pictures: np.float32(pictures) / np.float32(255),
    ),
}


def photographs(data: Path) -> list[dict[str, Any]]:
    """Return what the manifest says of each photograph."""
    found: list[dict[str, Any]] = json.loads((data / "MANIFEST.json").read_text())["images"]
    return found


def pictures(network: Network, data: Path) -> NDArray[np.uint8]:
    """Return all pictures that a network looks at, (N, side, side, 3)."""
    paths = (
        sorted((data / "cifar_crops").glob("*.png"))
        if network.pictures == "crops"
        else [data / item["file"] for item in photographs(data)]
    )
    return np.stack([fit(read_image(path), (network.side, network.side)) for path in paths])


def loader(name: str, data: Path) -> Any:
    """Import one of the modules that build the networks."""
    spec = importlib.util.spec_from_file_location(name, data / "loaders" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def models(framework: str, data: Path, folder: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield network, kind of model, and the model, of one framework.

    Models that only another framework can export are written to the folder on the way.
    """
    weights = data / "models"
    mobilenet = loader("mobilenet_v2", data)
    quantized = weights / "mobilenet_v2_imagenet_int8.npz"
    if framework == "torch":
        import torch
        from exporting import export

        torch.set_num_threads(1)
        yield "MobileNetV2", "torch", mobilenet.build_torch(quantized)
        resnet = loader("resnet_cifar", data).load(weights / "resnet20-12fca82f.th", 20)
        export(resnet, torch.zeros(2, 3, 32, 32), folder / "resnet20.onnx", "dynamo")
        yield "ResNet-20", "torch", resnet
    elif framework == "keras":
        import keras

        yield "MobileNetV2", "keras", mobilenet.build_keras(quantized)
        yield "VWW", "keras", weights / "vww_96.keras"
        yield "VWW", "h5", loader("vww", data).load_original_h5(weights / "vww_96.h5")
        vww = keras.models.load_model(weights / "vww_96.keras", compile=False)
        vww([np.zeros((1, 96, 96, 3), np.float32)])  # or the exporter says it was never called
        vww.export(folder / "vww.onnx", format="onnx", verbose=False)
    else:
        mobilenet.build_onnx(quantized, folder / "mobilenet_v2.onnx")
        yield "MobileNetV2", "onnx", folder / "mobilenet_v2.onnx"
        yield "ResNet-20", "onnx", folder / "resnet20.onnx"
        yield "VWW", "onnx", folder / "vww.onnx"


def explained(framework: str, data: Path, folder: Path) -> dict[str, NDArray[Any]]:
    """Explain every picture with every network that a framework has.

    Returns
    -------
    dict of str to ndarray
        By ``network/kind/layer/variant/field``; fields are those of `cfcam_core.Explanation`, and
        for the variant ``capture`` activations and gradients.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, kind, model in models(framework, data, folder):
        network = NETWORKS[name]
        opened = cfcam.open_model(model)
        batch = network.prepare(pictures(network, data))
        if channels_first(opened, kind):
            batch = np.ascontiguousarray(np.moveaxis(batch, -1, 1))
        for label, names in network.layers.items():
            layer = names[kind]
            capture = opened.capture(batch, layer=layer)
            place = f"{name}/{kind}/{label}"
            for field in ("activations", "gradients", "scores", "targets"):
                found[f"{place}/capture/{field}"] = getattr(capture, field)
            size = capture.input_size
            for variant, how in VARIANTS.items():
                e = (
                    cfcam.explain_arrays(capture.activations, capture.gradients, size=size, **how)
                    if how  # the model need not run again
                    else cfcam.explain(opened, batch, layer=layer)
                )
                for field in ("heatmaps", "maps"):
                    found[f"{place}/{variant}/{field}"] = getattr(e, field)
                if e.labels is not None:
                    found[f"{place}/{variant}/labels"] = e.labels
    return found


def channels_first(opened: Any, kind: str) -> bool:
    """Return whether a model takes (N, C, H, W)."""
    return kind == "torch" or getattr(opened, "input_layout", "") == "channels_first"


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """How far the explanations of one framework are from those of another, sample by sample."""

    heatmaps: NDArray[np.floating[Any]]
    """(N,): largest difference of the heatmaps, which lie in [0, 1]."""
    maps: NDArray[np.floating[Any]]
    """(N,): largest difference of the maps, as a share of their peak; of the default, which is
    nowhere negative, of that of HiResCAM: the same evidence with its sign."""
    labels: NDArray[np.intp] | None
    """(N,): number of channels with different labels; None for methods that do not cluster."""
    gradients: NDArray[np.floating[Any]]
    """(N,): largest difference of the gradients, as a share of the largest."""


def difference(
    one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], variant: str
) -> Difference:
    """Compare two sets of fields, as `at` returns them."""

    def apart(field: str, *, share_of: str | None = None) -> NDArray[np.floating[Any]]:
        a, b = (each[field].reshape(len(each[field]), -1) for each in (one, other))
        whole = np.ones((len(b), 1)) if share_of is None else other[share_of]
        peak = np.abs(whole.reshape(len(b), -1)).max(axis=1)
        return np.asarray(np.abs(a - b).max(axis=1) / np.where(peak > 0, peak, 1))

    labels, maps = f"{variant}/labels", f"{variant}/maps"
    signed = "hires-cam/maps" if variant == "default" else maps  # ours has the positive part alone
    return Difference(
        apart(f"{variant}/heatmaps"),
        apart(maps, share_of=signed),
        (one[labels] != other[labels]).sum(axis=1) if labels in one else None,
        apart("capture/gradients", share_of="capture/gradients"),
    )


def at(found: Mapping[str, NDArray[Any]], place: str) -> dict[str, NDArray[Any]]:
    """Return what was found at ``network/kind/layer``, by ``variant/field``."""
    start = f"{place}/"
    return {key.removeprefix(start): v for key, v in found.items() if key.startswith(start)}


def main() -> None:
    """Write what one framework says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", BlankMapWarning)
    found = explained(arguments.framework, arguments.data, arguments.folder)
    np.savez(arguments.folder / f"{arguments.framework}.npz", **found)


if __name__ == "__main__":
    main()
