"""Every method against other libraries' where they compute the same, and from two frameworks.

What a library does otherwise is written down, and held, where it is met.
"""

from __future__ import annotations

from typing import Any

import conformance_onnx
import conformance_torch
import numpy as np
import pytest
import torch
from conformance_nets import NETS, golden
from other_cams import Zeroed, by_pytorch_grad_cam, by_torchcam
from torch import nn
from torch_nets import Apply, batch, chain

import cfcam_core as cfcam
from cfcam_core.methods import METHODS, find_method
from cfcam_core.methods.chance import seeded_by
from cfcam_core.settings import Settings

CLASSES = (3, 0)
"""What is explained of the two samples."""

pytestmark = pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")


def full() -> nn.Sequential:
    """Maps as large as the picture, positive and negative, and a head that is not linear."""
    maps = [nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d((3, 4)), nn.Flatten()]
    return nn.Sequential(*maps, nn.Linear(60, 6), nn.Tanh(), nn.Linear(6, 5)).eval()


CASES = {
    "rectified": (chain, "bend"),  # two more convolutions behind it: gradients vary
    "negative": (lambda: chain(2, nn.Tanh), "inner"),
    "non-linear head": (full, "1"),
    "linear head": (chain, "bend3"),  # gradients are the same everywhere
}
CURVED = ("rectified", "negative", "non-linear head")

Case = tuple[Any, str, torch.Tensor]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return made(request.param)


def made(name: str) -> Case:
    build, layer = CASES[name]
    return build(), layer, batch(2)


def louder(case: Case) -> Case:
    """Multiply all logits: next to large gradients, what others add to a denominator is nothing."""
    model, layer, x = case
    return nn.Sequential(*model, Apply(lambda y: y * 1e7)), layer_number(model, layer), x


def layer_number(model: nn.Sequential, layer: str) -> str:
    return str([name for name, _ in model.named_children()].index(layer))


def ours(method: str, case: Case) -> np.ndarray:
    model, layer, x = case
    maps = cfcam.explain(model, x, layer=layer, target=list(CLASSES), method=method).maps
    assert all(np.ptp(one) > 0 for one in maps)
    return maps


def assert_close(found: np.ndarray, wanted: np.ndarray, *, tolerance: float = 1e-5) -> None:
    """Equal, sample by sample, to a share of the peak."""
    assert found.shape == wanted.shape
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ("grad-cam", "GradCAM"),
        ("hires-cam", "HiResCAM"),
        ("xgrad-cam", "XGradCAM"),
        ("layer-cam", "LayerCAM"),
    ],
)
def test_pytorch_grad_cam(case: Case, method: str, other: str) -> None:
    assert_close(ours(method, case), by_pytorch_grad_cam(other, *case, CLASSES))


@pytest.mark.parametrize(
    ("method", "other"),
    [("grad-cam", "GradCAM"), ("xgrad-cam", "XGradCAM"), ("layer-cam", "LayerCAM")],
)
def test_torchcam(case: Case, method: str, other: str) -> None:
    assert_close(ours(method, case), by_torchcam(other, *case, CLASSES))


def test_grad_cam_plus_plus(case: Case) -> None:
    """Pytorch-grad-cam adds 1e-6 to the denominator."""
    loud = louder(case)
    theirs = by_pytorch_grad_cam("GradCAMPlusPlus", *loud, CLASSES)
    assert_close(ours("grad-cam++", loud), theirs)


def test_grad_cam_plus_plus_of_torchcam(case: Case) -> None:
    """It divides a copy: what counts there is the undivided cube of the positive gradient."""
    model, layer, x = case
    capture = cfcam.open_model(model).capture(x, layer=layer, target=list(CLASSES))
    weights = (np.maximum(capture.gradients, 0) ** 3).sum(axis=(2, 3))
    undivided = np.einsum("nc,nchw->nhw", weights, capture.activations)
    assert_close(undivided, by_torchcam("GradCAMpp", *case, CLASSES))


def test_eigen_cam(case: Case) -> None:
    """Pytorch-grad-cam takes each channel's mean away first; its sign is that of the library."""
    model, layer, x = case
    A = cfcam.open_model(model).capture(x, layer=layer).activations
    centred = A - A.mean(axis=(2, 3), keepdims=True)
    found = [find_method("eigen-cam").function(a, a, Settings()).map for a in centred]
    theirs = by_pytorch_grad_cam("EigenCAM", *case, CLASSES)
    assert_close(np.stack(found), turned(theirs, np.stack(found)))


def test_eigen_cam_is_the_singular_vector(case: Case) -> None:
    """Against the whole decomposition of what was not centred."""
    model, layer, x = case
    A = cfcam.open_model(model).capture(x, layer=layer).activations
    for a, found in zip(A, ours("eigen-cam", case), strict=True):
        matrix = a.reshape(len(a), -1).T.astype(np.float64)
        _, _, vectors = np.linalg.svd(matrix)
        flat = matrix @ vectors[0]
        assert found.sum() > 0
        assert_close(found[None], (flat * np.sign(flat.sum())).reshape(1, *found.shape))


def test_eigen_grad_cam(case: Case) -> None:
    """The sign is ours: along with HiResCAM's map."""
    found = ours("eigen-grad-cam", case)
    theirs = by_pytorch_grad_cam("EigenGradCAM", *case, CLASSES)
    assert_close(found, turned(theirs, found))
    hires = ours("hires-cam", case)
    for one, along in zip(found, hires, strict=True):
        assert np.corrcoef(one.ravel(), along.ravel())[0, 1] > 0


def turned(maps: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give each map the sign that it has in `like`."""
    return maps * np.sign((maps * like).sum(axis=(1, 2), keepdims=True))


def test_score_cam(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a factor: in both others, channels that are dead have a share in the softmax.

    Pytorch-grad-cam aligns corners where it lays maps over the picture; told not to, it agrees
    everywhere. Torchcam stretches maps before it enlarges them: that is the same where they need
    not be enlarged."""
    found = of_peak(ours("score-cam", case))

    def enlarging(size: Any) -> nn.Module:
        return nn.Upsample(size, mode="bilinear", align_corners=False)

    monkeypatch.setattr(nn, "UpsamplingBilinear2d", enlarging)
    assert_close(found, of_peak(by_pytorch_grad_cam("ScoreCAM", *case, CLASSES)))
    if found.shape[1:] == case[2].shape[2:]:
        assert_close(found, of_peak(by_torchcam("ScoreCAM", *case, CLASSES)))


def of_peak(maps: np.ndarray) -> np.ndarray:
    return maps / np.abs(maps).max(axis=(1, 2), keepdims=True)


def test_ablation_cam(case: Case) -> None:
    """Pytorch-grad-cam divides by the logit, not its magnitude. Where activations are negative it
    sets a channel far below them; told to set zeros, as the paper does, it agrees."""
    model, _, x = case
    theirs = by_pytorch_grad_cam("AblationCAM", *case, CLASSES, ablation_layer=Zeroed())
    y = cfcam.open_model(model).scores(x)[np.arange(2), CLASSES]
    assert_close(ours("ablation-cam", case), theirs * np.sign(y)[:, None, None])


def test_smooth_grad_cam_plus_plus_of_torchcam() -> None:
    """Where gradients are the same everywhere, torchcam's sums over other positions are ours, and
    its last noisy picture stands for all. It shows that one's activations: hence no noise to speak
    of."""
    loud = louder(made("linear head"))
    theirs = by_torchcam("SmoothGradCAMpp", *loud, CLASSES, num_samples=3, std=1e-9)
    assert_close(ours("smooth-grad-cam++", loud), theirs)


@pytest.mark.parametrize("name", CURVED)
def test_smooth_grad_cam_plus_plus(name: str) -> None:
    """Against the formula, with autograd in float64, noisy picture by noisy picture."""
    model, layer, x = made(name)
    cut = [child for child, _ in model.named_children()].index(layer) + 1
    front, back = model[:cut].double(), model[cut:].double()
    wanted = []
    for sample, k in zip(x, CLASSES, strict=True):
        width = 0.15 * float(sample.max() - sample.min())
        noise = seeded_by(sample.numpy()).standard_normal((25, *sample.shape), np.float32)
        powers = torch.zeros(3, *front(sample[None].double()).shape[1:], dtype=torch.float64)
        for one in noise:
            maps = front((sample + width * torch.tensor(one))[None].double()).detach()
            maps.requires_grad_()
            (gradient,) = torch.autograd.grad(back(maps)[0, k], maps)
            powers += torch.stack([gradient[0], gradient[0] ** 2, gradient[0] ** 3]) / 25
        A = front(sample[None].double())[0].detach()
        first, second, third = powers
        below = 2 * second + A.sum((1, 2), keepdim=True) * third
        alpha = torch.where(below != 0, second / torch.where(below != 0, below, 1), 0)
        weights = (alpha * first.clamp(min=0)).sum((1, 2))
        wanted.append(torch.einsum("c,chw->hw", weights, A).numpy())
    model.float()
    found = ours("smooth-grad-cam++", (model, layer, x))
    assert_close(found, np.stack(wanted), tolerance=1e-4)  # gradients of float32, cubed


# -------------------------------------------------------------------------- the same from two sides


def opposed(scores: np.ndarray) -> np.ndarray:
    return scores[:, 1] - 0.5 * scores[:, 2]


@pytest.fixture(scope="module", params=NETS)
def twins(request: pytest.FixtureRequest) -> Any:
    """The same weights in PyTorch and ONNX."""
    net = golden(request.param)
    built = (part.build(net, softmax=False) for part in (conformance_torch, conformance_onnx))
    return net.x, *map(cfcam.open_model, built)


@pytest.mark.parametrize("method", cfcam.methods())
@pytest.mark.parametrize(
    ("layer", "target"),
    [(None, None), ("block", [2, 0, 1]), (["stem", "last"], opposed)],
    ids=["default", "each its own class", "fused, a function"],
)
def test_two_frameworks(twins: Any, method: str, layer: Any, target: Any) -> None:
    """One map, to 1e-4; also of several layers, and of what is no single class."""
    x, *models = twins
    a, b = (cfcam.explain(m, x, layer=layer, target=target, method=method) for m in models)
    assert a.status == b.status
    assert_close(a.maps, b.maps, tolerance=1e-4)
    np.testing.assert_allclose(a.heatmaps, b.heatmaps, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(a.targets, b.targets)
    own = target[1:2] if isinstance(target, list) else target
    one = cfcam.explain(models[1], x[1:2], layer=layer, target=own, method=method)
    np.testing.assert_allclose(one.heatmaps[0], b.heatmaps[1], rtol=0, atol=1e-4)


def test_every_method_is_compared() -> None:
    """A new method is to be added above; CF-CAM and the noise have tests of their own."""
    here = {
        *("cf-cam", "random", "grad-cam", "hires-cam", "xgrad-cam", "layer-cam", "grad-cam++"),
        *("eigen-cam", "eigen-grad-cam", "score-cam", "ablation-cam", "smooth-grad-cam++"),
    }
    assert set(METHODS) == here
