"""A raw model that is explained again and again is tried once; a model that changes, again."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import UNITS, agree, batch, by_halves, chain, convolution

import cfcam_core as cfcam
from cfcam_core import LayerNotFoundError, explain


class Counted(nn.Sequential):
    """Counts its forward passes."""

    runs = 0

    def forward(self, x: Any) -> Any:
        self.runs += 1
        return super().forward(x)


def counted() -> Counted:
    return Counted(OrderedDict(chain().named_children())).eval()


def test_a_raw_model_is_tried_once() -> None:
    model, x = counted(), batch()
    explain(model, x)
    first = model.runs
    explain(model, x)
    assert model.runs == first + 1, "one forward pass an explanation"
    explain(model, batch(samples=5))
    explain(model, x, layer=["inner", "last"])
    assert model.runs == first + 3


def test_an_opened_model_is_tried_once() -> None:
    model, x = counted(), batch()
    backend = cfcam_torch.open_model(model, example=x)
    backend.layers()
    first = model.runs
    backend.layers()
    backend.capture(x)
    backend.scores(x)
    backend.captures(x, layers=["stem", "inner", None, "input"])
    assert model.runs == first + 3


def test_a_named_layer_needs_no_trial_of_many_runs() -> None:
    model, x = counted(), batch()
    cfcam_torch.open_model(model).capture(x, layer="inner")
    assert model.runs <= 3


@pytest.mark.parametrize("way", ["explain", "backend"])
def test_a_part_is_swapped_in_between(way: str) -> None:
    model, x = chain(2, nn.Tanh), batch()
    backend = cfcam_torch.open_model(model)

    def default() -> Any:
        return cfcam.open_model(model).capture(x) if way == "explain" else backend.capture(x)

    agree(default(), by_halves(model, "bend3", x))
    model.last = nn.Sequential(convolution(2, 8, 9), nn.Tanh(), convolution(2, 9, 7))
    agree(default(), by_halves(model, "bend3", x))
    model.bend3 = nn.Identity()
    model.dense = nn.Linear(7, 3)
    found = default()
    assert found.scores.shape == (2, 3)
    agree(found, by_halves(model, "last", x))
    agree(backend.capture(x, layer="last.0"), nested(model, x))
    del model.inner
    model.inner = convolution(2, 6, 8)  # now at the end of the children, as PyTorch has it


def nested(model: Any, x: Any) -> Any:
    from torch_nets import of_halves

    return of_halves(
        lambda x: model.last[0](model[:4](x)), lambda h: model[5:](model.last[1:](h)), x
    )


def test_a_part_of_the_same_name_is_another() -> None:
    """What is pooled is no default; as many modules of the same names are not the same model."""
    model, x = chain(2, nn.Tanh), batch()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x), by_halves(model, "bend3", x))
    agree(cfcam.open_model(model).capture(x), by_halves(model, "bend3", x))
    model.bend3 = nn.MaxPool2d(2)
    agree(backend.capture(x), by_halves(model, "last", x))
    agree(cfcam.open_model(model).capture(x), by_halves(model, "last", x))


def test_a_layer_goes_away() -> None:
    model, x = chain(2, nn.Tanh), batch()
    backend = cfcam_torch.open_model(model)
    backend.capture(x, layer="bend3")
    old = model.bend3
    model.bend3 = nn.Sequential()
    agree(backend.capture(x), by_halves(model, "last", x))
    with pytest.raises(LayerNotFoundError):
        backend.capture(x, layer=old)


def test_weights_change_in_between() -> None:
    model, x = chain(2, UNITS["relu in place"]), batch()
    backend = cfcam_torch.open_model(model)
    backend.capture(x)
    optimiser = torch.optim.SGD(model.train().parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), torch.tensor([1, 2])).backward()
        optimiser.step()
        agree(backend.capture(x), by_halves(model, "bend3", x))
        found = cfcam.open_model(model).capture(x, layer="stem")
        agree(found, by_halves(model, "stem", x))
    model.double()
    agree(backend.capture(x), by_halves(model, "bend3", x.double()))
    model.bfloat16()
    agree(backend.capture(x), by_halves(model, "bend3", x.bfloat16()))


def test_what_was_learned_is_not_part_of_the_model() -> None:
    """Copies and pickles of an explained model hold nothing of ours."""
    model, x = (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(750, 4)),
        batch(),
    )
    before = pickle.dumps(model)
    explain(model, x)
    assert pickle.dumps(model) == before
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[3].weight.mul_(-1)
    one = cfcam.open_model(model).capture(x, target=0)
    two = cfcam.open_model(other).capture(x, target=0)
    np.testing.assert_allclose(one.gradients, -two.gradients, rtol=1e-5)


def test_options_are_not_mixed_up() -> None:
    model, x = chain(2, nn.Tanh, nn.Softmax(dim=1)), batch()
    plain = cfcam_torch.open_model(model).scores(x)
    kept = cfcam_torch.open_model(model, look_through=False).scores(x)
    summed = cfcam_torch.open_model(model, output=lambda p: p[:, :2]).scores(x)
    assert summed.shape == (2, 2)
    np.testing.assert_allclose(kept.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(cfcam_torch.open_model(model).scores(x), plain)
    assert cfcam.explain(model, x).scores.shape == (2, 5)


def test_a_model_that_is_equal_to_others_or_to_none() -> None:
    """Models may define `==`; what is kept goes by identity."""

    class Equal(nn.Module):
        __hash__ = object.__hash__

        def __init__(self, scale: float) -> None:
            super().__init__()
            self.net, self.scale = chain(), scale

        def __eq__(self, other: object) -> bool:
            raise TypeError("models are not compared")

        def forward(self, x: Any) -> Any:
            return self.net(x) * self.scale

    one, two, x = Equal(1).eval(), Equal(2).eval(), batch()
    two.net.load_state_dict(one.net.state_dict())
    for _ in range(2):
        a, b = explain(one, x), explain(two, x)
        np.testing.assert_allclose(b.scores, 2 * a.scores, rtol=1e-5)


def test_paths_that_depend_on_the_input() -> None:
    """A model that takes another way for small pictures."""

    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = chain(), chain()

        def forward(self, x: Any) -> Any:
            return (self.small if x.shape[-1] < 20 else self.large)(x)

    model = Forks().eval()
    backend = cfcam_torch.open_model(model)
    small, large = batch(), torch.randn(2, 3, 24, 32)
    agree(backend.capture(small), by_halves(model.small, "bend3", small))
    agree(backend.capture(large, layer="large.inner"), by_halves(model.large, "inner", large))
    agree(backend.capture(large), by_halves(model.large, "bend3", large))


def test_paths_that_depend_on_the_values() -> None:
    """Inputs of the same shape may go different ways."""

    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dark, self.bright = chain(), chain()

        def forward(self, x: Any) -> Any:
            return (self.dark if x.mean() < 0 else self.bright)(x)

    model, bright = Forks().eval(), batch().abs()
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(bright), by_halves(model.bright, "bend3", bright))
    agree(backend.capture(-bright, layer="dark.inner"), by_halves(model.dark, "inner", -bright))
    agree(backend.capture(-bright), by_halves(model.dark, "bend3", -bright))
