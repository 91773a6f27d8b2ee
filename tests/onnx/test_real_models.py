"""Pretrained models on photographs: the classes are right, and the maps lie on the objects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import cfcam_onnx
import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from cfcam_core import Capture

pytestmark = pytest.mark.real

HARD = 2
"""Photographs of 22 that each network may get wrong; the manifest lists which it does."""


@dataclass
class Photo:
    pixels: np.ndarray
    classes: list[int]
    boxes: list[list[float]]
    known: dict[str, Any]


@pytest.fixture(scope="module")
def photos(real_data: Path) -> list[Photo]:
    manifest = json.loads((real_data / "MANIFEST.json").read_text())
    found = []
    for image in manifest["images"]:
        if image.get("imagenet_ok"):
            pixels = cv2.imread(str(real_data / image["file"]))[:, :, ::-1]
            small = cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA)
            found.append(Photo(small, image["imagenet_ok"], image["boxes"] or [], image["top1"]))
    assert len(found) == 22
    return found


@pytest.fixture(scope="module")
def loader(real_data: Path) -> Any:
    spec = spec_from_file_location("mobilenet_v2", real_data / "loaders" / "mobilenet_v2.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def for_mobilenet(photo: Photo) -> np.ndarray:
    return (photo.pixels / 127.5 - 1).transpose(2, 0, 1)


def for_squeezenet(photo: Photo) -> np.ndarray:
    return (photo.pixels[:, :, ::-1] - [103.939, 116.779, 123.68]).transpose(2, 0, 1)


def on_the_object(capture: Capture, photos: list[Photo]) -> tuple[float, float]:
    """Return the mean share of Grad-CAM's energy in the boxes, and that of their area."""
    energies, areas = [], []
    for photo, a, g in zip(photos, capture.activations, capture.gradients, strict=True):
        if not photo.boxes:
            continue
        cam = np.maximum(np.tensordot(g.mean(axis=(1, 2)), a, 1), 0)
        rows, columns = ((np.arange(n) + 0.5) / n for n in cam.shape)
        inside = np.zeros(cam.shape, bool)
        for x0, y0, x1, y1 in photo.boxes:
            inside |= np.outer((rows >= y0) & (rows <= y1), (columns >= x0) & (columns <= x1))
        energies.append(cam[inside].sum() / cam.sum())
        areas.append(inside.mean())
    return float(np.mean(energies)), float(np.mean(areas))


def right(capture: Capture, photos: list[Photo]) -> int:
    return sum(int(t) in p.classes for t, p in zip(capture.targets, photos, strict=True))


@pytest.fixture(scope="module")
def mobilenet(real_data: Path, loader: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mobilenet_v2.onnx"
    loader.build_onnx(real_data / "models" / "mobilenet_v2_imagenet_int8.npz", path)
    return path


def test_mobilenet(mobilenet: Path, photos: list[Photo]) -> None:
    backend = cfcam_onnx.open_model(mobilenet, threads=1)
    capture = backend.capture(np.stack([for_mobilenet(p) for p in photos]))
    assert capture.layer == "last.relu6"
    assert capture.activations.shape == (22, 1280, 7, 7)
    assert capture.input_size == (224, 224)
    assert backend.logits_behind == ()
    assert right(capture, photos) >= 22 - HARD
    energy, area = on_the_object(capture, photos)
    assert energy > area + 0.2, (energy, area)


@pytest.mark.parametrize("layer", ["last.relu6", "b16.project", "b13.project", "b12.add"])
def test_mobilenet_gradient_is_torch_autograd(
    mobilenet: Path, photos: list[Photo], loader: Any, real_data: Path, layer: str
) -> None:
    torch.set_num_threads(1)
    model = loader.build_torch(real_data / "models" / "mobilenet_v2_imagenet_int8.npz")
    x = np.stack([for_mobilenet(p) for p in photos[:4]]).astype(np.float32)
    capture = cfcam_onnx.open_model(mobilenet, threads=1).capture(x, layer=layer)
    blocks = {"last.relu6": 18, "b16.project": 17, "b13.project": 14, "b12.add": 13}
    ahead = model.features[: blocks[layer] + 1](torch.tensor(x)).detach().requires_grad_()
    logits = model.classifier(model.features[blocks[layer] + 1 :](ahead).mean((2, 3)))
    picked = logits[torch.arange(4), torch.tensor(capture.targets)].sum()
    (wanted,) = torch.autograd.grad(picked, ahead)
    np.testing.assert_allclose(capture.scores, logits.detach(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(capture.activations, ahead.detach(), rtol=1e-3, atol=1e-3)
    # a unit at the kink of ReLU6 may fall on either side: compare norms, not elements
    error = np.linalg.norm(capture.gradients - wanted.numpy()) / np.linalg.norm(wanted)
    assert error < (1e-6 if layer == "last.relu6" else 1e-2), error


def test_squeezenet_in_half_precision(real_data: Path, photos: list[Photo]) -> None:
    """Operator set 7, float16 input of fixed batch 1, softmax of four axes."""
    path = real_data / "models" / "squeezenet1_1_fp16.onnx"
    backend = cfcam_onnx.open_model(path, threads=1)
    assert backend.input_shape == (1, 3, 224, 224)
    assert backend.input_dtype == np.float16
    assert backend.logits_behind == ("Softmax",)
    assert backend.classes == 1000
    x = np.stack([for_squeezenet(p) for p in photos])
    capture = backend.capture(x)
    assert capture.layer == "fire9/concat_1"  # not the maps of single classes behind it
    assert capture.activations.shape == (22, 512, 13, 13)
    assert right(capture, photos) >= 22 - HARD
    energy, area = on_the_object(capture, photos)
    assert energy > area + 0.15, (energy, area)


@pytest.mark.parametrize(
    ("layer", "error"),
    [("conv10_2", 1e-3), ("fire9/concat_1", 1e-3), ("fire8/concat_1", 0.05), ("pool5_1", 0.15)],
)
def test_half_precision_loses_no_gradient(
    real_data: Path, photos: list[Photo], layer: str, error: float
) -> None:
    """The oracle is the same graph in float32; units that flip at a kink bound the agreement."""
    path = real_data / "models" / "squeezenet1_1_fp16.onnx"
    x = np.stack([for_squeezenet(p) for p in photos[:4]])
    half = cfcam_onnx.open_model(path, threads=1).capture(x, layer=layer, target=[1, 2, 3, 4])
    single = cfcam_onnx.open_model(in_single_precision(onnx.load(path)), threads=1)
    wanted = single.capture(x, layer=layer, target=[1, 2, 3, 4]).gradients
    assert np.linalg.norm(half.gradients - wanted) < error * np.linalg.norm(wanted)
    lost = (half.gradients == 0) & (wanted != 0)
    assert lost.mean() < 0.01


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT16:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def test_cntk_mnist(real_data: Path) -> None:
    """Operator set 7, automatic padding, weights reshaped at run time."""
    backend = cfcam_onnx.open_model(real_data / "models" / "mnist_cntk.onnx", threads=1)
    digits = np.load(real_data / "mnist_test_first100.npz")
    x = digits["x"].reshape(-1, 1, 28, 28).astype(np.float32)
    capture = backend.capture(x)
    assert capture.layer == "ReLU114_Output_0"
    assert capture.activations.shape == (100, 16, 14, 14)
    assert (capture.targets == digits["y"]).mean() >= 0.98
    cam = np.maximum(
        (capture.activations * capture.gradients.mean((2, 3), keepdims=True)).sum(1), 0
    )
    ink = x[:, 0].reshape(-1, 14, 2, 14, 2).max(axis=(2, 4)) > 0
    near = np.stack([np.roll(ink, shift, axis) for axis in (1, 2) for shift in (-1, 0, 1)]).any(0)
    energy = (cam * near).sum((1, 2)) / cam.sum((1, 2))
    assert energy.mean() > near.mean() + 0.15, (energy.mean(), near.mean())


@pytest.mark.parametrize("layer", ["Plus30_Output_0", "Pooling66_Output_0", "ReLU114_Output_0"])
def test_cntk_mnist_gradient_is_torch_autograd(real_data: Path, layer: str) -> None:
    """Slopes are no oracle here: on the black background whole pooling windows are tied."""
    f, path = torch.nn.functional, real_data / "models" / "mnist_cntk.onnx"
    tensors = onnx.load(path).graph.initializer
    w = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in tensors}
    digits = np.load(real_data / "mnist_test_first100.npz")
    x = digits["x"][:20].reshape(-1, 1, 28, 28).astype(np.float32)
    start = torch.tensor(x, requires_grad=True)
    first = f.conv2d(start, w["Parameter5"], padding=2) + w["Parameter6"]
    pooled = f.max_pool2d(f.relu(first), 2)
    second = f.relu(f.conv2d(pooled, w["Parameter87"], padding=2) + w["Parameter88"])
    flat = f.max_pool2d(second, 3).reshape(len(x), -1)
    logits = flat @ w["Parameter193"].reshape(-1, 10) + w["Parameter194"]
    seen = {"Plus30_Output_0": first, "Pooling66_Output_0": pooled, "ReLU114_Output_0": second}
    (wanted,) = torch.autograd.grad(logits[:, 3].sum(), seen[layer])
    capture = cfcam_onnx.open_model(path, threads=1).capture(x, layer=layer, target=3)
    np.testing.assert_allclose(capture.scores, logits.detach(), rtol=1e-4, atol=1e-2)
    assert np.linalg.norm(capture.gradients - wanted.numpy()) < 1e-4 * np.linalg.norm(wanted)
