"""Half precision, double precision, autocast, memory formats, integers and complex numbers."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import MAPS, Apply, agree, batch, by_halves, chain, mean, of_halves

from cfcam_core import CfcamError, InvalidInputError, explain

HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_models_of_other_dtypes(dtype: torch.dtype) -> None:
    model, x = chain().to(dtype), batch().to(dtype)
    backend = cfcam_torch.open_model(model)
    for name in MAPS:
        truth = by_halves(model, name, x)
        for given in (x, x.float(), x.float().numpy(), x.double().numpy()):
            agree(backend.capture(given, layer=name), truth)
    np.testing.assert_allclose(
        backend.scores_from(by_halves(model, "inner", x).activations.float(), x, layer="inner"),
        model(x).detach().float().numpy(),
        rtol=1e-5,
    )
    assert backend.capture(x, layer="input").gradients.any()
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_around_the_call(dtype: torch.dtype) -> None:
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    with torch.autocast("cpu", dtype):
        backend.capture(x, layer="last")
        for name in ("stem", "last"):
            agree(backend.capture(x, layer=name), by_halves(model, name, x), tolerance=2e-2)
    agree(backend.capture(x, layer="stem"), by_halves(model, "stem", x))
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_inside_the_model(dtype: torch.dtype) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x: Any) -> Any:
            with torch.autocast("cpu", dtype):
                return self.net(x)

    model, x = Mixed().eval(), batch()
    with torch.autocast("cpu", dtype):
        truth = by_halves(model.net, "inner", x)
    for _ in range(2):
        agree(cfcam_torch.open_model(model).capture(x, layer="net.inner"), truth, tolerance=2e-2)


def test_explain_in_half_precision() -> None:
    model, x = chain().bfloat16(), batch()
    explanation = explain(model, x)
    assert explanation.heatmaps.shape == (2, 12, 17)
    assert explanation.heatmaps.dtype == np.float32


@pytest.mark.parametrize("axes", [2, 3])
def test_channels_last_in_memory(axes: int) -> None:
    how = {2: torch.channels_last, 3: torch.channels_last_3d}[axes]
    model, x = chain(axes), batch(axes)
    wanted = {name: by_halves(model, name, x) for name in MAPS}
    model.to(memory_format=how)
    given = x.contiguous(memory_format=how)
    backend = cfcam_torch.open_model(model)
    for name in MAPS:
        agree(backend.capture(given, layer=name), wanted[name])
        replaced = backend.scores_from(wanted[name].activations, given, layer=name)
        np.testing.assert_allclose(replaced, wanted[name].scores, rtol=1e-4, atol=1e-6)


def test_arrays_with_strange_strides() -> None:
    model, x = chain(), batch()
    wanted = by_halves(model, "inner", x)
    flipped = x.numpy()[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    swapped = np.asfortranarray(x.numpy())
    big = x.numpy().astype(">f4")
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    backend = cfcam_torch.open_model(model)
    for given in (flipped, swapped, big, frozen):
        agree(backend.capture(given, layer="inner"), wanted)


class Text(nn.Module):
    """Words as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.conv = nn.Embedding(50, 6), nn.Conv1d(6, 8, 3, padding=1)
        self.dense = nn.Linear(8, 5)

    def front(self, words: Any) -> Any:
        return self.conv(self.words(words).transpose(1, 2))

    def back(self, x: Any) -> Any:
        return self.dense(x.relu().amax(-1))

    def forward(self, words: Any) -> Any:
        return self.back(self.front(words))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integers_as_input(dtype: torch.dtype) -> None:
    model, words = Text().eval(), torch.randint(50, (2, 11), dtype=dtype)
    backend = cfcam_torch.open_model(model)
    truth = of_halves(model.front, model.back, words)
    for given in (words, words.numpy()):
        agree(backend.capture(given, layer="conv"), truth)
        agree(backend.capture(given), truth)
    with pytest.raises(CfcamError, match=r"int|picture or a signal"):
        backend.capture(words, layer="input")


def test_bytes_as_input() -> None:
    """A model that scales its pictures itself takes integers, and must get them as they are."""
    body = chain()
    model = nn.Sequential(
        Apply(lambda x: x.float() / (255 if not x.is_floating_point() else 1)), body
    )
    x = torch.randint(256, (2, 3, 12, 17), dtype=torch.uint8)
    truth = by_halves(body, "inner", x / 255)
    backend = cfcam_torch.open_model(model.eval())
    for given in (x, x.numpy()):
        agree(backend.capture(given, layer="1.inner"), truth, tolerance=1e-4)


def test_complex_inputs_are_refused() -> None:
    model = nn.Sequential(Apply(torch.abs), chain()).eval()
    backend, x = cfcam_torch.open_model(model), torch.randn(2, 3, 12, 17, dtype=torch.complex64)
    for given in (x, x.numpy()):
        with pytest.raises(InvalidInputError, match="complex"):
            backend.capture(given)


def test_complex_layers_are_refused() -> None:
    model = nn.Sequential(Apply(torch.fft.fft2), Apply(torch.abs), chain()).eval()
    backend, x = cfcam_torch.open_model(model), batch()
    agree(
        backend.capture(x, layer="2.inner"), by_halves(model[2], "inner", torch.fft.fft2(x).abs())
    )
    with pytest.raises(CfcamError, match="complex"):
        backend.capture(x, layer="0")


def test_a_spectrum_inside() -> None:
    """Complex numbers between two layers are the model's own business."""

    class Spectral(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.dense = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)

        def back(self, x: Any) -> Any:
            return self.dense(mean(torch.fft.rfft2(x).abs()))

        def forward(self, x: Any) -> Any:
            return self.back(self.stem(x))

    model, x = Spectral().eval(), batch()
    found = cfcam_torch.open_model(model).capture(x)
    agree(found, of_halves(model.stem, model.back, x), tolerance=1e-4)


def test_numbers_too_large_for_half_precision() -> None:
    model = chain().half()
    with pytest.raises(InvalidInputError):
        cfcam_torch.open_model(model).capture(np.full((1, 3, 12, 17), 1e6))
