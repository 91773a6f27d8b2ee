"""The main job on real input: pretrained ``.onnx`` files, photographs, the default settings."""

import importlib.util
import json

import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core.evaluation import energy_in_mask, pointing_game
from cfcam_core.images import ModelInput, prepare, read_image

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def photographs(real_data):
    """Return pictures with their ImageNet classes and a mask of their boxes at 224 x 224."""
    found = []
    for item in json.loads((real_data / "MANIFEST.json").read_text())["images"]:
        if item["imagenet_ok"] and item["boxes"]:
            mask = np.zeros((224, 224))
            for x0, y0, x1, y1 in np.array(item["boxes"]) * 224:
                mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = 1
            found.append((read_image(real_data / item["file"]), set(item["imagenet_ok"]), mask))
    assert len(found) == 20
    return found


@pytest.fixture(scope="module")
def mobilenet(real_data, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("m", real_data / "loaders/mobilenet_v2.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    path = tmp_path_factory.mktemp("model") / "mobilenet_v2.onnx"
    loader.build_onnx(real_data / "models/mobilenet_v2_imagenet_int8.npz", path)
    return path


@pytest.mark.parametrize(
    ("name", "preprocess", "gain", "pointing"),
    [("mobilenet", "tf", 0.25, 0.85), ("squeezenet", "caffe", 0.15, 0.8)],
)
def test_photographs(name, preprocess, gain, pointing, photographs, mobilenet, real_data):
    """Classes right, and the map on the object: energy in the boxes beyond their share of area."""
    squeezenet = real_data / "models/squeezenet1_1_fp16.onnx"
    model = cfcam.open_model(mobilenet if name == "mobilenet" else squeezenet)
    wanted = ModelInput.of(model)
    batch = np.concatenate([prepare(picture, wanted, preprocess) for picture, *_ in photographs])
    e = cfcam.explain(model, batch)
    right = [int(k) in classes for k, (_, classes, _) in zip(e.targets, photographs, strict=True)]
    assert sum(right) >= 18
    assert set(e.status) == {"ok"}
    masks = np.stack([mask for *_, mask in photographs])
    beyond = energy_in_mask(e.heatmaps, masks) - masks.mean(axis=(1, 2))
    assert beyond[right].mean() > gain
    assert pointing_game(e.heatmaps, masks)[right].mean() > pointing
    overlay = e[0].overlay(photographs[0][0])
    assert overlay.shape == photographs[0][0].shape


def test_digits(real_data):
    model = cfcam.open_model(real_data / "models/mnist_cntk.onnx")
    digits = np.load(real_data / "mnist_test_first100.npz")
    key = max(digits.files, key=lambda k: digits[k].ndim)
    images = digits[key].reshape(-1, 1, 28, 28).astype(np.float32)
    e = cfcam.explain(model, images)
    labels = next(digits[k] for k in digits.files if k != key)
    assert (e.targets == labels).mean() >= 0.97
    ok = np.array(e.status) == "ok"
    assert ok.mean() > 0.9
    ink = images[:, 0] > 0
    assert energy_in_mask(e.heatmaps[ok], ink[ok]).mean() > 1.3 * ink.mean()
