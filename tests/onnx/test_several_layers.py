"""Several layers from one run: each is what it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from cfcam_onnx._session import Session
from whole_models import CLOSE, images, opened

import cfcam_core as cfcam
from cfcam_core import Capture, LayerNotFoundError, UnsupportedOpError
from cfcam_core.backend import SeveralLayers

LAYERS = ["last", "stem", None, "inner", "stem", 0, "x"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record how many outputs each run of a session has."""
    found: list[int] = []
    real = Session.__call__

    def call(self: Session, feeds: Any, **how: Any) -> Any:
        outputs = real(self, feeds, **how)
        found.append(len(outputs))
        return outputs

    monkeypatch.setattr(Session, "__call__", call)
    return found


def same(many: Sequence[Capture], alone: Sequence[Capture]) -> None:
    assert [each.layer for each in many] == [each.layer for each in alone]
    for one, other in zip(many, alone, strict=True):
        np.testing.assert_allclose(one.activations, other.activations, **CLOSE)
        np.testing.assert_allclose(one.gradients, other.gradients, **CLOSE)
        np.testing.assert_allclose(one.scores, other.scores, **CLOSE)
        np.testing.assert_array_equal(one.targets, other.targets)
        assert one.input_size == other.input_size


@pytest.mark.parametrize(
    "target", [None, 2, [0, 4, 1], lambda scores: scores.argmin(axis=1), lambda scores: -scores]
)
def test_each_is_what_it_is_alone(small: Any, target: Any) -> None:
    backend, x = opened(small()), images()
    alone = [backend.capture(x, layer=layer, target=target) for layer in LAYERS]
    same(backend.captures(x, layers=LAYERS, target=target), alone)
    assert backend.captures(x, layers=[]) == []


@pytest.mark.parametrize("fixed", [2, 4])
def test_models_of_a_fixed_batch(small: Any, fixed: int) -> None:
    backend, x = opened(small(fixed, 3, 12, 10)), images(5, 3, 12, 10)
    alone = [backend.capture(x, layer=layer) for layer in LAYERS]
    same(backend.captures(x, layers=LAYERS), alone)


def test_half_precision_and_an_input(small: Any) -> None:
    backend, x = opened(small(dtype=np.float16)), images()
    for one, name in zip(backend.captures(x, layers=["x", "stem"]), ["x", "stem"], strict=True):
        alone = backend.capture(x, layer=name)
        np.testing.assert_allclose(one.gradients, alone.gradients, rtol=1e-2, atol=1e-4)


def test_the_network_runs_once(small: Any, runs: list[int]) -> None:
    backend, x = opened(small()), images()
    runs.clear()
    together = cfcam.explain(backend, x, layer=["last", "stem", "last"])
    assert runs == [1 + 2 + 2]  # the logits, two layers, two gradients
    alone = [cfcam.explain(backend, x, layer=name) for name in ("last", "stem", "last")]
    wanted = cfcam.fusion.fuse(alone)
    np.testing.assert_allclose(together.maps, wanted.maps, rtol=1e-4, atol=1e-6)
    assert together.layer == wanted.layer == "last + stem + last"


def test_a_callable_target_costs_one_forward_run(small: Any, runs: list[int]) -> None:
    backend, x, asked = opened(small()), images(), []

    def target(scores: np.ndarray) -> np.ndarray:
        asked.append(scores)
        return scores.argmin(axis=1)

    runs.clear()
    backend.captures(x, layers=["last", "stem"], target=target)
    assert runs == [1, 1 + 2 + 2]
    assert len(asked) == 1


def test_the_program_is_checked_and_holds_every_node_once(small: Any) -> None:
    backend = opened(small())
    program = backend._sessions.program("gradient", "stem", "last")
    onnx.checker.check_model(program, full_check=True)
    made = [name for node in program.graph.node for name in node.output]
    assert len(made) == len(set(made))


def test_errors_are_those_of_the_layer_to_blame(net: Any) -> None:
    n = net("N", 3, 6, 6)
    first = n.conv(n.x, 3, 4, name="first")
    curved = n.add("QuickGelu", first, domain="com.microsoft", name="curved")
    n.conv(curved, 4, 4, name="second")
    backend = opened(n.model(n.head("second", 4)))
    x = images(2, 3, 6, 6)
    with pytest.raises(UnsupportedOpError) as alone:
        backend.capture(x, layer="first")
    with pytest.raises(UnsupportedOpError) as together:
        backend.captures(x, layers=["second", "first", "curved"])
    assert str(together.value) == str(alone.value)
    assert len(backend.captures(x, layers=["second", "curved"])) == 2
    with pytest.raises(LayerNotFoundError, match="no layer 'nowhere'"):
        backend.captures(x, layers=["second", "nowhere"])


def test_the_backend_says_that_it_can(small: Any) -> None:
    assert isinstance(opened(small()), SeveralLayers)
