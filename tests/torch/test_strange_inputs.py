"""Inputs as users have them: other layouts, no channels, other kinds of tensors."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import Apply, agree, batch, by_halves, chain, convolution, mean, of_halves

from cfcam_core import CfcamError, LayerNotFoundError, explain
from cfcam_core.evaluation import plan_robustness, robustness_of_image


def test_channels_last_at_the_door() -> None:
    """As models that come from other frameworks have them."""
    net = chain()
    model, x = nn.Sequential(Apply(lambda x: x.permute(0, 3, 1, 2)), net).eval(), batch()
    backend = cfcam_torch.open_model(model)
    last = x.permute(0, 2, 3, 1)
    for given in (last, last.contiguous().numpy()):
        capture = backend.capture(given)
        agree(capture, by_halves(net, "bend3", x))
        assert capture.input_size == (12, 17)
        agree(backend.capture(given, layer="input"), of_halves(nn.Identity(), net, x))
    assert backend.input_layout == "channels_last"
    assert backend.input_shape == (None, None, None, 3)
    activations = backend.capture(last, layer="input").activations
    np.testing.assert_allclose(
        backend.scores_from(activations, last, layer="input"), backend.scores(last), rtol=1e-5
    )


def test_noise_on_a_model_that_was_never_run() -> None:
    """Where its channels are is known by a run: segments and noise are made after that."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), Apply(mean), nn.Linear(6, 5))
    model = nn.Sequential(Apply(lambda x: x.permute(0, 3, 1, 2)), net).eval()
    x = np.random.default_rng(0).random((1, 12, 17, 3), np.float32)
    plan = plan_robustness(methods=["grad-cam"], perturbations=["speckle"], severities=[5])
    fresh, known = cfcam_torch.open_model(model), cfcam_torch.open_model(model, example=x)
    assert robustness_of_image(fresh, x[0], plan) == robustness_of_image(known, x[0], plan)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_for_methods_that_ask(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), Apply(mean), nn.Linear(6, 5))
    x = torch.rand(2, 3, 12, 17, dtype=dtype, requires_grad=True)
    found = explain(net, x, layer="1", method="score-cam")
    wanted = explain(net, x.detach().float().numpy(), layer="1", method="score-cam")
    np.testing.assert_array_equal(found.maps, wanted.maps)


@pytest.mark.parametrize("samples", [1, 2])
def test_spectrograms_without_channels(samples: int) -> None:
    """(N, H, W), and the model makes the axis of channels."""
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), Apply(mean), nn.Linear(6, 5))
    model = nn.Sequential(Apply(lambda x: x.unsqueeze(1)), net).eval()
    x = torch.randn(samples, 12, 17)
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(x)
    agree(capture, of_halves(net[:2], net[2:], x[:, None]))
    assert capture.input_size in {None, (12, 17)}
    assert explain(model, x, method="grad-cam").heatmaps.ndim == 3


@pytest.mark.parametrize("samples", [1, 2])
def test_tokens_of_a_spectrogram(samples: int) -> None:
    """Patches of (N, H, W), as AST has them: neither H channels nor W positions in a row."""

    class Spectrogram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.randn(1, 2, 8))
            self.norm, self.wide, self.dense = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.patches(x.unsqueeze(1)).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
            return self.dense(self.norm(x + self.wide(x).tanh()).mean(1))

    capture = cfcam_torch.open_model(Spectrogram().eval()).capture(torch.randn(samples, 24, 16))
    assert capture.activations.shape in {(samples, 8, 6, 4), (samples, 8, 26)}
    if capture.activations.ndim == 4:
        assert capture.input_size in {None, (24, 16)}
    else:
        assert capture.input_size is None


@pytest.mark.parametrize("samples", [1, 2])
def test_waves_without_channels(samples: int) -> None:
    """(N, T), as raw audio comes."""
    net = nn.Sequential(nn.Conv1d(1, 6, 5, 2), nn.Tanh(), Apply(mean), nn.Linear(6, 5))
    model = nn.Sequential(Apply(lambda x: x.unsqueeze(1)), net).eval()
    x = torch.randn(samples, 60)
    capture = cfcam_torch.open_model(model).capture(x)
    agree(capture, of_halves(net[:2], net[2:], x[:, None]))
    assert capture.input_size in {None, (60,)}


def test_points() -> None:
    """PointNet: (N, P, 3), convolutions of one point each."""
    net = nn.Sequential(nn.Conv1d(3, 6, 1), nn.Tanh(), Apply(lambda x: x.amax(-1)), nn.Linear(6, 5))
    model, x = nn.Sequential(Apply(lambda x: x.transpose(1, 2)), net).eval(), torch.randn(2, 20, 3)
    capture = cfcam_torch.open_model(model).capture(x)
    agree(capture, of_halves(net[:2], net[2:], x.transpose(1, 2)))
    assert capture.input_size in {None, (20,)}


def test_videos_frame_by_frame() -> None:
    """Frames are put into the batch axis and back: no samples of their own."""

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix, self.dense = (
                convolution(2, 3, 6),
                convolution(3, 6, 7),
                nn.Linear(7, 5),
            )

        def front(self, x: Any) -> Any:  # (N, T, C, H, W)
            frames = self.conv(x.flatten(0, 1)).tanh()
            return self.mix(frames.unflatten(0, x.shape[:2]).transpose(1, 2))

        def back(self, x: Any) -> Any:
            return self.dense(mean(x.tanh()))

        def forward(self, x: Any) -> Any:
            return self.back(self.front(x))

    model, x = Frames().eval(), torch.randn(2, 4, 3, 8, 9)
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x), of_halves(model.front, model.back, x))
    with pytest.raises(LayerNotFoundError, match="conv"):
        backend.capture(x, layer="conv")


def test_tables_have_no_map() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    backend = cfcam_torch.open_model(model)
    x = torch.randn(4, 8)
    assert backend.scores(x).shape == (4, 3)
    with pytest.raises(LayerNotFoundError, match="spatial"):
        backend.capture(x)
    with pytest.raises(LayerNotFoundError):
        backend.capture(x, layer="1")


@pytest.mark.parametrize("kind", ["subclass", "parameter", "view", "expanded", "wants gradient"])
def test_kinds_of_tensors(kind: str) -> None:
    class Photo(torch.Tensor):
        """As fastai and torchvision mark their pictures."""

    model, x = chain(), batch(samples=1).expand(2, -1, -1, -1)
    truth = by_halves(model, "inner", x)
    given = {
        "subclass": lambda: x.clone().as_subclass(Photo),
        "parameter": lambda: nn.Parameter(x.clone()),
        "view": lambda: torch.cat([x, x])[::2],
        "expanded": lambda: x,
        "wants gradient": lambda: x.clone().requires_grad_(),
    }[kind]()
    backend = cfcam_torch.open_model(model)
    for layer in ("inner", "input"):
        found = backend.capture(given, layer=layer)
        assert type(found.activations) is np.ndarray
    agree(backend.capture(given, layer="inner"), truth)
    agree(cfcam_torch.open_model(model).capture(given), by_halves(model, "bend3", x))


def test_first_written_is_not_first_run() -> None:
    """The guess from the first convolution is wrong; right inputs must not suffer from it."""

    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late = convolution(2, 12, 6)
            self.early = convolution(2, 3, 12)
            self.dense = nn.Linear(6, 5)

        def back(self, x: Any) -> Any:
            return self.dense(mean(x.tanh()))

        def forward(self, x: Any) -> Any:
            return self.back(self.late(self.early(x).tanh()))

    model, x = Backwards().eval(), batch()
    truth = of_halves(lambda x: model.late(model.early(x).tanh()), model.back, x)
    agree(cfcam_torch.open_model(model).capture(x), truth)
    wide = torch.randn(2, 3, 12, 17)
    agree(
        cfcam_torch.open_model(model).capture(wide),
        of_halves(lambda x: model.late(model.early(x).tanh()), model.back, wide),
    )
    with pytest.raises(CfcamError, match="example="):
        cfcam_torch.open_model(model).layers()
    try:
        single = cfcam_torch.open_model(model).capture(x[0])
    except CfcamError as error:
        assert "(3, 12, 17)" in str(error)  # noqa: PT017
    else:
        np.testing.assert_allclose(single.scores[0], truth.scores[0], rtol=1e-5)
