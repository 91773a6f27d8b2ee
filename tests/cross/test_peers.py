"""Grad-CAM and its ingredients against captum's and torch-cam's, where the maths is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import zoo
from captum.attr import LayerActivation, LayerGradCam, LayerGradientXActivation
from torch_nets import batch, chain
from torchcam.methods import GradCAM

import cfcam_core as cfcam

TARGETS = (None, 3, [4, 0])
"""The best class of each sample, one for all, one for each."""

Case = tuple[Any, torch.Tensor, str]


def chains() -> list[Any]:
    """Signals, pictures and volumes, at an early, an inner and the last map."""
    return [
        pytest.param((axes, name), id=f"{axes}-D {name}")
        for axes in (1, 2, 3)
        for name in ("stem", "bend", "inner", "bend3")
    ]


def architectures() -> list[Any]:
    """Nets with residual sums, dense blocks, branches, gates and groups, at two layers each."""
    names = ("resnet50", "mobilenet_v2", "mobilenet_v3", "densenet121", "inception", "grouped")
    return [
        pytest.param((name, layer), id=f"{name} {layer}")
        for name in names
        for layer in ("last", "early")
    ]


@pytest.fixture(params=[*chains(), *architectures()])
def case(request: pytest.FixtureRequest) -> Case:
    kind, layer = request.param
    if isinstance(kind, int):
        return chain(kind), batch(kind), layer
    net = zoo.make(kind, small=True)
    return net.model, net.x, getattr(net, layer)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.filterwarnings("ignore:the map of sample")
def test_grad_cam(case: Case, target: Any) -> None:
    """Captum keeps the sign; torch-cam, even unnormalised, the positive part."""
    model, x, layer = case
    e = cfcam.explain(opened(model), x, layer=layer, target=target, method="grad-cam")
    module, classes = model.get_submodule(layer), e.targets.tolist()

    theirs = LayerGradCam(model, module).attribute(x.clone().requires_grad_(), classes)
    assert theirs.any()
    assert_close(e.maps, theirs[:, 0])

    with GradCAM(model, module) as cam:
        (positive,) = cam(classes, model(x.clone().requires_grad_()), normalized=False)
    assert_close(np.maximum(e.maps, 0), positive)


@pytest.mark.parametrize("target", TARGETS[1:], ids=str)
def test_activations_and_gradients(case: Case, target: Any) -> None:
    model, x, layer = case
    capture = opened(model).capture(x, layer=layer, target=target)
    module, classes = model.get_submodule(layer), capture.targets.tolist()
    watched = x.clone().requires_grad_()
    assert_close(capture.activations, LayerActivation(model, module).attribute(watched))
    product = LayerGradientXActivation(model, module).attribute(watched, classes)
    assert product.any()
    assert_close(capture.gradients * capture.activations, product)


def opened(model: Any) -> cfcam.Backend:
    """Open a model as the others do: what it returns is explained, a closing log-softmax too."""
    return cfcam.open_model(model, look_through=False)


def assert_close(found: np.ndarray, wanted: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    theirs = wanted.detach().numpy()
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())
