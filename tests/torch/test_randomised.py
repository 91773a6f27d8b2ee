"""Copies of a model with its weights in random order, and the model beside them as it was."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn

from cfcam_core import InvalidInputError


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()


def mixed(model: nn.Module, **how: Any) -> nn.Module:
    return cfcam_torch.open_model(model).randomised(0, **how)._model.module


def test_kernels_are_mixed_and_biases_and_norms_are_not() -> None:
    model = net()
    for own, other in zip(model.named_parameters(), mixed(model).named_parameters(), strict=True):
        (name, before), (_, after) = own, other
        assert torch.equal(before, after) == (name not in {"0.weight", "4.weight"}), name
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
        assert before.data_ptr() != after.data_ptr()
    assert cfcam_torch.open_model(model).weight_names() == ("0.weight", "4.weight")


def test_the_model_and_the_global_generator_are_left_as_they_are() -> None:
    model = net().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: (value._version, value.clone()) for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    copy = mixed(model)
    assert torch.equal(torch.rand(3), wanted)
    copy(torch.ones(2, 3, 6, 6))
    for name, value in model.state_dict().items():
        assert value._version == before[name][0]
        assert torch.equal(value, before[name][1])
    assert model.training
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    copy = mixed(model, last=1)
    assert copy[4].weight.dtype == dtype
    assert not torch.equal(copy[4].weight, model[4].weight)
    assert torch.equal(copy[0].weight, model[0].weight)


def test_a_shared_weight_stays_shared() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    model[2].weight = model[0].weight
    copy = mixed(nn.Sequential(model, nn.Flatten(), nn.Linear(108, 2)).eval())
    assert copy[0][0].weight is copy[0][2].weight


def test_an_output_that_was_named_is_the_copys_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 7)

        def forward(self, x: Any) -> Any:
            features = self.body(x).relu().mean((2, 3))
            return {"a": self.a(features), "b": self.b(features)}

    opened = cfcam_torch.open_model(Two().eval(), output="b")
    assert opened.randomised(0).scores(np.ones((1, 3, 6, 6))).shape == (1, 7)


def test_what_cannot_be_copied_is_refused() -> None:
    model = net()
    model.lasting = (i for i in range(3))  # generators cannot be copied
    with pytest.raises(InvalidInputError, match=r"cannot be copied \(TypeError.*randomised="):
        mixed(model)


def test_a_model_without_weights_is_refused() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    assert cfcam_torch.open_model(model).weight_names() == ()
    with pytest.raises(InvalidInputError, match="no weights in floating point"):
        mixed(model)
