"""Nothing is kept: no memory grows, models and inputs are let go."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import cfcam_torch
import pytest
import torch
from torch import nn
from torch_nets import UNITS, batch, chain

from cfcam_core import InvalidInputError, explain

# ---------------------------------------------------------------------------------------- memory


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def test_a_hundred_calls_keep_nothing() -> None:
    model, x = chain(2, UNITS["relu in place"]), batch()
    backend = cfcam_torch.open_model(model)

    def calls(count: int) -> None:
        for i in range(count):
            capture = backend.capture(
                x, layer=("inner", "stem", None, "input")[i % 4], target=i % 5
            )
            backend.scores_from(capture.activations, x, layer=capture.layer or "input")
            with pytest.raises(InvalidInputError):
                backend.capture(x, target=77)

    calls(8)
    before = tensors()
    tracemalloc.start()
    try:
        calls(4)
        gc.collect()
        start = tracemalloc.get_traced_memory()[0]
        calls(100)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert tensors() == before
    assert grown < 100 * 400, f"{grown} bytes in 100 calls"


def test_inputs_and_outputs_are_let_go() -> None:
    model, x = chain(), batch()
    backend = cfcam_torch.open_model(model)
    capture = backend.capture(x)
    watched = [weakref.ref(one) for one in (x, capture.activations.base)]
    del x, capture
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


def largest() -> int:
    gc.collect()
    real = [one for one in gc.get_objects() if type(one) in {torch.Tensor, nn.Parameter}]
    return max(one.untyped_storage().nbytes() for one in real if one.device.type == "cpu")


def test_the_first_batch_is_let_go() -> None:
    """What is remembered of the trial is one sample, not the batch that it is part of."""
    model, before = chain(), largest()
    x = torch.randn(2 + before // 400, 3, 12, 17)
    size = x.untyped_storage().nbytes()
    assert size > before
    backend = cfcam_torch.open_model(model)
    backend.capture(x)
    del x
    assert largest() < size
    assert backend.layers()


@pytest.mark.parametrize("how", ["open_model", "explain"])
def test_the_model_is_let_go(how: str) -> None:
    model, x = chain(), batch()
    weights = weakref.ref(model.stem.weight)
    watched = weakref.ref(model)
    if how == "explain":
        explain(model, x)
        explain(model, x, layer="inner")
    else:
        backend = cfcam_torch.open_model(model)
        backend.capture(x)
        backend.layers()
        del backend
    del model
    gc.collect()
    assert watched() is None
    assert weights() is None
