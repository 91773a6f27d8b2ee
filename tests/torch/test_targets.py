"""What `target=` takes; activations that are put in; results that repeat."""

from __future__ import annotations

from typing import Any

import cfcam_torch
import numpy as np
import pytest
import torch
from torch import nn
from torch_nets import Apply, agree, batch, by_halves, chain, mean, same

from cfcam_core import CfcamError, InvalidInputError, explain

# --------------------------------------------------------------------------------------- targets


def test_targets_in_every_form() -> None:
    model, x = chain(2, nn.Tanh), batch(samples=3)
    backend = cfcam_torch.open_model(model)
    twos = by_halves(model, "inner", x, [2, 2, 2])
    for target in (2, np.int64(2), [2], [2, 2, 2], np.array([2, 2, 2]), torch.tensor(2), (2, 2, 2)):
        agree(backend.capture(x, layer="inner", target=target), twos)
    agree(backend.capture(x, layer="inner", target=torch.tensor([2, 2, 2])), twos)
    agree(backend.capture(x, layer="inner", target=lambda scores: [2, 2, 2]), twos)
    agree(backend.capture(x, layer="inner"), by_halves(model, "inner", x))


def test_a_callable_target_sees_numpy_scores_of_a_classifier() -> None:
    model, x = chain(2, nn.Tanh), batch()
    backend, seen = cfcam_torch.open_model(model), []

    def difference(scores: Any) -> Any:
        seen.append(scores)
        coefficients = np.zeros_like(scores)
        coefficients[:, 1], coefficients[:, 4] = 1, -1
        return coefficients

    capture = backend.capture(x, layer="inner", target=difference)
    one, other = (by_halves(model, "inner", x, [k, k]).gradients for k in (1, 4))
    np.testing.assert_allclose(capture.gradients, one - other, rtol=1e-4, atol=1e-7)
    assert capture.targets.tolist() == [-1, -1]
    assert len(seen) == 1
    assert isinstance(seen[0], np.ndarray)
    backend.captures(x, layers=["inner", "stem"], target=difference)
    assert len(seen) == 2, "a callable is asked once"


@pytest.mark.parametrize("target", [5, -1, [0, 9], [0, 1, 2], "cat", 1.5, [[0]], [], object()])
def test_targets_that_do_not_fit(target: Any) -> None:
    backend = cfcam_torch.open_model(chain())
    with pytest.raises(InvalidInputError):
        backend.capture(batch(), target=target)
    with pytest.raises(CfcamError):
        explain(chain(), batch(), target=target)


def test_one_target_explains_all_of_a_batch() -> None:
    """Elsewhere the second map of such a batch is silently blank."""
    found = explain(chain(2, nn.Tanh), batch(samples=3), target=1, method="grad-cam", layer="inner")
    assert np.abs(found.maps).reshape(3, -1).max(1).all()


def test_activations_that_do_not_fit() -> None:
    backend, x = cfcam_torch.open_model(chain()), batch()
    activations = backend.capture(x, layer="inner").activations
    for wrong in (
        activations[:1],
        activations[:, :4],
        activations[..., None],
        activations * np.nan,
    ):
        with pytest.raises(InvalidInputError):
            backend.scores_from(wrong, x, layer="inner")


def test_the_same_module_as_model_and_layer() -> None:
    """A model of one layer: its own output is no map of another."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), Apply(mean)).eval()
    agree(cfcam_torch.open_model(model).capture(batch_at(0)), by_halves(model, "1", batch_at(0)))


def batch_at(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 12, 17, generator=torch.Generator().manual_seed(seed))


def test_results_repeat() -> None:
    backend, x = cfcam_torch.open_model(chain()), batch()
    same(backend.capture(x), backend.capture(x), tolerance=0)
