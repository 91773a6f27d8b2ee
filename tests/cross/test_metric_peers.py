"""Measures of faithfulness and complexity against torch-cam's, pytorch-grad-cam's and Quantus's.

The published code's own, and curves of several channels, against its formulas in PyTorch.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import other_cams
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange, DropInConfidence
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from skimage.metrics import structural_similarity
from torch import nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

from cfcam_core import evaluation
from cfcam_core.evaluation.published import GAIN_FILL, window_ssim
from cfcam_core.evaluation.road import filled_in

assert (
    other_cams.grad_cams
)  # it imports pytorch-grad-cam without torchvision, which must come first

SAMPLES, SIDE = 6, 10
TARGETS = [0, 3, 1, 2, 4, 0]


def net(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(5),
    ).eval()


def data(channels: int = 3, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures and heatmaps in [0, 1] whose values all differ and reach 1."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, channels, side, side)).astype(np.float32)
    heat = rng.permuted(np.tile(np.arange(1.0, side * side + 1), (SAMPLES, 1)), axis=1)
    return x, (heat.reshape(SAMPLES, side, side) / (side * side)).astype(np.float32)


def chances(model: nn.Module, x: Any, targets: Any = TARGETS) -> np.ndarray:
    """Return the probability of each sample's class."""
    with torch.no_grad():
        found = torch.softmax(model(torch.as_tensor(x, dtype=torch.float32)), dim=1).numpy()
    return found[np.arange(len(found)), targets]


class Given:
    """What torch-cam takes for a method: it returns the maps it is given."""

    def __init__(self, model: nn.Module, heat: np.ndarray) -> None:
        self.model, self.heat = model, torch.from_numpy(heat)

    def __call__(self, class_idx: Any, scores: Any, **_: Any) -> list[torch.Tensor]:
        return [self.heat]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


def test_drop_and_increase_are_torch_cams():
    model, (x, heat) = net(), data()
    model(torch.from_numpy(x))
    drops = evaluation.average_drop(model, x, heat, target=TARGETS)
    rises = evaluation.average_increase(model, x, heat, target=TARGETS)
    assert 0 < rises.sum() < SAMPLES
    for n in range(SAMPLES):
        metric = ClassificationMetric(
            Given(model, heat[n : n + 1]), lambda logits: torch.softmax(logits, -1)
        )
        metric.update(torch.from_numpy(x[n : n + 1]), TARGETS[n])
        theirs = metric.summary()
        assert drops[n] == pytest.approx(theirs["avg_drop"], rel=1e-4, abs=1e-6)
        assert rises[n] == theirs["conf_increase"]


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur"])
def test_deletion_and_insertion_are_torch_cams(baseline):
    model, (x, heat) = net(), data()
    model(torch.from_numpy(x))
    heat = np.float32(heat > 0.4) + np.float32(heat > 0.7)  # ties, many of them
    base = torch.from_numpy(evaluation.baseline_pictures(x, baseline).copy())
    how = {"target": TARGETS, "baseline": baseline, "steps": 20}
    deleted = evaluation.deletion(model, x, heat, **how).auc
    inserted = evaluation.insertion(model, x, heat, **how).auc
    for n in range(SAMPLES):
        metric = DeletionInsertionMetric(
            Given(model, heat[n : n + 1]),
            lambda logits: torch.softmax(logits, -1),
            baseline=base[n : n + 1],
        )
        metric.update(torch.from_numpy(x[n : n + 1]), TARGETS[n])
        theirs = metric.summary()
        assert deleted[n] == pytest.approx(theirs["deletion_auc"], rel=1e-5)
        assert inserted[n] == pytest.approx(theirs["insertion_auc"], rel=1e-5)


def test_drop_and_gain_are_pytorch_grad_cams_differences():
    model, (x, heat) = net(), data()
    model(torch.from_numpy(x))
    targets = [ClassifierOutputSoftmaxTarget(k) for k in TARGETS]
    how = (torch.from_numpy(x), heat, targets, model)
    found = evaluation.masked_confidence(model, x, heat, target=TARGETS)
    np.testing.assert_allclose(found.before, chances(model, x), rtol=1e-5)
    np.testing.assert_allclose(found.drop * found.before, DropInConfidence()(*how), atol=1e-6)
    change = CamMultImageConfidenceChange()(*how)
    np.testing.assert_allclose(found.after - found.before, change, atol=1e-6)
    gains = evaluation.average_gain(model, x, heat, target=TARGETS)
    np.testing.assert_allclose(gains * (1 - found.before), np.maximum(change, 0), atol=1e-6)


OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
"""pytorch-grad-cam hands tensors to NumPy."""


@OLD_NUMPY
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_filled_in_pixels_are_pytorch_grad_cams(share):
    x, heat = data(side=16)
    for picture, one in zip(x, heat, strict=True):
        theirs = NoisyLinearImputer(noise=0)(
            torch.from_numpy(picture), torch.from_numpy(np.float32(one >= share))
        )
        np.testing.assert_allclose(filled_in(picture, one < share), theirs, atol=1e-6)


@OLD_NUMPY
def test_road_is_pytorch_grad_cams(monkeypatch):
    model, (x, heat) = net(), data()
    model(torch.from_numpy(x))
    monkeypatch.setattr(NoisyLinearImputer, "__init__", lambda self: setattr(self, "noise", 0))
    targets = [ClassifierOutputSoftmaxTarget(k) for k in TARGETS]
    theirs = ROADCombined()(torch.from_numpy(x), heat, targets, model)
    ours = evaluation.road(model, x, heat, target=TARGETS, noise=0)
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.fixture(scope="module")
def quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus

        return quantus


def flipped(quantus: Any, model: nn.Module, x: np.ndarray, heat: np.ndarray, to: Any) -> np.ndarray:
    """Return Quantus's pixel-flipping curves (N, S), five pixels a step."""

    def put(arr: np.ndarray, indices: np.ndarray, **_: Any) -> np.ndarray:
        out = arr.copy()
        np.put_along_axis(out, indices, np.take_along_axis(to, indices, axis=1), axis=1)
        return out

    metric = quantus.PixelFlipping(
        features_in_step=5, perturb_func=put, abs=False, normalise=False, disable_warnings=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(
            metric(
                model=model,
                x_batch=x.copy(),
                y_batch=np.array(TARGETS),
                a_batch=heat[:, None].copy(),
                softmax=True,
            )
        )


def test_deletion_and_insertion_are_quantus_pixel_flipping(quantus):
    model, (x, heat) = net(1), data(1)
    model(torch.from_numpy(x))
    blurred = evaluation.baseline_pictures(x, "blur").copy()
    for measure, start, end in (
        (evaluation.deletion, x, np.zeros_like(x)),
        (evaluation.insertion, blurred, x),
    ):
        ours = measure(model, x, heat, target=TARGETS, steps=20)
        theirs = flipped(quantus, model, start, heat, end.reshape(SAMPLES, -1))
        np.testing.assert_allclose(ours.probabilities[:, 1:], theirs, atol=1e-6)
        np.testing.assert_allclose(ours.probabilities[:, 0], chances(model, start), atol=1e-6)


def test_complexity_is_quantus(quantus):
    heat = data()[1]
    heat[0, :5] = 0
    heat[1] = -heat[1]
    how = {"abs": True, "normalise": False, "disable_warnings": True}
    for ours, theirs in (
        (evaluation.sparseness, quantus.Sparseness(**how)),
        (evaluation.complexity, quantus.Complexity(**how)),
        (
            lambda h: evaluation.effective_complexity(h, threshold=0.305),
            quantus.EffectiveComplexity(eps=0.305, **how),
        ),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = theirs(
                model=None,
                x_batch=np.zeros((SAMPLES, 1, SIDE, SIDE), np.float32),
                y_batch=np.zeros(SAMPLES, int),
                a_batch=heat[:, None].copy(),
            )
        np.testing.assert_allclose(ours(heat), np.ravel(found), rtol=1e-4)


def test_localisation_is_quantus(quantus):
    """Positive maps without ties: what else there is, that library counts otherwise."""
    heat = np.abs(data()[1]) + 0.01
    masks = np.random.default_rng(4).random(heat.shape) < 0.3
    masks[0] |= heat[0] == heat[0].max()  # one that the highest point hits, and one that it misses
    masks[1] &= heat[1] < heat[1].max()
    how = {"abs": False, "normalise": False, "disable_warnings": True}
    for ours, theirs in (
        (evaluation.energy_in_mask, quantus.RelevanceMassAccuracy(**how)),
        (evaluation.rank_accuracy, quantus.RelevanceRankAccuracy(**how)),
        (evaluation.pointing_game, quantus.PointingGame(**how)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = theirs(
                model=None,
                x_batch=np.zeros((SAMPLES, 1, SIDE, SIDE), np.float32),
                y_batch=np.zeros(SAMPLES, int),
                a_batch=heat[:, None].copy(),
                s_batch=masks[:, None],
            )
        measured = ours(heat, masks)
        np.testing.assert_allclose(measured, np.ravel(found).astype(float), rtol=1e-5)
        assert len(set(measured.tolist())) > 1


def test_curves_of_several_channels_are_what_the_formulas_give():
    """RISE's rule of the area, and the CF-CAM code's hundred steps between the picture and 0."""
    model, (x, heat) = net(), data(side=20)
    model(torch.from_numpy(x))
    order = np.argsort(heat.reshape(SAMPLES, -1))[:, ::-1]
    deleted, inserted = [], []
    for k in range(101):
        mask = np.ones((SAMPLES, 1, 400), np.float32)
        for n in range(SAMPLES):
            mask[n, 0, order[n, : 4 * k]] = 0
        mask = mask.reshape(SAMPLES, 1, 20, 20)
        deleted.append(chances(model, x * mask))
        inserted.append(chances(model, x * (1 - mask)))
    for measure, points in ((evaluation.deletion, deleted), (evaluation.insertion, inserted)):
        p = np.array(points).T
        area = (p.sum(axis=1) - p[:, 0] / 2 - p[:, -1] / 2) / (p.shape[1] - 1)
        ours = measure(model, x, heat, target=TARGETS, baseline="zero")
        np.testing.assert_allclose(ours.probabilities, p, atol=1e-6)
        np.testing.assert_allclose(ours.auc, area, atol=1e-6)


def test_the_published_drop_and_gain_are_the_codes():
    """Masks before the picture is standardised, and a grey that is meant to be ImageNet's mean."""
    model, (_, heat) = net(), data()
    pixels = np.random.default_rng(1).integers(0, 256, (SAMPLES, 3, SIDE, SIDE)) / 255
    mean = np.reshape(GAIN_FILL, (3, 1, 1))
    std = np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
    x = ((pixels - mean) / std).astype(np.float32)
    model(torch.from_numpy(x))
    before = chances(model, x)
    after = chances(model, (pixels * (heat > 0.5)[:, None] - mean) / std)
    ours = evaluation.published_drop(model, x, heat, target=TARGETS, baseline=-mean / std)
    np.testing.assert_allclose(ours, (before - after) / before, atol=1e-5)
    bare = np.ones_like(x) * mean
    mask = (heat > 0.3)[:, None]
    theirs = chances(model, bare * (1 - mask) + x * mask) - chances(model, bare)
    ours = evaluation.published_gain(model, x, heat, target=TARGETS)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("size", [(7, 7), (20, 13), (9,), (8, 7, 9)])
def test_the_published_similarity_is_scikit_images(size):
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(3, *size)).astype(np.float32)
    b = np.clip(a + rng.normal(0, 0.2, a.shape), 0, 1).astype(np.float32)
    theirs = [structural_similarity(p, q, data_range=1.0) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(window_ssim(a, b), theirs, rtol=1e-4)
