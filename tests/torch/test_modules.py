"""Modules that run several times, have several names, or return structures."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import (
    UNITS,
    Apply,
    agree,
    batch,
    by_halves,
    chain,
    convolution,
    mean,
    of_halves,
)

from cfcam_core import CfcamError, LayerNotFoundError

# --------------------------------------------------------------------------- more than one run


class Repeated(nn.Module):
    """One convolution three times."""

    def __init__(self, *, functional: bool) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.unit = Apply(torch.relu) if functional else nn.ReLU(inplace=True)
        self.dense = nn.Linear(6, 5)

    def steps(self, x: Any, count: int) -> Any:
        for _ in range(count):
            x = self.unit(self.shared(x))
        return x

    def forward(self, x: Any) -> Any:
        return self.dense(mean(self.steps(self.stem(x), 3)))


@pytest.mark.parametrize("functional", [True, False])
def test_shared_modules_mean_their_last_run(*, functional: bool) -> None:
    model, x = Repeated(functional=functional).eval(), batch()
    backend = cfcam_torch.open_model(model)
    last = of_halves(
        lambda x: model.shared(model.steps(model.stem(x), 2)),
        lambda x: model.dense(mean(x.relu())),
        x,
    )
    agree(backend.capture(x, layer="shared"), last)
    agree(backend.capture(x, layer=model.shared), last)
    replaced = backend.scores_from(last.activations, x, layer="shared")
    np.testing.assert_allclose(replaced, last.scores, rtol=1e-5, atol=1e-6)
    names = [layer.name for layer in backend.layers()]
    assert len(names) == len(set(names))
    for layer in backend.layers():
        found = backend.capture(x, layer=layer.name)
        np.testing.assert_allclose(
            backend.scores_from(found.activations, x, layer=layer.name),
            last.scores,
            rtol=1e-5,
            atol=1e-6,
        )


class Aliased(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain()
        self.alias = self.net.inner

    def forward(self, x: Any) -> Any:
        return self.net(x)


def test_one_module_under_two_names() -> None:
    model, x = Aliased().eval(), batch()
    backend = cfcam_torch.open_model(model)
    truth = by_halves(model.net, "inner", x)
    for name in ("net.inner", "alias", model.alias):
        agree(backend.capture(x, layer=name), truth)


# ------------------------------------------------------------------- modules that return structures


class Held:
    """An object with a tensor inside, as modules of some libraries return it."""

    def __init__(self, features: Any) -> None:
        self.features = features


PACK = {
    "tuple": (lambda x: (x, None), lambda y: y[0]),
    "list": (lambda x: [x, x * 2], lambda y: y[0]),
    "dict": (lambda x: {"features": x, "size": 3}, lambda y: y["features"]),
    "nested": (lambda x: ((x,), {"more": None}), lambda y: y[0][0]),
}


@pytest.mark.parametrize("kind", [*PACK, "ModelOutput"])
@pytest.mark.parametrize("unit", ["relu in place", "tanh"])
def test_modules_that_return_structures(kind: str, unit: str) -> None:
    if kind == "ModelOutput":
        from transformers.modeling_outputs import BaseModelOutput

        pack, unpack = (
            (lambda x: BaseModelOutput(last_hidden_state=x)),
            (lambda y: y.last_hidden_state),
        )
    else:
        pack, unpack = PACK[kind]

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = convolution(2, 3, 6)

        def forward(self, x: Any) -> Any:
            return pack(self.conv(x))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed, self.unit, self.dense = Packed(), UNITS[unit](), nn.Linear(6, 5)

        def back(self, x: Any) -> Any:
            return self.dense(mean(self.unit(x)))

        def forward(self, x: Any) -> Any:
            return self.back(unpack(self.packed(x)))

    model, x = Whole().eval(), batch()
    backend = cfcam_torch.open_model(model)
    truth = of_halves(model.packed.conv, model.back, x)
    agree(backend.capture(x, layer="packed"), truth)
    agree(backend.capture(x, layer=model.packed), truth)
    replaced = backend.scores_from(truth.activations * 0, x, layer="packed")
    np.testing.assert_allclose(replaced, model.back(truth.activations * 0).detach(), rtol=1e-5)


def test_modules_that_return_objects_of_their_own() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.packed, self.dense = convolution(2, 3, 6), Apply(Held), nn.Linear(6, 5)

        def forward(self, x: Any) -> Any:
            return self.dense(mean(self.packed(self.conv(x)).features.tanh()))

    backend = cfcam_torch.open_model(Whole().eval())
    assert backend.capture(batch()).gradients.any()
    with pytest.raises(CfcamError, match=r"Held|packed"):
        backend.capture(batch(), layer="packed")


class Pools(nn.Module):
    """Returns its map, but only what it has pooled of it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain()

    def forward(self, x: Any) -> Any:
        maps = self.net[:6](x)
        return maps, self.net[6:](maps)


def test_maps_that_nobody_reads_cannot_be_replaced() -> None:
    inner, x = Pools(), batch()
    model = nn.Sequential(inner, Apply(lambda pair: pair[1])).eval()
    backend = cfcam_torch.open_model(model)
    found = backend.capture(x, layer="0")
    agree(found, by_halves(inner.net, "bend3", x))
    np.testing.assert_array_equal(
        backend.scores_from(found.activations, x, layer="0"), found.scores
    )
    with pytest.raises(LayerNotFoundError, match="no score depends on what layer '0' hands on"):
        backend.scores_from(2 * found.activations, x, layer="0")
