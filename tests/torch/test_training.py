"""Models in training mode are explained as in evaluation, and stay in training mode."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import Apply, batch, chain, mean, same

from cfcam_core import explain


def normed() -> nn.Sequential:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout2d(0.5)),
        *(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(Apply(mean), nn.Dropout(0.5), nn.Linear(6, 5)),
    )
    for _ in range(3):  # statistics that differ from those of a new model
        model(3 * batch(samples=8) + 1)
    return model


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


MIXED = {
    "all train": lambda model: model.train(),
    "all eval": lambda model: model.eval(),
    "norms frozen": lambda model: [model.train(), model[1].eval(), model[5].eval()],
    "head trains": lambda model: [model.eval(), model[8].train(), model[9].train()],
    "root alone": lambda model: [model.eval(), setattr(model, "training", True)],
}


@pytest.mark.parametrize("how", MIXED)
def test_flags_and_statistics_stay(how: str) -> None:
    model, x = normed(), batch()
    wanted = cfcam_torch.open_model(model.eval()).capture(x, layer="4")
    MIXED[how](model)
    before = flags(model), {k: v.clone() for k, v in model.state_dict().items()}
    backend = cfcam_torch.open_model(model)
    assert backend.layers()
    same(backend.capture(x, layer="4"), wanted)
    same(backend.captures(x, layers=["4", None])[0], wanted)
    np.testing.assert_allclose(backend.scores(x), wanted.scores, rtol=1e-5)
    np.testing.assert_allclose(
        backend.scores_from(wanted.activations, x, layer="4"), wanted.scores, rtol=1e-5
    )
    explain(model, x)
    assert flags(model) == before[0]
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[1][key], rtol=0, atol=0)


def test_the_mode_may_change_between_two_calls() -> None:
    model, x = normed(), batch()
    backend = cfcam_torch.open_model(model.eval())
    wanted = backend.capture(x)
    model.train()
    same(backend.capture(x), wanted)
    assert all(flags(model))
    model.eval()
    same(backend.capture(x), wanted)
    assert not any(flags(model))


@pytest.mark.parametrize("turn", [3, 12, 19])
def test_an_interrupt_while_flags_are_set(turn: int) -> None:
    """Ten flags are cleared and set again; wherever that is stopped, all are as they were."""
    left = [turn]

    class Stops(nn.Module):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "training" and armed:
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt
            super().__setattr__(name, value)

        def forward(self, x: Any) -> Any:
            return x

    armed = False
    model, x = nn.Sequential(*[Stops() for _ in range(10)], chain()).train(), batch()
    backend = cfcam_torch.open_model(model)
    good, before = backend.capture(x, layer="10.inner"), flags(model)
    armed = True
    with pytest.raises(KeyboardInterrupt):
        backend.capture(x, layer="10.inner")
    armed = False
    assert flags(model) == before
    same(backend.capture(x, layer="10.inner"), good)
    assert flags(model) == before


def test_a_model_that_guards_its_own_flags() -> None:
    """A `train` that never lets the norms learn is not undone."""

    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = normed(), 0

        def train(self, mode: bool = True) -> Any:  # noqa: FBT001, FBT002 - as PyTorch has it
            self.calls = getattr(self, "calls", 0) + 1
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

        def forward(self, x: Any) -> Any:
            return self.net(x)

    model, x = Guarded().train(), batch()
    before = flags(model)
    cfcam_torch.open_model(model).capture(x)
    assert flags(model) == before
    assert before[0]


def test_other_outputs_while_training() -> None:
    """Heads that only training needs, as in GoogLeNet."""

    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.side = normed(), nn.Linear(3, 7)

        def forward(self, x: Any) -> Any:
            logits = self.net(x)
            return (self.side(mean(x)), logits) if self.training else logits

    model, x = Auxiliary().train(), batch()
    capture = cfcam_torch.open_model(model).capture(x)
    assert capture.scores.shape == (2, 5)
    assert model(x)[0].shape == (2, 7)


def test_one_sample_in_training_mode() -> None:
    """A batch norm over one value raises while training."""
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.BatchNorm1d(6), nn.Linear(6, 5)),
    ).train()
    assert cfcam_torch.open_model(model).capture(batch(samples=1)).gradients.any()


def test_flags_stay_when_the_model_raises() -> None:
    class Raises(nn.Module):
        def forward(self, x: Any) -> Any:
            if len(x) == 3:
                raise ArithmeticError("three is too many")
            return x

    model = nn.Sequential(normed(), Raises()).train()
    model[0][1].eval()
    before = flags(model)
    backend = cfcam_torch.open_model(model)
    backend.capture(batch())
    for call in (backend.capture, backend.scores):
        with pytest.raises(Exception, match="three is too many"):
            call(batch(samples=3))
        assert flags(model) == before


def test_no_random_number_is_drawn() -> None:
    """Noise for a trial comes from a generator of its own."""
    model = normed().train()
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the user's own
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    backend = cfcam_torch.open_model(model, example=np.ones((2, 3, 12, 17), np.float32))
    backend.layers()
    backend.capture(np.ones((2, 3, 12, 17), np.float32))
    torch.testing.assert_close(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
