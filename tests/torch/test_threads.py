"""Many threads on one opened model, and one model opened many times: the serial results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import UNITS, Apply, batch, chain, same

from cfcam_core import CfcamError, explain

LAYERS = ("stem", "inner", "last", "bend3", "input", None)


def jobs() -> list[tuple[Any, int, torch.Tensor]]:
    inputs = [batch(samples=n) for n in (1, 2, 3)]
    return [(layer, k, x) for k in range(5) for layer in LAYERS for x in inputs]


def together(work: Any, todo: list[Any], threads: int = 8) -> list[Any]:
    """Start all threads at once and let each take what is next."""
    start = Barrier(threads)
    with ThreadPoolExecutor(threads, initializer=start.wait) as pool:
        return list(pool.map(work, todo))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("unit", ["relu in place", "tanh"])
def test_eight_threads(unit: str, *, training: bool) -> None:
    model = chain(2, UNITS[unit], nn.BatchNorm1d(5), nn.Dropout(0.5))
    model(batch(samples=9))
    todo = jobs()
    alone = [
        cfcam_torch.open_model(model.eval()).capture(x, layer=layer, target=k)
        for layer, k, x in todo
    ]
    model.train(training)
    flags = [module.training for module in model.modules()]
    backend = cfcam_torch.open_model(model)
    found = together(lambda job: backend.capture(job[2], layer=job[0], target=job[1]), todo)
    for one, other in zip(found, alone, strict=True):
        same(one, other)
    assert [module.training for module in model.modules()] == flags
    assert not any(module._forward_hooks for module in model.modules())


def test_all_methods_at_once() -> None:
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    zeros = np.zeros((2, 8, 6, 9), np.float32)
    calls = {
        "scores": lambda: backend.scores(x),
        "scores_from": lambda: backend.scores_from(zeros, x, layer="inner"),
        "capture": lambda: backend.capture(x, layer="inner", target=1).gradients,
        "input": lambda: backend.capture(x, layer="input", target=2).gradients,
        "several": lambda: backend.captures(x, layers=["stem", "last"], target=3)[0].gradients,
        "layers": lambda: np.array([layer.name for layer in backend.layers()]),
    }
    wanted = {name: call() for name, call in calls.items()}
    todo = list(calls) * 12
    for name, found in zip(todo, together(lambda name: calls[name](), todo), strict=True):
        if name == "layers":
            np.testing.assert_array_equal(found, wanted[name])
        else:
            np.testing.assert_allclose(found, wanted[name], rtol=1e-5, atol=1e-7)


def test_the_first_call_in_all_threads() -> None:
    """Each thread might start the trial."""
    model, x = chain(), batch()
    wanted = cfcam_torch.open_model(model).capture(x)
    for _ in range(5):
        backend = cfcam_torch.open_model(model)
        for found in together(lambda _, b=backend: b.capture(x), list(range(8))):
            same(found, wanted)


@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_one_model_opened_in_every_thread() -> None:
    """Two backends of one model share its modules, its flags among them."""
    model, x = chain(2, nn.ReLU, nn.Dropout(0.9)).train(), batch()
    model.inner.eval()
    flags = [module.training for module in model.modules()]
    wanted = cfcam_torch.open_model(model).capture(x, layer="last", target=1)
    found = together(
        lambda _: cfcam_torch.open_model(model).capture(x, layer="last", target=1), list(range(24))
    )
    for one in found:
        same(one, wanted)
    assert [module.training for module in model.modules()] == flags
    for one in together(lambda _: explain(model, x, target=1).scores, list(range(24))):
        np.testing.assert_allclose(one, wanted.scores, rtol=1e-5)
    assert [module.training for module in model.modules()] == flags


def test_the_user_runs_the_model_meanwhile() -> None:
    """Hooks are keyed to the call: another thread's forward pass is not captured."""
    model, x, other = chain(2, UNITS["relu in place"]), batch(), batch(samples=5)
    backend = cfcam_torch.open_model(model)
    wanted, scores = backend.capture(x, layer="inner", target=1), model(other).detach()

    def work(i: int) -> Any:
        return model(other).detach() if i % 2 else backend.capture(x, layer="inner", target=1)

    for i, found in enumerate(together(work, list(range(64)))):
        if i % 2:
            torch.testing.assert_close(found, scores)
        else:
            same(found, wanted)


def test_a_thread_that_fails_hurts_no_other() -> None:
    class Moody(nn.Module):
        def forward(self, x: Any) -> Any:
            if len(x) == 3:
                raise ArithmeticError("on purpose")
            return x

    model = nn.Sequential(chain()[:6], Moody(), chain()[6:]).train()
    backend = cfcam_torch.open_model(model)
    good, bad = batch(), batch(samples=3)
    wanted = backend.capture(good, layer="0.inner")

    def work(i: int) -> Any:
        if i % 2:
            with pytest.raises(Exception, match="on purpose"):
                backend.capture(bad, layer="0.inner")
            return None
        return backend.capture(good, layer="0.inner")

    for found in together(work, list(range(48)))[::2]:
        same(found, wanted)
    assert all(module.training for module in model.modules())


def test_gradient_modes_belong_to_their_threads() -> None:
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    wanted = backend.capture(x, layer="inner")

    def work(i: int) -> Any:
        with torch.inference_mode(i % 2 == 0):
            found = backend.capture(x, layer="inner")
            assert torch.is_inference_mode_enabled() == (i % 2 == 0)
        return found

    for found in together(work, list(range(32))):
        same(found, wanted)


def test_a_call_within_a_call() -> None:
    """A target, or a module, that explains something itself."""
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    inner = []

    def target(scores: Any) -> Any:
        inner.append(backend.capture(x, layer="stem", target=0))
        return 2

    same(
        backend.capture(x, layer="inner", target=target),
        backend.capture(x, layer="inner", target=2),
    )
    same(inner[0], backend.capture(x, layer="stem", target=0))
    plain = chain()
    outer = nn.Sequential(Apply(lambda x: (backend.scores(x), x)[1]), plain).eval()
    same(
        cfcam_torch.open_model(outer).capture(x, layer="1.inner"),
        cfcam_torch.open_model(plain).capture(x, layer="inner"),
    )


def test_errors_are_the_same_in_all_threads() -> None:
    backend = cfcam_torch.open_model(chain())

    def work(i: int) -> str:
        with pytest.raises(CfcamError) as caught:
            backend.capture(batch(), layer=("nowhere", 99)[i % 2])
        return str(caught.value)

    assert len(set(together(work, list(range(32))))) == 2
