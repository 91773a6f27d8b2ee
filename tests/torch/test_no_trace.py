"""A call leaves the user's model and arrays as they were, also where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import UNITS, Apply, batch, chain, same

from cfcam_core import CfcamError, InvalidInputError, explain

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def traces(model: nn.Module) -> list[Any]:
    """Return what there is to see of a model's modules, parameters and buffers."""
    modules = [
        (
            name,
            type(one),
            one.training,
            sorted(vars(one)),
            [list(getattr(one, h).items()) for h in HOOKS],
        )
        for name, one in model.named_modules()
    ]
    tensors = [
        (name, id(one), one.requires_grad, one._version, one.grad, one.data_ptr(), one.is_leaf)
        for name, one in (*model.named_parameters(), *model.named_buffers())
    ]
    forwards = [one.forward.__func__ for one in model.modules()]
    switches = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    everywhere = [dict(getattr(nn.modules.module, f"_global{h}")) for h in HOOKS[:2]]
    return [modules, tensors, forwards, switches, everywhere]


@contextmanager
def untouched(model: nn.Module, *arrays: Any) -> Iterator[None]:
    before = traces(model)
    values = {name: value.clone() for name, value in model.state_dict().items()}
    copies = [one.copy() if isinstance(one, np.ndarray) else one.clone() for one in arrays]
    flags = [(getattr(one, "requires_grad", None), getattr(one, "grad", None)) for one in arrays]
    yield
    assert traces(model) == before
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, values[name], rtol=0, atol=0)
    for one, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(one, copy)
    assert [
        (getattr(one, "requires_grad", None), getattr(one, "grad", None)) for one in arrays
    ] == flags


def uses(backend: Any, x: Any) -> None:
    backend.layers()
    backend.scores(x)
    capture = backend.capture(x, layer="inner")
    backend.scores_from(capture.activations, x, layer="inner")
    backend.captures(x, layers=["stem", "bend", None, "input"], target=1)


@pytest.mark.parametrize("frozen", ["all", "some", "none"])
@pytest.mark.parametrize("unit", UNITS)
def test_a_whole_life(unit: str, frozen: str) -> None:
    model, x = chain(2, UNITS[unit]).train(), batch()
    model.requires_grad_(frozen != "all")
    if frozen == "some":
        model.stem.requires_grad_(False)
    with untouched(model, x):
        uses(cfcam_torch.open_model(model), x)
    array = x.numpy().copy()
    with untouched(model, array):
        uses(cfcam_torch.open_model(model, example=array), array)
        explain(model, array)


def test_an_in_place_unit_at_the_front() -> None:
    """A model that writes into its own input gets a copy."""
    model, x = nn.Sequential(nn.ReLU(inplace=True), *chain()).eval(), batch()
    for given in (x, x.numpy(), x.double(), x.half()):
        with untouched(model, given):
            backend = cfcam_torch.open_model(model)
            backend.capture(given)
            found = backend.capture(given, layer="input")
            backend.scores(given)
            backend.scores_from(found.activations, given, layer="input")
        np.testing.assert_allclose(
            found.activations, given.astype("f") if isinstance(given, np.ndarray) else given.float()
        )
        assert (found.activations < 0).any()


def test_gradients_that_the_user_has_stay() -> None:
    model, x = chain(), batch().requires_grad_()
    model(x).sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    with untouched(model):
        backend = cfcam_torch.open_model(model)
        backend.capture(x)
        backend.capture(x, layer="input")
    assert x.grad is not None
    for p, grad in zip(model.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad, rtol=0, atol=0)


def test_inputs_of_a_graph_of_the_users_own() -> None:
    """The input may itself have been computed; nothing flows back into that."""
    model, source = chain(), batch().requires_grad_()
    x = source * 2
    capture = cfcam_torch.open_model(model).capture(x, layer="input")
    assert source.grad is None
    same(capture, cfcam_torch.open_model(model).capture(x.detach(), layer="input"))
    x.sum().backward()  # the user's graph is whole


def broken(model: nn.Module, at: str) -> Callable[[], None]:
    """Make a module raise; return what repairs it."""
    part = model.get_submodule(at)
    good = part.function

    def bad(x: Any) -> Any:
        raise ArithmeticError("on purpose")

    part.function = bad
    return lambda: setattr(part, "function", good)


@pytest.mark.parametrize("at", ["bend", "bend3", "pool"])
def test_an_exception_in_the_middle(at: str) -> None:
    model, x = chain(2, lambda: Apply(torch.relu)).train(), batch()
    backend = cfcam_torch.open_model(model)
    wanted = backend.capture(x, layer="inner")
    repair = broken(model, at)
    with untouched(model, x):
        for call in (
            lambda: backend.capture(x, layer="inner"),
            lambda: backend.captures(x, layers=["inner", "stem", "input"]),
            lambda: backend.scores(x),
            lambda: backend.scores_from(wanted.activations, x, layer="inner"),
            lambda: explain(model, x),
        ):
            with pytest.raises(Exception, match="on purpose"):
                call()
    repair()
    same(backend.capture(x, layer="inner"), wanted)


def test_calls_that_fail_later() -> None:
    model, x = chain().train(), batch()
    backend = cfcam_torch.open_model(model)
    with untouched(model, x):
        for how in (
            {"target": 99},
            {"target": [0, 1, 2]},
            {"layer": "nowhere"},
            {"layer": "dense"},
        ):
            with pytest.raises(CfcamError):
                backend.capture(x, **how)
        with pytest.raises(InvalidInputError):
            backend.capture(x[:, :2])
        with pytest.raises(InvalidInputError, match=r"the target fails .* ZeroDivisionError"):
            backend.capture(x, target=lambda scores: 1 / 0)
        with pytest.raises(InvalidInputError):
            backend.scores_from(np.zeros((2, 9, 9, 9)), x, layer="inner")


def test_an_interrupt_is_let_through() -> None:
    model, x = chain(2, lambda: Apply(torch.relu)), batch()
    backend = cfcam_torch.open_model(model)
    backend.capture(x)
    good = model.bend2.function

    def stop(x: Any) -> Any:
        raise KeyboardInterrupt

    model.bend2.function = stop
    with untouched(model, x), pytest.raises(KeyboardInterrupt):
        backend.capture(x, layer="inner")
    model.bend2.function = good


def test_hooks_of_the_users_own_are_called() -> None:
    model, x, seen = chain(), batch(), []
    wanted = cfcam_torch.open_model(model).capture(x, layer="inner")
    model.inner.register_forward_hook(lambda module, inputs, output: seen.append("plain"))
    model.inner.register_forward_pre_hook(lambda module, inputs: seen.append("before"))
    model.register_forward_hook(lambda *_: seen.append("whole"))
    with untouched(model, x):
        backend = cfcam_torch.open_model(model)
        backend.capture(x)
        seen.clear()
        same(backend.capture(x, layer="inner"), wanted)
        assert seen == ["before", "plain", "whole"]


def test_a_hook_of_the_users_own_may_change_the_output() -> None:
    model, x = chain(2, nn.Tanh), batch()
    handle = model.inner.register_forward_hook(lambda module, inputs, output: output * 2)
    found = cfcam_torch.open_model(model).capture(x, layer="inner")
    np.testing.assert_allclose(found.scores, model(x).detach(), rtol=1e-5)
    handle.remove()
    half = cfcam_torch.open_model(model).capture(x, layer="inner")
    np.testing.assert_allclose(found.activations, half.activations * 2, rtol=1e-5)


def test_spectral_norms_do_not_learn() -> None:
    """Their vectors move with every forward pass in training mode."""
    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    model, x = chain().train(), batch()
    spectral_norm(model.inner)
    weight_norm(model.last)
    with untouched(model, x):
        backend = cfcam_torch.open_model(model)
        assert backend.capture(x, layer="inner").gradients.any()
        assert backend.capture(x).gradients.any()


def test_results_are_not_views_of_the_model() -> None:
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    for layer in ("inner", "input"):
        capture = backend.capture(x.numpy(), layer=layer)
        assert not np.shares_memory(capture.activations, x.numpy())
        kept = capture.activations.copy()
        backend.capture(-x, layer=layer)
        np.testing.assert_array_equal(capture.activations, kept)
