"""Architectures of the zoo: the default layer, its gradients, and the same from the ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_onnx
import cfcam_torch
import numpy as np
import pytest
import torch
from exporting import export, like_capture, reference
from zoo import SMALL, ZOO, make

CLASSES = [3, 7]


@pytest.mark.parametrize("name", ZOO)
def test_default_layers(name: str) -> None:
    net = make(name, small=True)
    with torch.no_grad():
        backend = cfcam_torch.open_model(net.model)
        capture = backend.capture(net.x, target=CLASSES)
    wanted = reference(net.model, net.x, net.last, CLASSES)
    for kind in ("activations", "gradients"):
        found = getattr(capture, kind)
        truth = like_capture(getattr(wanted, kind), found.shape)
        scale = np.abs(truth).max()
        np.testing.assert_allclose(
            found, truth, rtol=1e-4, atol=1e-5 * scale, err_msg=capture.layer
        )
    np.testing.assert_allclose(capture.scores, wanted.scores, rtol=1e-4, atol=1e-5)
    assert capture.gradients.any(axis=(1, 2, 3)).all()
    assert capture.input_size == (SMALL, SMALL)
    layers = backend.layers()
    assert [layer.is_default for layer in layers].count(True) == 1
    assert len({layer.name for layer in layers}) == len(layers)
    again = backend.scores_from(capture.activations, net.x)
    np.testing.assert_allclose(again, capture.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_early_layers(name: str) -> None:
    net = make(name, small=True)
    capture = cfcam_torch.open_model(net.model).capture(net.x, layer=net.early, target=CLASSES)
    wanted = reference(net.model, net.x, net.early, CLASSES)
    for kind in ("activations", "gradients"):
        found = getattr(capture, kind)
        truth = like_capture(getattr(wanted, kind), found.shape)
        np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-5 * np.abs(truth).max())


TWINS = (
    "resnet50",
    "vgg16",
    "densenet121",
    "inception",
    "convnext_t",
    "mobilevit_s",
    "vit_s",
    "swin_t",
)


@pytest.mark.parametrize("name", TWINS)
def test_the_file_gives_the_same(name: str, tmp_path: Path) -> None:
    """Same weights, same default, same map: PyTorch and the ONNX file exported from it."""
    net = make(name, small=True)
    export(net.model, net.x, tmp_path / "net.onnx", "legacy")
    twin: Any = cfcam_onnx.open_model(tmp_path / "net.onnx", threads=1)
    one = cfcam_torch.open_model(net.model).capture(net.x, target=CLASSES)
    other = twin.capture(net.x.numpy(), target=CLASSES)
    assert one.activations.shape == other.activations.shape, (one.layer, other.layer)
    for kind in ("activations", "gradients", "scores"):
        found, truth = getattr(one, kind), getattr(other, kind)
        scale = np.abs(truth).max()
        np.testing.assert_allclose(found, truth, rtol=1e-3, atol=1e-4 * scale, err_msg=kind)
    assert one.input_size == other.input_size
