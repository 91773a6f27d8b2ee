"""`torch.export`: programs and their files are taken apart into modules again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cfcam_torch
import pytest
import torch
from exporting import quiet
from torch import nn
from torch_nets import agree, batch, of_halves

import cfcam_core as cfcam
from cfcam_core import InvalidInputError


def exported(plain: nn.Module, x: torch.Tensor, *, any_batch: bool = True) -> Any:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if any_batch else None
    with quiet():
        return torch.export.export(plain, (x,), dynamic_shapes=shapes)


class Named(nn.Module):
    """What `torch.export` takes: no lambdas."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 7, 3), nn.Tanh())
        self.pool, self.dense = nn.AdaptiveAvgPool2d(1), nn.Linear(7, 5)

    def back(self, x: Any) -> Any:
        return self.dense(self.pool(x).flatten(1))

    def forward(self, x: Any) -> Any:
        return self.back(self.trunk(x))


@pytest.mark.parametrize("from_file", [True, False])
def test_exported_programs(tmp_path: Path, *, from_file: bool) -> None:
    plain, x = Named().eval(), batch()
    model = exported(plain, x)
    if from_file:
        with quiet():
            torch.export.save(model, tmp_path / "model.pt2")
        model = tmp_path / "model.pt2"
    backend = cfcam.open_model(model)
    truth = of_halves(plain.trunk, plain.back, x)
    for _ in range(2):
        agree(backend.capture(x, layer="trunk"), truth)
        agree(backend.capture(x.numpy()), truth)
    cut = of_halves(plain.trunk[:3], lambda x: plain.back(x.tanh()), x, [0, 1])
    agree(backend.capture(x, layer="trunk.2", target=[0, 1]), cut)
    assert backend.capture(x[:1]).scores.shape == (1, 5)
    assert backend.capture(x[0]).scores.shape == (1, 5)
    assert backend.capture(x, layer="input").gradients.any()
    assert any(layer.is_default for layer in backend.layers())
    assert cfcam.explain(model, x).heatmaps.shape == (2, 12, 17)


def test_an_exported_program_knows_its_input() -> None:
    backend = cfcam_torch.open_model(exported(Named().eval(), batch(samples=3)))
    assert any(layer.is_default for layer in backend.layers())
    with pytest.raises(InvalidInputError):
        backend.capture(batch(samples=2)[:, :, :9])


def test_an_exported_program_of_a_fixed_batch() -> None:
    plain, x = Named().eval(), batch(samples=2)
    backend = cfcam_torch.open_model(exported(plain, x, any_batch=False))
    agree(backend.capture(x), of_halves(plain.trunk, plain.back, x))
    try:
        found = backend.capture(x[:1])
    except InvalidInputError as error:
        assert "2" in str(error)  # noqa: PT017 - says how many it takes
    else:
        agree(found, of_halves(plain.trunk, plain.back, x[:1]))
