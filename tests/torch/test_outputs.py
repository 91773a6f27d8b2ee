"""Where the logits are: structures, closings that are looked through, outputs of other tasks."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import Apply, agree, batch, by_halves, chain, mean, of_halves

from cfcam_core import CfcamError, InvalidInputError

# --------------------------------------------------------------------------------- structures


class FeaturesFirst(nn.Module):
    """The features in front of the logits that are made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.dense = chain(), nn.Linear(7, 5)

    def forward(self, x: Any) -> Any:
        features = self.net[:7](x)
        return features, self.dense(features)


@pytest.mark.parametrize("frozen", [True, False])
def test_features_in_front_of_the_logits_are_not_taken_for_them(*, frozen: bool) -> None:
    model, x = FeaturesFirst().eval().requires_grad_(not frozen), batch()
    backend = cfcam_torch.open_model(model)
    advice = r"may be features; name the logits with open_model\(model, output="
    with pytest.raises(InvalidInputError, match=advice):
        cfcam_torch.open_model(model, example=x)
    for run in (backend.scores, backend.capture, lambda _: backend.layers()):
        with pytest.raises(InvalidInputError):
            run(x)
    backend = cfcam_torch.open_model(model, output=1)
    truth = of_halves(model.net[:5], lambda h: model.dense(model.net[5:7](h)), x)
    agree(backend.capture(x, layer="net.last"), truth)
    assert cfcam_torch.open_model(model, output=0).scores(x).shape == (2, 7)


def test_what_is_made_of_the_logits_may_stand_behind_them() -> None:
    model, x = Returns(lambda y, _: (y, y.softmax(1), y.max(1)[0])).eval(), batch()
    agree(cfcam_torch.open_model(model).capture(x), by_halves(model.net, "bend3", x))


@pytest.mark.parametrize("output", [["logits"], slice(0, 1), 1.5])
def test_outputs_that_name_nothing(output: Any) -> None:
    with pytest.raises(InvalidInputError, match="wanted a key, an attribute, an index"):
        cfcam_torch.open_model(chain(), output=output)


class Returns(nn.Module):
    """A `chain` whose logits are wrapped up."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.net, self.wrap = chain(), wrap

    def forward(self, x: Any) -> Any:
        return self.wrap(self.net(x), x)


def image_output(logits: Any, x: Any) -> Any:
    from transformers.modeling_outputs import ImageClassifierOutput

    return ImageClassifierOutput(loss=None, logits=logits, hidden_states=(x, x))


WRAPS: dict[str, Any] = {
    "ModelOutput": image_output,
    "tuple": lambda y, x: (y, x),
    "tuple of one": lambda y, x: (y,),
    "list": lambda y, x: [y, x],
    "dict": lambda y, x: {"features": x, "logits": y},
    "dict of one": lambda y, x: {"out": y},
    "N, K, 1, 1": lambda y, x: y[:, :, None, None],
    "N, K, 1": lambda y, x: y[..., None],
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_logits_are_unwrapped(wrap: str) -> None:
    model, x = Returns(WRAPS[wrap]).eval(), batch()
    backend = cfcam_torch.open_model(model)
    for target in (None, 3, [0, 4]):
        classes = target if target is None or isinstance(target, list) else [target] * 2
        agree(
            backend.capture(x, layer="net.inner", target=target),
            by_halves(model.net, "inner", x, classes),
        )
    agree(backend.capture(x), by_halves(model.net, "bend3", x))
    assert backend.scores(x).shape == (2, 5)
    assert backend.scores_from(backend.capture(x).activations, x).shape == (2, 5)


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda y, x: {"left": y * 0 + 1, "right": y}, "right"),
        (lambda y, x: (y * 0 + 1, y), 1),
        (lambda y, x: (y * 0 + 1, y), -1),
        (image_output, "logits"),
        (lambda y, x: {"deep": [y]}, lambda out: out["deep"][0]),
    ],
)
def test_the_output_that_is_meant(wrap: Any, output: Any) -> None:
    model, x = Returns(wrap).eval(), batch()
    backend = cfcam_torch.open_model(model, output=output)
    agree(backend.capture(x, layer="net.last"), by_halves(model.net, "last", x))
    agree(backend.capture(x), by_halves(model.net, "bend3", x))


@pytest.mark.parametrize(
    ("output", "why"), [("lefft", "left"), (5, "2|out of range"), (lambda out: "text", "str|text")]
)
def test_outputs_that_are_not_there(output: Any, why: str) -> None:
    wrap = (
        (lambda y, x: {"left": y, "right": y}) if isinstance(output, str) else (lambda y, x: (y, y))
    )
    backend = cfcam_torch.open_model(Returns(wrap).eval(), output=output)
    for call in (backend.scores, backend.capture):
        with pytest.raises(InvalidInputError, match=why):
            call(batch())


@pytest.mark.parametrize(
    ("wrap", "why"),
    [
        (lambda y, x: y[..., None] * x.mean(1).flatten(1)[:, None], r"\(2, 5, 204\)"),
        (lambda y, x: y.mean(), r"\(\)"),
        (lambda y, x: "logits", "str"),
        (lambda y, x: None, "None"),
        (lambda y, x: {}, "dict|empty"),
        (lambda y, x: y.argmax(1), "int64"),
        (lambda y, x: y.to(torch.complex64), "complex"),
        (lambda y, x: y.repeat(2, 1), r"\(4, 5\)|4"),
    ],
)
def test_what_is_no_classifier(wrap: Any, why: str) -> None:
    backend = cfcam_torch.open_model(Returns(wrap).eval())
    for call in (backend.scores, backend.capture):
        with pytest.raises(CfcamError, match=why):
            call(batch())


def test_outputs_without_gradient() -> None:
    backend = cfcam_torch.open_model(Returns(lambda y, x: y.detach()).eval())
    assert backend.scores(batch()).shape == (2, 5)
    with pytest.raises(CfcamError, match=r"detaches .* or has quantized operators"):
        backend.capture(batch(), layer="net.inner")
    with pytest.raises(CfcamError):
        backend.capture(batch())


def test_outputs_that_are_not_finite() -> None:
    backend = cfcam_torch.open_model(Returns(lambda y, x: y / 0).eval())
    with pytest.raises(InvalidInputError, match="finite"):
        backend.capture(batch(), layer="net.inner")


# ----------------------------------------------------------------------------------- closings


CLOSINGS: dict[str, tuple[Any, str]] = {
    "softmax": (nn.Softmax(dim=1), "Softmax"),
    "softmax, last axis": (nn.Softmax(dim=-1), "Softmax"),
    "sigmoid": (nn.Sigmoid(), "Sigmoid"),
    "log-softmax": (nn.LogSoftmax(dim=1), "LogSoftmax"),
    "softmax function": (Apply(lambda x: x.softmax(1)), "Softmax"),
    "sigmoid function": (Apply(torch.sigmoid), "Sigmoid"),
    "sigmoid in place": (Apply(torch.sigmoid_), "Sigmoid"),
    "log-softmax function": (Apply(lambda x: torch.log_softmax(x, -1)), "LogSoftmax"),
}


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("closing", CLOSINGS)
def test_closings_are_looked_through(closing: str, *, frozen: bool) -> None:
    module, name = CLOSINGS[closing]
    model, x = chain(2, nn.Tanh, module).requires_grad_(not frozen), batch()
    plain = model[:8]
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x, layer="inner", target=1), by_halves(plain, "inner", x, [1, 1]))
    agree(backend.capture(x), by_halves(plain, "bend3", x))
    with torch.inference_mode():
        np.testing.assert_allclose(backend.scores(x), plain(x), rtol=1e-5, atol=1e-6)
    assert tuple(backend.logits_behind) == (name,)
    activations = backend.capture(x).activations
    np.testing.assert_allclose(
        backend.scores_from(activations, x), plain(x).detach(), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("closing", CLOSINGS)
def test_closings_are_kept_if_wanted(closing: str) -> None:
    model, x = chain(2, nn.Tanh, CLOSINGS[closing][0]), batch()
    backend = cfcam_torch.open_model(model, look_through=False)
    agree(backend.capture(x, layer="inner", target=1), by_halves(model, "inner", x, [1, 1]))
    np.testing.assert_allclose(backend.scores(x), model(x).detach(), rtol=1e-5, atol=1e-6)
    assert tuple(backend.logits_behind) == ()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_single_unit_with_a_sigmoid(*, frozen: bool) -> None:
    """Far from 0 a sigmoid is flat in float32: its gradient is zero, the logit's is not."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), Apply(mean), nn.Linear(6, 1))
    with torch.no_grad():
        net[3].bias.fill_(200)
    model, x = nn.Sequential(*net, nn.Sigmoid()).eval().requires_grad_(not frozen), batch()
    backend = cfcam_torch.open_model(model)
    for target in (None, 0, [0, 0]):
        agree(backend.capture(x, target=target), of_halves(net[:2], net[2:], x))
    with pytest.raises(InvalidInputError, match="one logit; target 0"):
        backend.capture(x, target=1)


def test_a_single_unit_without_axis() -> None:
    """`squeeze(1)` is what losses for two classes want; (N,) is one logit a sample."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Tanh(), Apply(mean), nn.Linear(6, 1), nn.Flatten(0)
    )
    net = model[:4]
    x = batch()
    backend = cfcam_torch.open_model(model.eval())
    try:
        capture = backend.capture(x)
    except InvalidInputError as error:
        assert "(2,)" in str(error)  # noqa: PT017 - says what came
    else:
        agree(capture, of_halves(net[:2], net[2:], x))


def test_a_closing_that_something_follows_is_kept() -> None:
    """Temperature, smoothing, a mixture: no longer the closing of this name."""
    for after in (
        lambda p: p * 0.9 + 0.02,
        lambda p: p.log().mul(2),
        lambda p: p @ torch.eye(5)[:, :4],
    ):
        model, x = chain(2, nn.Tanh, nn.Softmax(dim=1), Apply(after)), batch()
        backend = cfcam_torch.open_model(model)
        agree(backend.capture(x, layer="inner"), by_halves(model, "inner", x))
        assert tuple(backend.logits_behind) == ()


def test_softmax_over_another_axis_is_no_closing() -> None:
    """Attention over the samples of a batch, or over positions, is part of the model."""
    attend = Apply(lambda x: (x * x.flatten(2).softmax(-1).reshape(x.shape)).flatten(2).sum(-1))
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), attend, nn.Linear(6, 5)).eval()
    x = batch()
    agree(cfcam_torch.open_model(net).capture(x, layer="1"), of_halves(net[:2], net[2:], x))


FORMS: dict[str, tuple[Any, str]] = {
    "in a dict": (lambda y, x: {"probabilities": y.softmax(1)}, "Softmax"),
    "in a tuple": (lambda y, x: (y.sigmoid(), x), "Sigmoid"),
    "as a map": (lambda y, x: y.softmax(1)[:, :, None, None], "Softmax"),
    "of a map": (lambda y, x: y[:, :, None, None].softmax(1).flatten(1), "Softmax"),
    "converted": (lambda y, x: y.float().softmax(-1).to(torch.float32), "Softmax"),
    "copied": (lambda y, x: y.softmax(-1).contiguous().clone(), "Softmax"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_closing_in_other_forms(form: str) -> None:
    wrap, behind = FORMS[form]
    model, x = Returns(wrap).eval(), batch()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x, layer="net.inner"), by_halves(model.net, "inner", x))
    assert tuple(backend.logits_behind) == (behind,)


def test_an_output_of_ones_own_may_end_in_a_softmax() -> None:
    model, x = Returns(lambda y, x: {"p": y}).eval(), batch()
    backend = cfcam_torch.open_model(
        model, output=lambda out: out["p"].softmax(1), look_through=False
    )
    np.testing.assert_allclose(backend.scores(x).sum(1), 1, rtol=1e-5)
