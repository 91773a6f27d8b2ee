"""What `layer=` takes, what is listed, and what is said of layers that cannot be explained."""

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
    mean,
    of_halves,
    same,
)

from cfcam_core import CfcamError, LayerNotFoundError, explain


def default_of(backend: Any) -> Any:
    (one,) = [layer for layer in backend.layers() if layer.is_default]
    return one


# ------------------------------------------------------------------------------------- all names


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_way_to_name_a_layer(axes: int) -> None:
    model, x = chain(axes, nn.Tanh), batch(axes)
    backend = cfcam_torch.open_model(model)
    backend.capture(x)
    layers = backend.layers()
    names = [layer.name for layer in layers]
    index = names.index("inner")
    truth = by_halves(model, "inner", x)
    meant = ["inner", model.inner, index, np.int64(index), index - len(names), layers[index]]
    for layer in meant:
        agree(backend.capture(x, layer=layer), truth)
        assert backend.capture(x, layer=layer).layer == "inner"
    assert layers[index].kind == f"Conv{axes}d"
    assert layers[index].shape[1:] == truth.activations.shape[1:]


def test_a_list_is_fused() -> None:
    model, x = chain(), batch()
    found = explain(model, x, layer=[model.stem, "inner", -1], method="grad-cam")
    assert found.heatmaps.shape == (2, 12, 17)
    each = [explain(model, x, layer=one, method="grad-cam") for one in (model.stem, "inner", -1)]
    assert all(one.layer in found.layer for one in each)


def test_what_is_listed() -> None:
    model, x = chain(2, UNITS["tanh"]), batch()
    backend = cfcam_torch.open_model(model, example=x)
    names = [layer.name for layer in backend.layers()]
    assert names == ["stem", "bend", "inner", "bend2", "last", "bend3"]
    assert default_of(backend).name == "bend3"
    assert not any(layer.module for layer in backend.layers())  # the name is the module's
    for layer in backend.layers():
        capture = backend.capture(x, layer=layer)
        assert capture.activations.ndim == 4
        assert min(capture.activations.shape[2:]) >= 2


def test_an_example_on_which_all_is_dead() -> None:
    """No gradient flows from zeros through units without bias; there is a default nonetheless."""
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8, bias=False), nn.ReLU()]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), *head, nn.Linear(8, 4)).eval()
    x = batch()
    backend = cfcam_torch.open_model(model, example=torch.zeros_like(x))
    agree(backend.capture(x), by_halves(model, "1", x))
    dead = backend.capture(torch.zeros_like(x))
    assert dead.layer == "1"
    assert not dead.gradients.any()


@pytest.mark.parametrize("unit", UNITS)
def test_each_tensor_is_listed_once(unit: str) -> None:
    """Wrappers return what their last part returns; only one of the names is listed."""
    model = nn.Sequential(nn.Sequential(nn.Sequential(chain(2, UNITS[unit])[:6])), chain()[6:])
    backend = cfcam_torch.open_model(model.eval(), example=batch())
    seen = [backend.capture(batch(), layer=layer).activations for layer in backend.layers()]
    backend = cfcam_torch.open_model(model.eval(), example=batch())
    names = [layer.name for layer in backend.layers()]
    assert len(names) == len(set(names)) == 6
    assert len(seen) == 6
    for name in ("0", "0.0", "0.0.0", "0.0.0.bend3"):  # each is still a name
        same(backend.capture(batch_of_ones(), layer=name), backend.capture(batch_of_ones()))


def batch_of_ones() -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * 12 * 17).reshape(2, 3, 12, 17)


def test_dropout_and_identity_are_no_maps_of_their_own() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.Identity(), nn.Dropout2d(), nn.Tanh(), nn.Identity()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    ).eval()
    backend = cfcam_torch.open_model(model, example=batch())
    assert len(backend.layers()) == 2
    assert backend.capture(batch(), layer="4").gradients.any()
    assert backend.capture(batch(), layer="1").gradients.any()


def test_without_an_example_the_input_is_guessed() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )
    backend = cfcam_torch.open_model(model)
    assert default_of(backend).name == "1"


def test_where_no_guess_runs_an_example_is_asked_for() -> None:
    model = nn.Sequential(Apply(lambda x: x["left"] + x["right"]), chain())
    backend = cfcam_torch.open_model(model)
    with pytest.raises(CfcamError, match="example="):
        backend.layers()
    x = {"x": {"left": batch(), "right": batch()}}
    del x
    assert cfcam_torch.open_model(chain(), example=batch()).layers()


# ------------------------------------------------------------------------------------ the default


def test_pooling_is_not_the_default() -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()),
        *(nn.AvgPool2d(2, stride=1), nn.Flatten(), nn.LazyLinear(5)),
    ).eval()
    model(batch())
    assert default_of(cfcam_torch.open_model(model, example=batch())).name == "4"


def test_a_map_of_a_single_position_is_no_layer() -> None:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.dense = nn.Conv2d(3, 8, 3), gate, nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            x = self.conv(x)
            return self.dense(mean(x * self.gate(x)))

    backend = cfcam_torch.open_model(Gated().eval(), example=batch())
    assert [layer.name for layer in backend.layers()] == ["conv"]
    try:
        wanted = backend.capture(batch(), layer="gate.1")
    except CfcamError as error:
        assert "gate.1" in str(error)  # noqa: PT017 - refused, or drawn as what it is
    else:
        assert wanted.activations.shape == (2, 8, 1, 1)


def test_class_maps_are_not_the_default() -> None:
    """The last convolution makes one channel a class: its gradient is in one channel alone."""
    model = nn.Sequential(*(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 1)), Apply(mean)).eval()
    assert default_of(cfcam_torch.open_model(model, example=batch())).name == "1"


def test_parallel_branches_are_no_default() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.left, self.right = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
            self.dense = nn.Linear(12, 5)

        def forward(self, x: Any) -> Any:
            x = self.stem(x).relu()
            both = torch.cat([self.left(x), self.right(x)], 1)
            return self.dense(mean(both.relu()))

    backend = cfcam_torch.open_model(Branches().eval(), example=batch())
    assert [layer.name for layer in backend.layers()] == ["stem"]
    assert backend.capture(batch(), layer="right").gradients.any()


def test_recurrent_units_are_no_picture() -> None:
    """A text recogniser: 16 steps of an LSTM are not 4 x 4 patches."""

    class Crnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1)
            )
            self.lstm = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
            self.dense = nn.Linear(12, 5)

        def front(self, x: Any) -> Any:
            return self.trunk(x)

        def back(self, x: Any) -> Any:
            steps, _ = self.lstm(x.relu().flatten(2).transpose(1, 2))
            return self.dense(steps.mean(1))

        def forward(self, x: Any) -> Any:
            return self.back(self.front(x))

    model, x = Crnn().eval(), torch.randn(2, 3, 16, 16)
    backend = cfcam_torch.open_model(model)
    truth = of_halves(model.front, model.back, x)
    agree(backend.capture(x), truth)
    agree(backend.capture(x, layer="trunk.2"), truth)
    steps = backend.capture(x, layer="lstm")
    assert steps.activations.shape == (2, 12, 16)
    assert steps.gradients.any()
    for layer in backend.layers():
        assert "lstm" not in layer.name or backend.capture(x, layer=layer).activations.ndim == 3


# ------------------------------------------------------------------------------ what is refused


def test_misspelt_names() -> None:
    backend = cfcam_torch.open_model(chain())
    with pytest.raises(LayerNotFoundError, match=r"no layer 'iner'.*inner"):
        backend.capture(batch(), layer="iner")
    for wrong in (99, -99, 1.5, object(), True, ""):
        with pytest.raises(LayerNotFoundError):
            backend.capture(batch(), layer=wrong)
    with pytest.raises(LayerNotFoundError, match="0 to 5"):
        backend.capture(batch(), layer=6)


def test_a_module_of_another_model() -> None:
    backend = cfcam_torch.open_model(chain())
    with pytest.raises(LayerNotFoundError, match="Conv2d"):
        backend.capture(batch(), layer=chain().inner)


class Spare(nn.Module):
    """Parts that do not run, that nothing depends on, that return other things than maps."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.asleep, self.aside = chain(), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.cut, self.number, self.nothing = (
            nn.Conv2d(3, 3, 3),
            Apply(lambda x: 7),
            Apply(lambda x: None),
        )
        self.integers, self.blocked = Apply(lambda x: x.argmax(1)), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Any) -> Any:
        self.aside(x)
        self.nothing(x)
        self.integers(x)
        blocked = self.blocked(x).detach()
        return self.net(x) * self.number(x) + self.cut(x).mean() * 0 + mean(blocked).mean()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("asleep", "run"),
        ("aside", "depend"),
        ("number", "int"),
        ("nothing", "None"),
        ("integers", "int"),
        ("blocked", "depend|detach"),
        ("net.dense", "spatial|grid|axes"),
        ("net.pool", "spatial|grid|axes"),
        ("net", "spatial|grid|axes"),
    ],
)
def test_layers_that_cannot_be_explained(name: str, why: str) -> None:
    model = Spare().eval()
    backend = cfcam_torch.open_model(model)
    for layer in (name, model.get_submodule(name)):
        with pytest.raises(CfcamError, match=f"(?s){name}.*({why})|({why}).*{name}"):
            backend.capture(batch(), layer=layer)
    assert backend.capture(batch(), layer="net.inner").gradients.any()


def test_several_layers_of_which_one_is_bad() -> None:
    backend = cfcam_torch.open_model(Spare().eval())
    with pytest.raises(CfcamError, match="asleep"):
        backend.captures(batch(), layers=["net.inner", "asleep"])
    assert backend.capture(batch(), layer="net.inner").gradients.any()


def test_containers_that_do_not_run() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)])
            self.dense = nn.Linear(6, 5)

        def forward(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x).relu()
            return self.dense(mean(x))

    model = Listed().eval()
    backend = cfcam_torch.open_model(model)
    with pytest.raises(CfcamError, match="parts"):
        backend.capture(batch(), layer="parts")
    with pytest.raises(CfcamError):
        backend.capture(batch(), layer=model.parts)
    assert backend.capture(batch(), layer=model.parts[-1]).gradients.any()
