"""Compiled, wrapped, traced and exported models: the gradients of what is inside, or a refusal."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from exporting import quiet
from torch import nn
from torch_nets import UNITS, agree, batch, by_halves, chain, of_halves

import cfcam_core as cfcam
from cfcam_core import BackendNotFoundError, CfcamError, InvalidInputError


@pytest.fixture(autouse=True)
def forget_what_was_compiled() -> Iterator[None]:
    yield
    torch.compiler.reset()


class Compiler:
    """A backend of torch.compile that counts and leaves the graph as it is."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


# -------------------------------------------------------------------------------- torch.compile


@pytest.mark.parametrize("ran_before", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_compiled(*, in_place: bool, ran_before: bool) -> None:
    """`torch.compile(model)` wraps, `model.compile()` does not."""
    plain, x, compiler = chain(2, UNITS["relu in place"]), batch(), Compiler()
    wanted = {name: by_halves(plain, name, x) for name in ("stem", "last", "bend3")}
    model = copy.deepcopy(plain)
    if in_place:
        model.compile(backend=compiler)
    else:
        model = torch.compile(model, backend=compiler)
    if ran_before:
        with quiet():
            model(x)
    graphs = compiler.graphs
    backend = cfcam_torch.open_model(model)
    names = [layer.name for layer in backend.layers()]
    assert not any("_orig_mod" in name for name in names)
    for name, truth in wanted.items():
        agree(backend.capture(x, layer=name), truth)
    agree(backend.capture(x), wanted["bend3"])
    assert backend.capture(x, layer="input").gradients.any()
    assert compiler.graphs == graphs, "an explanation must not compile the user's model anew"
    with quiet():
        torch.testing.assert_close(model(x), plain(x))
        model(x).sum().backward()
    assert compiler.graphs == 1, "and the user's next call does not either"
    agree(backend.capture(x, layer="last"), wanted["last"])


@pytest.mark.parametrize("how", ["eager", "aot_eager"])
def test_a_compiled_part(how: str) -> None:
    plain, x = chain(), batch()
    wanted = {name: by_halves(plain, name, x) for name in ("stem", "last")}
    model = nn.Sequential()
    model.add_module("trunk", torch.compile(plain[:6], backend=how))
    model.add_module("head", plain[6:])
    model.eval()
    backend = cfcam_torch.open_model(model)
    for name, truth in wanted.items():
        agree(backend.capture(x, layer=plain.get_submodule(name)), truth)
        agree(backend.capture(x, layer=f"trunk.{name}"), truth)
    assert backend.capture(x).activations.shape == (2, 7, 6, 9)
    with quiet():
        torch.testing.assert_close(model(x), plain(x))
        model(x).sum().backward()


class Body(nn.Module):
    """A class of one's own: frames of PyTorch's own modules are never compiled by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.net = chain()

    def forward(self, x: Any) -> Any:
        return self.net(x)


def test_a_part_compiled_in_place() -> None:
    body, x, compiler = Body().eval(), batch(), Compiler()
    truth = by_halves(body.net, "inner", x)
    body.compile(backend=compiler)
    model = nn.Sequential(body)
    with quiet():
        model(x)
    assert compiler.graphs == 1
    agree(cfcam_torch.open_model(model).capture(x, layer="0.net.inner"), truth)
    agree(cfcam_torch.open_model(model).capture(x, layer=body.net.inner), truth)
    with quiet():
        torch.testing.assert_close(model(x), truth.scores)
    assert compiler.graphs == 1


# ------------------------------------------------------------------------------- DataParallel


def test_data_parallel() -> None:
    plain, x = chain(), batch()
    model = nn.DataParallel(plain)
    backend = cfcam_torch.open_model(model)
    truth = by_halves(plain, "last", x)
    for layer in (plain.last, "last", "module.last"):
        agree(backend.capture(x, layer=layer), truth)
    agree(backend.capture(x), by_halves(plain, "bend3", x))
    torch.testing.assert_close(model(x), plain(x))


def test_compiled_and_parallel() -> None:
    plain, x = chain(), batch()
    model = torch.compile(nn.DataParallel(plain), backend="eager")
    backend = cfcam_torch.open_model(model)
    agree(backend.capture(x, layer=plain.last), by_halves(plain, "last", x))


# ---------------------------------------------------------------------- TorchScript, torch.fx


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torch_script(how: str) -> None:
    plain, x = (
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(900, 5)),
        batch(),
    )
    with quiet():
        model = torch.jit.script(plain) if how == "script" else torch.jit.trace(plain, (x,))
    backend = cfcam_torch.open_model(model)
    np.testing.assert_allclose(backend.scores(x), plain(x).detach(), rtol=1e-5, atol=1e-6)
    agree(backend.capture(x, layer="input"), of_halves(nn.Identity(), plain, x))
    for layer in ("0", "1", None, 0):
        with pytest.raises(CfcamError, match=r"TorchScript|scripted|traced"):
            backend.capture(x, layer=layer)
    for call in (backend.scores, lambda x: backend.capture(x, layer="input")):
        assert call(x) is not None
    assert cfcam.explain(model, x, layer="input").heatmaps.shape == (2, 12, 17)


def test_a_scripted_part() -> None:
    plain, x = chain(), batch()
    with quiet():
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()))
    model = nn.Sequential(scripted, plain).eval()
    backend = cfcam_torch.open_model(model)
    truth = by_halves(plain, "inner", scripted(x).detach())
    agree(backend.capture(x, layer="1.inner"), truth)
    agree(backend.capture(x), by_halves(plain, "bend3", scripted(x).detach()))
    with pytest.raises(CfcamError, match=r"TorchScript|scripted|traced|run"):
        backend.capture(x, layer="0.0")
    torch.testing.assert_close(model(x), plain(scripted(x)))


def test_symbolically_traced() -> None:
    plain, x = chain(2, lambda: nn.ReLU(inplace=True)), batch()
    tracer = torch.fx.Tracer()
    model = torch.fx.GraphModule(plain, tracer.trace(plain)).eval()
    backend = cfcam_torch.open_model(model)
    for name in ("stem", "inner", "last"):
        agree(backend.capture(x, layer=name), by_halves(plain, name, x))
    agree(backend.capture(x), by_halves(plain, "bend3", x))


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("what", ["model", "state dict", "script"])
def test_pickled_files_are_refused(suffix: str, what: str, tmp_path: Path) -> None:
    path, model = tmp_path / f"model{suffix}", nn.Sequential(nn.Conv2d(3, 5, 3))
    if what == "script":
        with quiet():
            torch.jit.script(model).save(path)
    else:
        torch.save(model if what == "model" else model.state_dict(), path)
    with pytest.raises(CfcamError, match=r"torch\.load|load"):
        cfcam.open_model(path)
    with pytest.raises(CfcamError, match="pt2"):
        cfcam.explain(str(path), batch())


def test_a_broken_pt2(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"no archive")
    with pytest.raises(InvalidInputError, match=r"model\.pt2"):
        cfcam.open_model(path)
    with pytest.raises(InvalidInputError, match=r"missing\.pt2"):
        cfcam_torch.open_model(tmp_path / "missing.pt2")


def test_weights_alone_are_no_model() -> None:
    with pytest.raises(CfcamError, match="state dict"):
        cfcam_torch.open_model(chain().state_dict())
    with pytest.raises(BackendNotFoundError):
        cfcam.open_model(chain().state_dict())


@pytest.mark.parametrize(
    "what", [torch.zeros(3), torch.relu, nn.Conv2d, nn.Parameter(torch.ones(2)), None, 7]
)
def test_what_is_no_model(what: Any) -> None:
    with pytest.raises(CfcamError):
        cfcam_torch.open_model(what)


def test_meta_and_lazy_models() -> None:
    with pytest.raises(CfcamError, match="no values"):
        cfcam_torch.open_model(chain().to("meta")).capture(batch())
    lazy = nn.Sequential(nn.LazyConv2d(6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    try:
        backend = cfcam_torch.open_model(lazy)
        assert backend.capture(batch()).gradients.any()
    except CfcamError as error:
        assert "lazy" in str(error).lower()  # noqa: PT017


@pytest.mark.parametrize("forward", [None, torch.relu])
def test_a_call_of_the_users_own(forward: Any) -> None:
    """Without a `forward` that tells its parameters."""

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.forward = chain(), forward

        def __call__(self, x: Any) -> Any:
            return self.net(x)

    model, x = Called().eval(), batch()
    agree(cfcam_torch.open_model(model).capture(x), by_halves(model.net, "bend3", x))
