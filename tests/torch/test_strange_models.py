"""Forward passes as users write them: checkpoints, autograd inside, parts that are cut off."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_nets import Apply, agree, batch, by_halves, chain, convolution, mean, of_halves, same

from cfcam_core import CfcamError, LayerNotFoundError


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # PyTorch's own
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(*, reentrant: bool) -> None:
    """Parts that run a second time during the backward pass."""

    class Saves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x: Any) -> Any:
            x = checkpoint(self.net[:2], x, use_reentrant=reentrant)
            x = checkpoint(self.net[2:4], x, use_reentrant=reentrant)
            return self.net[4:](x)

    model, x = Saves().eval(), batch()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x), by_halves(model.net, "bend3", x))
    agree(backend.capture(x, layer="net.last"), by_halves(model.net, "last", x))
    for name in ("stem", "bend", "inner", "bend2"):
        try:
            found = backend.capture(x, layer=f"net.{name}")
        except CfcamError as error:
            assert name in str(error)  # noqa: PT017 - refused in words, or right
        else:
            agree(found, by_halves(model.net, name, x))
    assert not any(module._forward_hooks for module in model.modules())


class Reversal(torch.autograd.Function):
    """Turns the gradient round, as in domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return -3 * gradient


def test_gradients_of_the_users_own() -> None:
    model = nn.Sequential(chain()[:4], Apply(Reversal.apply), chain()[4:]).eval()
    x = batch()
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(x, layer="0.inner", target=1)
    front, back = nn.Sequential(*model[0][:3]), nn.Sequential(model[0][3], *model[1:])
    agree(capture, of_halves(front, back, x, [1, 1]))
    agree(backend.capture(x), by_halves(model[2], "bend3", model[0](x).detach()))


def test_backward_hooks_of_the_users_own() -> None:
    """They see the gradients that they see in training: of what a module makes and reads."""
    model, x = chain(), batch()
    model.bend2.register_full_backward_hook(lambda module, read, made: (read[0] * 2,))
    backend = cfcam_torch.open_model(model)
    for name in ("bend2", "last"):
        assert backend.capture(x, layer=name).gradients.any()
    plain = chain()
    plain.load_state_dict(model.state_dict())
    truth = cfcam_torch.open_model(plain).capture(x, layer="inner")
    found = backend.capture(x, layer="inner")
    np.testing.assert_allclose(found.gradients, 2 * truth.gradients, rtol=1e-5)


def test_autograd_inside_the_model() -> None:
    """Forces from energies: the model differentiates itself."""

    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = chain(2, nn.Tanh), convolution(2, 3, 6)
            self.dense = nn.Linear(6, 5)

        def front(self, x: Any) -> Any:
            with torch.enable_grad():
                x = x if x.requires_grad else x.detach().requires_grad_()
                (force,) = torch.autograd.grad(self.net(x).sum(), x, create_graph=True)
            return self.head(force)

        def back(self, x: Any) -> Any:
            return self.dense(mean(x.tanh()))

        def forward(self, x: Any) -> Any:
            return self.back(self.front(x))

    model, x = Forces().eval(), batch()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x, layer="head"), of_halves(model.front, model.back, x))
    assert backend.scores(x).shape == (2, 5)
    assert all(p.grad is None for p in model.parameters())


def test_a_module_called_past_its_hooks() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = chain()

        def forward(self, x: Any) -> Any:
            for part in self.net:
                x = part.forward(x)
            return x

    backend = cfcam_torch.open_model(Direct().eval())
    with pytest.raises(LayerNotFoundError, match="run"):
        backend.capture(batch(), layer="net.inner")
    with pytest.raises(LayerNotFoundError):
        backend.capture(batch())
    assert backend.capture(batch(), layer="input").gradients.any()


class Shortcut(nn.Module):
    """What the shortcut has returned is the tensor that the next line writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.skip = convolution(2, 3, 6), nn.Identity()
        self.inner, self.dense = convolution(2, 6, 6), nn.Linear(6, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        short = self.skip(x)
        return self.dense(mean(self.inner(x.relu_()) + short))


def test_shortcuts_that_are_overwritten() -> None:
    """A layer is never explained in a model that gives other scores than the user's."""
    model, x = Shortcut().eval(), batch()
    backend = cfcam_torch.open_model(model)
    scores = model(x).detach()
    for layer in (None, "stem", "inner", "skip"):
        try:
            found = backend.capture(x, layer=layer)
        except LayerNotFoundError as error:
            assert layer == "skip"
            assert "in place" in str(error)  # noqa: PT017
        else:
            np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-6)
    activations = backend.capture(x, layer="stem").activations
    np.testing.assert_allclose(
        backend.scores_from(activations, x, layer="stem"), scores, rtol=1e-5, atol=1e-6
    )


def test_numpy_inside_the_model() -> None:
    """What works without gradients alone is told, not hidden."""

    class Logs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = chain(), []

        def forward(self, x: Any) -> Any:
            x = self.net[:2](x)
            self.seen.append(x.numpy().mean())
            return self.net[2:](x)

    model, x = Logs().eval(), batch()
    backend = cfcam_torch.open_model(model)
    try:
        found = backend.capture(x, layer="net.last")
    except CfcamError as error:
        assert "numpy" in str(error)  # noqa: PT017
    else:
        agree(found, by_halves(model.net, "last", x))


def test_parts_made_while_running() -> None:
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.dense = convolution(2, 3, 6), None

        def forward(self, x: Any) -> Any:
            x = mean(self.conv(x).tanh())
            if self.dense is None:
                self.dense = nn.Linear(x.shape[1], 5)
            return self.dense(x)

    backend, x = cfcam_torch.open_model(Grows().eval()), batch()
    first = backend.capture(x)
    same(backend.capture(x), first)


def test_what_was_recorded_before_is_not_reused() -> None:
    """A model that keeps its last features lets nobody differentiate a stale graph."""

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.features = chain(), None

        def forward(self, x: Any) -> Any:
            self.features = self.net[:4](x)
            return self.net[4:](self.features)

    model, x = Keeps().eval(), batch()
    backend = cfcam_torch.open_model(model)
    for _ in range(3):
        agree(backend.capture(x, layer="net.inner"), by_halves(model.net, "inner", x))
        agree(backend.capture(x), by_halves(model.net, "bend3", x))


def test_quantized_parts() -> None:
    """No gradient gets through integers; that is said."""

    class Integers(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.dequantize(torch.quantize_per_tensor(x, 0.05, 0, torch.qint8))

    net = chain()
    model, x = nn.Sequential(net[:6], Integers(), net[6:]).eval(), batch()
    backend = cfcam_torch.open_model(model)
    assert backend.scores(x).shape == (2, 5)
    with pytest.raises(CfcamError, match=r"0\.inner"):
        backend.capture(x, layer="0.inner")
    agree(backend.capture(x, layer="1"), of_halves(model[:2], model[2:], x))


def test_detached_parts() -> None:
    net = chain()
    model, x = nn.Sequential(net[:4], Apply(torch.detach), net[4:]).eval(), batch()
    backend = cfcam_torch.open_model(model)
    wanted = of_halves(nn.Sequential(model[:2], model[2][:2]), model[2][2:], x)
    agree(backend.capture(x), wanted)
    agree(backend.capture(x, layer="2.bend3"), wanted)
    with pytest.raises(CfcamError, match=r"0\.inner"):
        backend.capture(x, layer="0.inner")


@pytest.mark.parametrize("setting", ["float64", "meta"])
def test_defaults_of_the_users_own(setting: str) -> None:
    """Tensors of ours are made where and as the model's are, whatever the default is."""
    model, x = chain(), batch()
    truth = by_halves(model, "inner", x)
    backend = cfcam_torch.open_model(model)
    try:
        if setting == "float64":
            torch.set_default_dtype(torch.float64)
        else:
            torch.set_default_device("meta")  # as "cuda" would be on a machine that has it
        assert any(layer.is_default for layer in cfcam_torch.open_model(chain_like(model)).layers())
        agree(backend.capture(x.numpy(), layer="inner"), truth)
        agree(backend.capture(x, layer="inner", target=lambda scores: scores.argmax(1)), truth)
        backend.scores_from(truth.activations.numpy(), x.numpy(), layer="inner")
        backend.capture(x.numpy(), layer="input")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def chain_like(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


def test_no_gradient_of_a_weight_is_computed() -> None:
    """Only the way from the logits to the layer is walked, and no weight's gradient on it."""
    model, x, seen = chain(2, nn.Tanh), batch(), []
    for name, weight in model.named_parameters():
        weight.register_hook(lambda gradient, name=name: seen.append(name))
    backend = cfcam_torch.open_model(model)
    backend.capture(x)
    backend.captures(x, layers=["stem", "input", "last"])
    assert seen == []
