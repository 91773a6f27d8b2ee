"""Logits behind a closing Softmax or Sigmoid, the output they are read from, targets among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
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


def log_written_out(n: Any, x: str, *, shifted: bool) -> str:
    if shifted:
        x = n.add("Sub", x, n.add("ReduceMax", x, axes=[1], keepdims=1))
    total = n.add("ReduceSum", n.add("Exp", x), np.array([1]), keepdims=1)
    return str(n.add("Sub", x, n.add("Log", total)))


def log_sum_exp(n: Any, x: str) -> str:
    return str(n.add("Sub", x, n.add("ReduceLogSumExp", x, axes=[1], keepdims=1)))


CLOSINGS = {
    "hard sigmoid": (lambda n, x: n.add("HardSigmoid", x), "HardSigmoid"),
    "log of softmax": (lambda n, x: n.add("Log", n.add("Softmax", x)), "LogSoftmax"),
    "exp of log softmax": (lambda n, x: n.add("Exp", n.add("LogSoftmax", x)), "Softmax"),
    "log, written out": (lambda n, x: log_written_out(n, x, shifted=False), "LogSoftmax"),
    "log, written out, shifted": (lambda n, x: log_written_out(n, x, shifted=True), "LogSoftmax"),
    "minus log-sum-exp": (log_sum_exp, "LogSoftmax"),
    "exp, minus log-sum-exp": (lambda n, x: n.add("Exp", log_sum_exp(n, x)), "Softmax"),
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


@pytest.mark.parametrize("closing", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_output_as_it_is(small: Any, closing: str) -> None:
    """The oracle is the chain rule over the logits' gradients."""
    x, plain = images(), opened(small())
    close = None if closing == "Sigmoid" else closing
    model = small(closing=close)
    if close is None:
        output = model.graph.output[0]
        model.graph.node.append(onnx.helper.make_node("Sigmoid", [output.name], ["squashed"]))
        output.name = "squashed"
    backend = opened(model, look_through=False)
    assert backend.logits_behind == ()
    z = plain.scores(x).astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    s = 1 / (1 + np.exp(-z))
    wanted, slopes = {
        "Softmax": (p, p[:, 1:2] * (np.eye(5)[1] - p)),
        "LogSoftmax": (np.log(p), np.eye(5)[1] - p),
        "Sigmoid": (s, np.eye(5)[1] * s * (1 - s)),
    }[closing]
    np.testing.assert_allclose(backend.scores(x), wanted, rtol=1e-5, atol=1e-6)
    parts = [
        plain.capture(x, target=k).gradients * slopes[:, k, None, None, None] for k in range(5)
    ]
    capture = backend.capture(x, target=1)
    np.testing.assert_allclose(capture.gradients, sum(parts), rtol=1e-4, atol=1e-7)


def rounded(n: Any, x: str, scale: float = 0.01) -> str:
    """Eight bits that hold numbers from -1.28 to 1.27, or as many times what the scale is."""
    how = np.float32(scale), np.int8(0)
    return str(n.add("DequantizeLinear", n.add("QuantizeLinear", x, *how), *how))


ROUNDED = {
    "rounded": (rounded, ("QuantizeLinear",)),
    "rounded, reshaped, rounded": (
        lambda n, x: rounded(n, n.add("Reshape", rounded(n, x), np.array([-1, 5])), 0.005),
        ("QuantizeLinear",),
    ),
    "rounded softmax of rounded": (
        lambda n, x: rounded(n, n.add("Softmax", rounded(n, x))),
        ("QuantizeLinear", "Softmax"),
    ),
    "softmax of rounded": (
        lambda n, x: n.add("Softmax", rounded(n, x)),
        ("Softmax", "QuantizeLinear"),
    ),
}


@pytest.mark.parametrize("closing", ROUNDED)
def test_logits_before_they_are_rounded(net: Any, closing: str) -> None:
    """The largest lie beyond what the integers hold: nothing would be left of their gradients."""
    close, behind = ROUNDED[closing]
    models = []
    for finish in (lambda _, x: x, close):
        n = net("N", 3, 8, 8)
        large = n.add("Mul", n.head(n.add("Tanh", n.conv(n.x, 3, 4)), 4), np.float32(8))
        models.append(n.model(finish(n, large)))
    plain, backend = map(opened, models)
    x = images(4, 3, 8, 8)
    assert plain.scores(x).max(axis=1).min() > 1.28
    assert backend.logits_behind == behind
    np.testing.assert_allclose(backend.scores(x), plain.scores(x), **CLOSE)
    np.testing.assert_allclose(backend.capture(x).gradients, plain.capture(x).gradients, **CLOSE)


def test_rounded_logits_as_they_are(net: Any) -> None:
    n = net("N", 3, 8, 8)
    logits = n.add("Mul", n.head(n.add("Tanh", n.conv(n.x, 3, 4)), 4), np.float32(8))
    x, plain = images(4, 3, 8, 8), opened(n.model(logits))
    backend = opened(n.model(rounded(n, logits)), look_through=False)
    assert backend.logits_behind == ()
    wanted = np.clip(plain.scores(x), -1.28, 1.27)
    np.testing.assert_allclose(backend.scores(x), wanted, atol=0.0051)
    assert not backend.capture(x).gradients.any()


def test_integers_that_were_computed_with_belong_to_the_logits(net: Any) -> None:
    n = net("N", 3, 8, 8)
    how = np.float32(0.01), np.int8(0)
    logits = n.head(n.conv(n.x, 3, 4), 4)
    cut = n.add("Clip", n.add("QuantizeLinear", logits, *how), np.int8(0), np.int8(99))
    for whole in (cut, n.add("Cast", logits, to=onnx.TensorProto.INT8)):
        assert opened(n.model(n.add("DequantizeLinear", whole, *how))).logits_behind == ()


def test_no_more_than_one_squashing_is_looked_through(net: Any) -> None:
    n = net("N", 3, 8, 8)
    sigmoid = n.add("Sigmoid", n.head(n.conv(n.x, 3, 4), 4))
    behind = ("Softmax", "QuantizeLinear")
    for logits, closing in ((sigmoid, behind[:1]), (rounded(n, sigmoid), behind)):
        backend = opened(n.model(n.add("Softmax", logits)))
        assert (backend._model.logits, backend.logits_behind) == (sigmoid, closing)


def test_other_differences_are_not_taken_for_a_log_softmax(net: Any) -> None:
    n = net("N", 3, 8, 8)
    hidden = n.conv(n.x, 3, 4)
    x, other = n.head(hidden, 4), n.head(hidden, 4)
    total = n.add("ReduceLogSumExp", other, axes=[1], keepdims=1)
    log_sigmoid, exp_softmax = n.add("Log", n.add("Sigmoid", x)), n.add("Exp", n.add("Softmax", x))
    for closing in (n.add("Sub", x, total), n.add("Exp", x), log_sigmoid, exp_softmax):
        assert opened(n.model(closing)).logits_behind == ()


def test_scores_in_a_zip_map(net: Any) -> None:
    """As cloud services export: a class name, and a list of dictionaries in place of scores."""
    n = net("N", 3, 8, 8)
    logits = n.head(n.add("Tanh", n.conv(n.x, 3, 4)), 4)
    best = n.add("ArgMax", logits, axis=1, keepdims=0)
    names = [f"class {k}" for k in range(5)]
    loss = n.add(
        "ZipMap",
        n.add("Softmax", logits),
        name="loss",
        domain="ai.onnx.ml",
        classlabels_strings=names,
    )
    model = n.model(best, loss)
    floats = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    named = onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, floats)
    model.graph.output[1].type.CopyFrom(onnx.helper.make_sequence_type_proto(named))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    before, x = model.SerializeToString(), images(2, 3, 8, 8)
    plain = opened(n.model(logits)).capture(x)
    for how in ({}, {"output": "loss"}):
        backend = opened(model, **how)
        assert backend.logits_behind == ("Softmax",)
        np.testing.assert_allclose(backend.scores(x), plain.scores, **CLOSE)
        np.testing.assert_allclose(backend.capture(x).gradients, plain.gradients, **CLOSE)
    assert model.SerializeToString() == before


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
    inside = n.model(n.add("Softmax", second), first)
    for name in (second, f"node_{second}", inside.graph.output[0].name):  # any tensor or node
        assert opened(inside, output=name)._model.logits == second
    with pytest.raises(InvalidInputError, match=f"no output 'logits'; it has {hidden}, {first}"):
        opened(model, output="logits")
    with pytest.raises(InvalidInputError, match=rf"closest tensors within are .*{hidden}"):
        opened(n.model(first), output=f"{hidden}_")
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
