"""Logits behind a closing Softmax or Sigmoid, the output they are read from, targets among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from whole_models import CLOSE, images, opened

from cfcam_core import InvalidInputError


@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("closing", ["Softmax", "LogSoftmax"])
def test_logits_behind_a_closing_softmax(small: Any, closing: str, opset: int) -> None:
    x, plain = images(), opened(small()).capture
    backend = opened(small(closing=closing, opset=opset, ir=3 if opset < 9 else 8))
    assert backend.logits_behind == (closing,)
    assert opened(small()).logits_behind == ()
    np.testing.assert_allclose(backend.capture(x).gradients, plain(x).gradients, **CLOSE)
    np.testing.assert_allclose(backend.scores(x), plain(x).scores, rtol=1e-5, atol=1e-6)


def written_out(n: Any, x: str, *, shifted: bool) -> str:
    if shifted:
        x = n.add("Sub", x, n.add("ReduceMax", x, axes=[1], keepdims=1))
    e = n.add("Exp", x)
    return n.add("Div", e, n.add("ReduceSum", e, np.array([1]), keepdims=1))


CLOSINGS = {
    "sigmoid": (lambda n, x: n.add("Sigmoid", x), "Sigmoid"),
    "sigmoid, cast": (lambda n, x: n.add("Cast", n.add("Sigmoid", x), to=1), "Sigmoid"),
    "softmax, reshape": (
        lambda n, x: n.add("Reshape", n.add("Softmax", x), np.array([-1, 5])),
        "Softmax",
    ),
    "softmax, identity, dropout": (
        lambda n, x: n.add("Dropout", n.add("Identity", n.add("Softmax", x))),
        "Softmax",
    ),
    "4-D softmax": (
        lambda n, x: n.add("Softmax", n.add("Unsqueeze", x, np.array([2, 3])), axis=1),
        "Softmax",
    ),
    "4-D softmax, flatten": (
        lambda n, x: n.add(
            "Flatten", n.add("Softmax", n.add("Unsqueeze", x, np.array([2, 3])), axis=1)
        ),
        "Softmax",
    ),
    "written out": (lambda n, x: written_out(n, x, shifted=False), "Softmax"),
    "written out, shifted": (lambda n, x: written_out(n, x, shifted=True), "Softmax"),
}


@pytest.mark.parametrize("closing", CLOSINGS)
def test_logits_behind_other_closings(net: Any, closing: str) -> None:
    close, behind = CLOSINGS[closing]
    models = []
    for finish in (lambda _, x: x, close):
        n = net("N", 3, 8, 8)
        models.append(n.model(finish(n, n.head(n.add("Tanh", n.conv(n.x, 3, 4)), 4))))
    plain, backend = map(opened, models)
    x = images(2, 3, 8, 8)
    assert backend.logits_behind == (behind,)
    assert backend.classes == 5
    np.testing.assert_allclose(backend.scores(x), plain.scores(x), **CLOSE)
    np.testing.assert_allclose(backend.capture(x).gradients, plain.capture(x).gradients, **CLOSE)


def test_a_gate_is_not_taken_for_a_closing_sigmoid(net: Any) -> None:
    n = net("N", 3, 8, 8)
    logits = n.head(n.conv(n.x, 3, 4), 4)
    swish = n.add("Mul", logits, n.add("Sigmoid", logits))
    assert opened(n.model(swish)).logits_behind == ()


def test_other_quotients_are_not_taken_for_a_softmax(net: Any) -> None:
    n = net("N", 3, 8, 8)
    one, other = (n.add("Exp", n.head(n.conv(n.x, 3, 4), 4)) for _ in range(2))
    quotient = n.add("Div", one, n.add("ReduceSum", other, np.array([1]), keepdims=1))
    assert opened(n.model(quotient)).logits_behind == ()


def test_a_shift_by_something_else_belongs_to_the_logits(net: Any) -> None:
    n = net("N", 3, 8, 8)
    hidden = n.conv(n.x, 3, 4)
    x, other = n.head(hidden, 4), n.head(hidden, 4)
    shifted = n.add("Sub", x, n.add("ReduceMax", other, axes=[1], keepdims=1))
    backend = opened(n.model(written_out(n, shifted, shifted=False)))
    assert backend.logits_behind == ("Softmax",)
    assert backend._model.logits == shifted


def test_the_output_can_be_chosen(net: Any) -> None:
    n = net("N", 3, 8, 8)
    hidden = n.conv(n.x, 3, 4)
    first, second = n.head(hidden, 4), n.head(hidden, 4, classes=7)
    model = n.model(hidden, first, second)
    assert opened(model).classes == 5
    assert opened(model, output=second).classes == 7
    with pytest.raises(InvalidInputError, match=f"no output 'logits'; it has {hidden}, {first}"):
        opened(model, output="logits")
    with pytest.raises(InvalidInputError, match="not a classifier"):
        opened(model, output=hidden)


# ------------------------------------------------------------------------------------------ targets


def test_targets(small: Any) -> None:
    backend, x = opened(small()), images()
    top = backend.capture(x)
    np.testing.assert_array_equal(top.targets, backend.scores(x).argmax(axis=1))
    for target in (top.targets, list(top.targets), lambda scores: scores.argmax(axis=1)):
        same = backend.capture(x, target=target)
        np.testing.assert_array_equal(same.gradients, top.gradients)
        np.testing.assert_array_equal(same.targets, top.targets)
    one, two = (backend.capture(x, target=k).gradients for k in (1, 2))
    both = backend.capture(x, target=lambda s: np.tile([0, 1.0, -2.0, 0, 0], (len(s), 1)))
    np.testing.assert_allclose(both.gradients, one - 2 * two, rtol=1e-4, atol=1e-7)
    assert both.targets.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("target", [5, -1, [0, 1], "dog", 1.5])
def test_a_target_that_is_not_a_class(small: Any, target: Any) -> None:
    with pytest.raises(InvalidInputError, match="target"):
        opened(small()).capture(images(), target=target)
