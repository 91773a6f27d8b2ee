"""Activations, gradients and scores against plain autograd on the two halves of a model."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import MAPS, UNITS, Apply, agree, batch, by_halves, chain, mean, of_halves

from cfcam_core import Backend, CfcamError
from cfcam_core.backend import SeveralLayers


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_layer(axes: int, unit: str) -> None:
    model, x = chain(axes, UNITS[unit]), batch(axes)
    backend = cfcam_torch.open_model(model)
    assert isinstance(backend, Backend)
    assert isinstance(backend, SeveralLayers)
    for name in MAPS:
        capture = backend.capture(x.numpy(), layer=name, target=[0, 3])
        agree(capture, by_halves(model, name, x, [0, 3]))
        assert capture.input_size == tuple(x.shape[2:])
        assert capture.targets.tolist() == [0, 3]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_input_is_a_layer(axes: int) -> None:
    model, x = chain(axes), batch(axes)
    wanted = of_halves(nn.Identity(), model, x)
    agree(cfcam_torch.open_model(model).capture(x, layer="input"), wanted)


def test_no_target_is_the_best_class_of_each() -> None:
    model, x = chain(2, nn.Tanh), batch(samples=4)
    capture = cfcam_torch.open_model(model).capture(x, layer="inner")
    agree(capture, by_halves(model, "inner", x))
    np.testing.assert_array_equal(capture.targets, model(x).argmax(1).numpy())


@pytest.mark.parametrize("unit", UNITS)
def test_several_layers_are_what_each_is_alone(unit: str) -> None:
    model, x = chain(2, UNITS[unit]), batch()
    backend = cfcam_torch.open_model(model)
    layers = ["last", "stem", "bend", "last", "input", None]
    found = backend.captures(x, layers=layers, target=2)
    assert len(found) == len(layers)
    for name, capture in zip(layers[:4], found, strict=False):
        agree(capture, by_halves(model, name, x, [2, 2]))
    agree(found[4], of_halves(nn.Identity(), model, x, [2, 2]))
    np.testing.assert_array_equal(found[5].gradients, backend.capture(x, target=2).gradients)
    assert list(backend.captures(x, layers=[])) == []


@pytest.mark.parametrize("name", ["input", *MAPS])
def test_scores_from_put_in_a_layers_place(name: str) -> None:
    model, x = chain(2, UNITS["relu in place"]), batch()
    backend = cfcam_torch.open_model(model)
    activations = backend.capture(x, layer=name).activations
    np.testing.assert_allclose(
        backend.scores_from(activations, x, layer=name), backend.scores(x), rtol=1e-5, atol=1e-6
    )
    other = np.random.default_rng(0).normal(size=activations.shape).astype(np.float32)
    before = other.copy()
    back = model if name == "input" else model[MAPS.index(name) + 1 :]
    wanted = back(torch.tensor(other)).detach().numpy()
    np.testing.assert_allclose(
        backend.scores_from(other, x, layer=name), wanted, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(other, before)


class Around(nn.Module):
    """A path goes past the inner layer, and the trunk's output is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.inner = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.dense = nn.Linear(6, 5)

    def tail(self, trunk: Any) -> Any:
        return self.dense(mean((self.inner(trunk) + trunk).tanh()))

    def forward(self, x: Any) -> Any:
        return self.tail(self.trunk(x))


def test_paths_around_a_layer() -> None:
    model, x = Around().eval(), batch()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x, layer="trunk"), of_halves(model.trunk, model.tail, x))
    trunk = model.trunk(x).detach()
    behind = Apply(lambda inner: model.dense(mean((inner + trunk).tanh())))
    agree(backend.capture(x, layer="inner"), of_halves(lambda x: model.inner(trunk), behind, x))
    zeros = np.zeros((2, 6, 12, 17), np.float32)
    np.testing.assert_allclose(
        backend.scores_from(zeros, x, layer="inner"),
        behind(torch.tensor(zeros)).detach().numpy(),
        rtol=1e-5,
        atol=1e-6,
    )
    assert "inner" not in [layer.name for layer in backend.layers()]


# ------------------------------------------------------------------------- who calls, and where


@pytest.mark.parametrize(
    "mode",
    [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)],
    ids=["no_grad", "inference_mode", "set_grad_enabled"],
)
@pytest.mark.parametrize("unit", ["tanh", "relu in place"])
def test_the_caller_has_switched_gradients_off(mode: Any, unit: str) -> None:
    model, x = chain(2, UNITS[unit]), batch()
    wanted = [by_halves(model, name, x) for name in MAPS]
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        backend = cfcam_torch.open_model(model)
        given = x * 1  # under inference_mode an inference tensor
        backend.layers()
        for name, truth in zip(MAPS, wanted, strict=True):
            agree(backend.capture(given, layer=name), truth)
        backend.capture(given, layer="input")
        backend.scores_from(wanted[-1].activations, given, layer="bend3")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert given.is_inference() == (mode is torch.inference_mode)
    agree(backend.capture(given, layer="stem"), wanted[0])


def test_frozen_parameters() -> None:
    model, x = chain(2, UNITS["relu in place"]).requires_grad_(False), batch()
    backend = cfcam_torch.open_model(model)
    for name in MAPS:
        agree(backend.capture(x, layer=name), by_halves(model, name, x))
    agree(backend.capture(x, layer="input"), of_halves(nn.Identity(), model, x))


def test_parameters_made_under_inference_mode() -> None:
    """Autograd cannot save them; the gradient of a layer's output needs them all the same."""
    with torch.inference_mode():
        model = chain()
    x = batch()
    try:
        found = cfcam_torch.open_model(model).capture(x, layer="inner")
    except CfcamError as error:
        assert "inference" in str(error)  # noqa: PT017 - either will do
    else:
        plain = chain()
        plain.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
        agree(found, by_halves(plain, "inner", x))


class FrozenTrunk(nn.Module):
    """The usual way to keep a trunk from learning: it runs under no_grad."""

    def __init__(self, *, closes: Any = torch.no_grad) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3))
        self.head, self.dense = nn.Conv2d(8, 7, 3), nn.Linear(7, 5)
        self.closes = closes

    def forward(self, x: Any) -> Any:
        with self.closes():
            x = self.trunk(x)
        return self.tail(x.clone())

    def tail(self, x: Any) -> Any:
        return self.dense(mean(self.head(x).relu_()))


@pytest.mark.parametrize("closes", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trains", [True, False])
def test_a_trunk_under_no_grad(closes: Any, *, trains: bool) -> None:
    model, x = FrozenTrunk(closes=closes).eval().requires_grad_(trains), batch()
    backend = cfcam_torch.open_model(model)
    wanted = of_halves(
        lambda x: model.head(model.trunk(x)), lambda h: model.dense(mean(h.relu())), x
    )
    agree(backend.capture(x), wanted)
    agree(backend.capture(x, layer="head"), wanted)
    assert "head" in [layer.name for layer in backend.layers() if layer.is_default]
    for name in ("trunk", "trunk.0", "input"):
        try:
            found = backend.capture(x, layer=name)
        except CfcamError as error:
            assert name in str(error)  # noqa: PT017 - says which layer
            assert "grad" in str(error)  # noqa: PT017 - and why
        else:
            assert found.gradients.any()


class Doubles(FrozenTrunk):
    """Writes into its input, and what comes of that is only found at the second attempt."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.mul_(2))


def test_a_second_run_starts_from_the_users_input() -> None:
    model, x = Doubles().eval(), batch()
    wanted = model.trunk[0](2 * x).detach().numpy()
    for layers in (["trunk.0"], ["trunk.0", "head"], ["head", "trunk.1", "trunk.0"]):
        backend = cfcam_torch.open_model(model)
        for _ in range(2):
            for name, capture in zip(layers, backend.captures(x, layers=layers), strict=True):
                if name == "trunk.0":
                    np.testing.assert_allclose(capture.activations, wanted, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(capture.scores, model(x.clone()).detach(), rtol=1e-4)


def test_a_model_that_switches_gradients_off_says_so() -> None:
    class Predict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        @torch.no_grad()
        def forward(self, x: Any) -> Any:
            return self.net(x)

    backend = cfcam_torch.open_model(Predict().eval())
    assert backend.scores(batch()).shape == (2, 5)
    try:
        found = backend.capture(batch())
    except CfcamError as error:
        assert "no_grad" in str(error)  # noqa: PT017
    else:
        assert found.gradients.any()


# --------------------------------------------------------------------- PyTorch's own transformer


class Encoder(nn.Module):
    """Patches as tokens through PyTorch's own encoder, which has a fast path without gradients."""

    def __init__(self, *, norm_first: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.dense = nn.Linear(8, 5)

    def tail(self, tokens: Any, *, first: int) -> Any:
        for layer in self.encoder.layers[first:]:
            tokens = layer(tokens)
        return self.dense(tokens.mean(1))

    def tokens(self, x: Any) -> Any:
        return self.patches(x).flatten(2).transpose(1, 2)

    def forward(self, x: Any) -> Any:
        return self.dense(self.encoder(self.tokens(x)).mean(1))


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_encoder_layers(*, norm_first: bool, trains: bool) -> None:
    model = Encoder(norm_first=norm_first).eval().requires_grad_(trains)
    x = torch.randn(2, 3, 16, 24)
    backend = cfcam_torch.open_model(model)

    def front(x: Any) -> Any:
        return model.encoder.layers[0](model.tokens(x))

    wanted = of_halves(front, lambda t: model.tail(t, first=1), x, [1, 4])
    with torch.no_grad():
        capture = backend.capture(x, layer="encoder.layers.0", target=[1, 4])
    assert capture.activations.shape == (2, 8, 4, 6)
    for name in ("activations", "gradients"):
        tokens = getattr(wanted, name).transpose(1, 2).reshape(2, 8, 4, 6).numpy()
        np.testing.assert_allclose(getattr(capture, name), tokens, rtol=1e-4, atol=1e-6)
    inside = backend.capture(x, layer="encoder.layers.1.linear1", target=0)
    assert inside.gradients.any()
    assert inside.activations.shape[1] == 16
