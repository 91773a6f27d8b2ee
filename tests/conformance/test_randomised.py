"""What a backend does that can put a model's weights in random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conformance_nets import Framework

import cfcam_core as cfcam
from cfcam_core.backend import Randomisable
from cfcam_core.evaluation import parameter_randomisation

KERNELS = 4
"""Stem, inner, last and dense."""


@pytest.fixture
def opened(made: Framework, backend: cfcam.Backend, x: Any) -> Any:
    """Return the backend; where it cannot, see that it says so, and leave it at that."""
    if made.randomises:
        assert isinstance(backend, Randomisable)
        assert len(backend.weight_names()) == KERNELS
        return backend
    with pytest.raises(cfcam.InvalidInputError, match="randomised="):
        parameter_randomisation(backend, x)
    return None


@pytest.fixture(scope="session")
def mix() -> Callable[..., Any]:
    """Return what mixes a model's weights, once for each depth."""
    found: dict[Any, tuple[Any, Any]] = {}

    def mixed(opened: Any, last: int | None = None) -> Any:
        key = id(opened), last
        if key not in found:
            found[key] = opened, opened.randomised(3, last=last)  # the id stays its own
        return found[key][1]

    return mixed


def shown(backend: cfcam.Backend, x: Any, layer: str) -> np.ndarray:
    return backend.capture(x, layer=layer, target=0).activations


def test_the_last_weight_alone_changes_the_scores_and_nothing_before(opened, mix, x):
    if opened is None:
        return
    mixed = mix(opened, 1)
    for layer in ("stem", "inner", "last"):
        np.testing.assert_array_equal(shown(mixed, x, layer), shown(opened, x, layer))
    assert np.abs(mixed.scores(x) - opened.scores(x)).max() > 1e-3


@pytest.mark.parametrize(
    ("last", "changed"), [(2, {"last"}), (3, {"last", "inner"}), (4, {"last", "inner", "stem"})]
)
def test_weights_are_reached_from_the_output_down(opened, mix, x, last, changed):
    if opened is None:
        return
    mixed = mix(opened, last)
    layers = ("stem", "inner", "last")
    same = [np.array_equal(shown(mixed, x, one), shown(opened, x, one)) for one in layers]
    assert {one for one, is_same in zip(layers, same, strict=True) if not is_same} == changed


def test_the_values_stay_and_only_their_places_change(opened, mix, x):
    """Behind the layer is a mean, so its gradients are the last matrix, up to a factor."""
    if opened is None:
        return

    def matrix(backend: Any) -> np.ndarray:
        found = [backend.capture(x[:1], layer="last", target=k).gradients for k in range(4)]
        return np.stack(found)[:, 0].reshape(4, found[0].shape[1], -1)[..., 0]

    own, mixed = matrix(opened), matrix(mix(opened, 1))
    np.testing.assert_allclose(np.sort(mixed, axis=None), np.sort(own, axis=None), rtol=1e-5)
    assert not np.allclose(mixed, own)
    assert not np.allclose(np.sort(mixed, axis=1), np.sort(own, axis=1))  # not class by class


def test_the_seed_says_everything_and_the_depth_changes_no_order(opened, mix, x):
    if opened is None:
        return
    scores = mix(opened).scores(x)
    np.testing.assert_array_equal(opened.randomised(3).scores(x), scores)
    np.testing.assert_array_equal(mix(opened, KERNELS).scores(x), scores)
    assert np.abs(opened.randomised(4).scores(x) - scores).max() > 1e-3
    again = mix(opened).randomised(3, last=1)  # a mixed model can be mixed, too
    assert np.abs(again.scores(x) - scores).max() > 1e-3


def test_the_model_itself_is_left_as_it_is(opened, mix, model, x):
    if opened is None:
        return
    before = opened.scores(x)
    mixed = mix(opened)
    mixed.capture(x)
    np.testing.assert_array_equal(opened.scores(x), before)
    np.testing.assert_array_equal(cfcam.open_model(model).scores(x), before)
    assert [one.name for one in mixed.layers()] == [one.name for one in opened.layers()]


@pytest.mark.parametrize("last", [0, -1, KERNELS + 1])
def test_depths_that_there_are_not_are_refused(opened, last):
    if opened is None:
        return
    with pytest.raises(cfcam.InvalidInputError, match=f"allowed are 1 to {KERNELS}"):
        opened.randomised(0, last=last)


def test_a_soft_max_is_looked_through_again(made, net, x):
    if not made.randomises:
        return
    backend = cfcam.open_model(made.build(net, softmax=True))
    backend.scores(x)
    np.testing.assert_allclose(
        backend.randomised(3).scores(x),
        cfcam.open_model(made.build(net, softmax=False)).randomised(3).scores(x),
        atol=1e-5,
    )


def test_every_depth_is_compared(opened, x):
    if opened is None:
        return
    found = parameter_randomisation(opened, x, method="hires-cam", depths="cascading")
    assert found.depths == (1, 2, 3, 4)
    assert found.weights == tuple(reversed(opened.weight_names()))
    assert found.similarities.shape == (4, len(x))
    assert found.mean[-1] < 0.99
    own = cfcam.explain(opened, x)
    np.testing.assert_array_equal(found.targets, own.targets)
