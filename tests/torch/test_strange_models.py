"""Models as users write them: odd inputs, odd passes, autograd inside."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch_nets import Apply, agree, batch, by_halves, chain, convolution, mean, of_halves, same

from cfcam_core import CfcamError, LayerNotFoundError, explain

# --------------------------------------------------------------------------- inputs of other shapes


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
    activations = backend.capture(last, layer="input").activations
    np.testing.assert_allclose(
        backend.scores_from(activations, last, layer="input"), backend.scores(last), rtol=1e-5
    )


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


# --------------------------------------------------------------------------- forward passes


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
