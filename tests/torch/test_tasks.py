"""Segmentation and detection, through `output=` and through a target of the raw output."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import agree, batch, convolution, mean, of_halves

import cfcam_core as cfcam
from cfcam_core import InvalidInputError

# --------------------------------------------------------------------------------- other tasks


class Segments(nn.Module):
    """A class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = convolution(2, 3, 6), convolution(2, 6, 8)
        self.head = nn.Conv2d(8, 4, 1)

    def back(self, x: Any) -> Any:
        return self.head(x.relu_())

    def forward(self, x: Any) -> Any:
        return {"out": self.back(self.inner(self.stem(x).tanh())), "size": x.shape}


def test_segmentation_as_a_classifier() -> None:
    model, x = Segments().eval(), batch()

    def front(x: Any) -> Any:
        return model.inner(model.stem(x).tanh())

    backend = cfcam_torch.open_model(model, output=lambda out: out["out"].mean((2, 3)))
    truth = of_halves(front, lambda h: mean(model.back(h)), x, [2, 3])
    agree(backend.capture(x, layer="inner", target=[2, 3]), truth)
    assert backend.capture(x).scores.shape == (2, 4)
    with pytest.raises(
        InvalidInputError, match=r"target=lambda out: .*; or .*open_model\(model, output="
    ):
        cfcam_torch.open_model(model).scores(x)


@pytest.mark.parametrize("how", ["scalar", "a sample"])
def test_segmentation_by_a_target(how: str) -> None:
    model, x = Segments().eval(), batch()
    backend = cfcam_torch.open_model(model)

    def target(out: Any) -> Any:
        each = out["out"][:, 1, :5].sum((1, 2))
        return each.sum() if how == "scalar" else each

    with torch.no_grad():
        capture = backend.capture(x, layer="inner", target=target)
    assert capture.scores is None
    assert capture.targets.tolist() == [-1, -1]
    activations = model.inner(model.stem(x).tanh()).detach().requires_grad_()
    wanted = torch.autograd.grad(
        target({"out": model.back(activations.clone())}).sum(), activations
    )
    np.testing.assert_allclose(capture.activations, activations.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(capture.gradients, wanted[0], rtol=1e-5, atol=1e-7)
    single = backend.capture(x[1], layer="inner", target=target)
    np.testing.assert_allclose(single.gradients[0], capture.gradients[1], rtol=1e-5, atol=1e-7)
    explanation = cfcam.explain(backend, x, target=target, method="grad-cam")
    assert explanation.heatmaps.shape == (2, 12, 17)
    assert explanation.scores is None


class Detects(nn.Module):
    """Boxes and scores for each picture, as many as there are: a list of dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.score = convolution(2, 3, 6, 2), nn.Conv2d(6, 3, 1)

    def forward(self, x: Any) -> Any:
        found = self.score(self.trunk(x).relu()).sigmoid().flatten(1)
        return [{"scores": row[row > 0.5], "labels": row.argsort()} for row in found]


def test_detection_by_a_target() -> None:
    model, x = Detects().eval(), batch()
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(
        x, layer="trunk", target=lambda found: torch.stack([one["scores"].max() for one in found])
    )
    assert capture.scores is None
    assert capture.gradients.reshape(2, -1).any(axis=1).all()
    with pytest.raises(
        InvalidInputError, match=r"target=lambda out: .*; or .*open_model\(model, output="
    ):
        backend.capture(x, layer="trunk")
    backend = cfcam_torch.open_model(
        model, output=lambda found: torch.stack([one["scores"].sum()[None] for one in found])
    )
    assert backend.capture(x, layer="trunk").scores.shape == (2, 1)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (lambda out: out["out"].mean((2, 3)), r"\(2, 4\)"),
        (lambda out: out["out"].sum().item(), "float"),
        (lambda out: out["out"].detach().sum(), "grad|depend"),
        (lambda out: None, "None"),
        (lambda out: 2, "int"),
        (lambda out: out["out"].argmax(), "int64"),
        (lambda out: torch.zeros(3), r"\(3,\)"),
        (lambda out: torch.zeros(2), "grad|depend"),
    ],
)
def test_wrong_returns_of_a_target(target: Any, why: str) -> None:
    backend = cfcam_torch.open_model(Segments().eval())
    with pytest.raises(InvalidInputError, match=why):
        backend.capture(batch(), layer="inner", target=target)


def test_an_error_in_a_target_is_the_users_own() -> None:
    backend = cfcam_torch.open_model(Segments().eval())
    with pytest.raises(KeyError, match="no such key"):
        backend.capture(batch(), layer="inner", target=lambda out: {}["no such key"])
