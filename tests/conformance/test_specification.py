"""What every backend must do, said once; ``pytest tests/conformance --backend NAME`` runs it.

What must come out stands in the golden file; `conftest.py` opens the model that is asked.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conformance_nets import LAYERS, Array, Framework, Net

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, LayerNotFoundError
from cfcam_core.backend import SeveralLayers
from cfcam_core.evaluation import deletion
from cfcam_core.methods import METHODS

TOLERANCE = 1e-5
"""Largest error, of the largest value: what float32 leaves of a net of this depth, tenfold."""
CF_CAM = 1e-3
"""The same for CF-CAM's map, which near zero is a square root."""

CLASSES = 4
MIXED = np.random.default_rng(0).standard_normal((3, CLASSES)).astype(np.float32)


def close(got: Any, wanted: Array, tolerance: float = TOLERANCE) -> None:
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def same(one: cfcam.Capture, other: cfcam.Capture, rows: Any = slice(None)) -> None:
    """Compare a capture with rows of another."""
    assert one.layer == other.layer
    assert one.input_size == other.input_size
    np.testing.assert_array_equal(one.targets, other.targets[rows])
    close(one.scores, other.scores[rows])
    close(one.activations, other.activations[rows])
    close(one.gradients, other.gradients[rows])


def names(backend: cfcam.Backend) -> list[str]:
    return [layer.name for layer in backend.layers()]


# ------------------------------------------------------------------------------ scores and captures


def test_scores(backend, net, x):
    close(backend.scores(x), net("scores"))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("target", range(CLASSES))
def test_capture(backend, net, x, layer, target):
    capture = backend.capture(x, layer=layer, target=target)
    assert isinstance(capture, cfcam.Capture)
    close(capture.scores, net("scores"))
    close(capture.activations, net(f"activations/{layer}"))
    close(capture.gradients, net(f"gradients/{layer}")[target])
    np.testing.assert_array_equal(capture.targets, [target] * len(net.x))
    assert capture.input_size == net.x.shape[2:]
    if layer != "input":  # a model may call it otherwise
        assert capture.layer == layer


@pytest.mark.parametrize("layer", LAYERS)
def test_scores_from(backend, net, x, layer):
    own = net(f"activations/{layer}")
    close(backend.scores_from(own, x, layer=layer), net("scores"))
    # each sample gets its neighbour's map; what goes past the layer stays its own
    neighbours = np.roll(own, 1, axis=0)
    close(backend.scores_from(neighbours, x, layer=layer), net(f"scores_from/{layer}"))
    default = np.roll(net("activations/last"), 1, axis=0)
    close(backend.scores_from(default, x), net("scores_from/last"))


def test_activations_that_do_not_fit_are_refused(backend, net, x):
    own = net("activations/last")
    for wrong in (own[:2], own[:, :-1], own[..., :-1], np.moveaxis(own, 1, -1), own * np.nan, "a"):
        with pytest.raises(InvalidInputError):
            backend.scores_from(wrong, x)


def test_several_layers_in_one_run(made, backend, x):
    assert isinstance(backend, SeveralLayers) == made.several_layers
    if not made.several_layers:
        return  # the core asks for one layer after the other: `test_explain_several_layers`
    layers = ["last", "input", "stem", None, 0, "inner", "stem"]
    found = backend.captures(x, layers=layers, target=[2, 0, 3])
    assert len(found) == len(layers)
    for one, layer in zip(found, layers, strict=True):
        same(one, backend.capture(x, layer=layer, target=[2, 0, 3]))
    assert not len(backend.captures(x, layers=[]))


# ------------------------------------------------------------------------------------------- layers


def test_layers_are_listed(backend, net):
    found = names(backend)
    assert [name for name in found if name in LAYERS] == ["stem", "block", "last"]
    assert len(set(found)) == len(found)
    for layer in backend.layers():
        assert isinstance(layer, cfcam.Layer)
        assert layer.kind
        assert len(layer.shape) == net.x.ndim
        assert layer.shape[0] is None


def test_one_layer_is_the_default(backend, x):
    assert [layer.name for layer in backend.layers() if layer.is_default] == ["last"]
    same(backend.capture(x), backend.capture(x, layer="last"))


def test_an_example_shows_the_layers(made, backend, model, x):
    how = {"example": x[:1]} if made.takes_example else {}
    assert list(cfcam.open_model(model, **how).layers()) == list(backend.layers())


@pytest.mark.parametrize("name", ["stem", "block", "last"])
def test_ways_to_name_a_layer(made, backend, model, x, name):
    wanted, at = backend.capture(x, layer=name), names(backend).index(name)
    from_the_end = at - len(backend.layers())
    listed, part = backend.layers()[at], made.part(model, name)
    for layer in (at, from_the_end, np.int64(at), listed, part):
        same(backend.capture(x, layer=layer), wanted)


def test_unknown_layers(backend, x):
    for unknown in (lambda name: backend.capture(x, layer=name), scores_from(backend, x)):
        with pytest.raises(LayerNotFoundError, match=r"no layer 'lastt'; .*\blast\b"):
            unknown("lastt")
        with pytest.raises(LayerNotFoundError, match="layer 99 is out of range"):
            unknown(99)
        with pytest.raises(LayerNotFoundError, match="out of range"):
            unknown(-99)
        with pytest.raises(LayerNotFoundError, match="float"):
            unknown(1.5)


def scores_from(backend: cfcam.Backend, x: Any) -> Any:
    activations = backend.capture(x).activations
    return lambda name: backend.scores_from(activations, x, layer=name)


# ------------------------------------------------------------------------------------------ targets

EACH = [2, 0, 3]
TARGETS = {
    "a NumPy int": (np.int64(1), [1, 1, 1]),
    "one in a list": ([1], [1, 1, 1]),
    "a list": (EACH, EACH),
    "a tuple": (tuple(EACH), EACH),
    "an array": (np.array(EACH), EACH),
    "unsigned": (np.array(EACH, np.uint8), EACH),
    "a callable giving an int": (lambda scores: 3, [3, 3, 3]),
    "a callable giving ints": (lambda scores: np.array(EACH), EACH),
    "a callable that reads": (lambda scores: scores.argmin(axis=1), "argmin"),
    "None": (None, "argmax"),
}


@pytest.mark.parametrize("form", TARGETS)
@pytest.mark.parametrize("layer", [None, "stem"])
def test_targets(backend, net, x, layer, form):
    target, wanted = TARGETS[form]
    if isinstance(wanted, str):
        wanted = getattr(net("scores"), wanted)(axis=1)
    capture = backend.capture(x, layer=layer, target=target)
    np.testing.assert_array_equal(capture.targets, wanted)
    close(capture.gradients, net.gradients(layer or "last", np.eye(CLASSES)[wanted]))


@pytest.mark.parametrize("layer", LAYERS)
def test_coefficients(backend, net, x, layer):
    seen = []
    capture = backend.capture(x, layer=layer, target=lambda scores: seen.append(scores) or MIXED)
    np.testing.assert_array_equal(capture.targets, [-1, -1, -1])
    close(capture.gradients, net.gradients(layer, MIXED))
    close(capture.scores, net("scores"))
    assert len(seen) == 1
    close(seen[0], net("scores"))


@pytest.mark.parametrize("layer", LAYERS)
def test_values(backend, net, x, layer):
    """A callable may return what to explain: its gradient is taken on every backend alike."""
    wanted = net.gradients(layer, np.eye(CLASSES)[[2, 2, 2]] - np.eye(CLASSES)[[0, 0, 0]])
    for target in (lambda s: s[:, 2] - s[:, 0], lambda s: (s[:, 2] - s[:, 0]).sum()):
        capture = backend.capture(x, layer=layer, target=target)
        np.testing.assert_array_equal(capture.targets, [-1, -1, -1])
        close(capture.gradients, wanted)


WRONG = {
    "too large": CLASSES,
    "negative": -1,
    "a float": 1.0,
    "a word": "cat",
    "a truth value": True,
    "too few": [0, 1],
    "too many": [0, 1, 2, 3],
    "one too large": [0, 1, CLASSES],
    "two axes": [[0, 1, 2]],
    "floats": [0.0, 1.0, 2.0],
    "a callable giving too few rows": lambda scores: scores[:2],
    "a callable giving NaN": lambda scores: scores * np.nan,
    "a callable giving words": lambda scores: ["cat"] * len(scores),
}


@pytest.mark.parametrize("form", WRONG)
def test_wrong_targets_are_refused(backend, x, form):
    with pytest.raises(InvalidInputError, match="target"):
        backend.capture(x, target=WRONG[form])


# ------------------------------------------------------------------------------------------- inputs


def test_a_batch_is_its_samples(backend, x):
    for layer in (*LAYERS, None):
        together = backend.capture(x, layer=layer, target=EACH)
        for n in range(3):
            alone = backend.capture(x[n : n + 1], layer=layer, target=EACH[n])
            same(alone, together, [n])


def test_one_sample_without_a_batch_axis(backend, x):
    for n in range(3):
        assert backend.scores(x[n]).shape == (1, CLASSES)
        same(backend.capture(x[n]), backend.capture(x[n : n + 1]))
        own = backend.capture(x[n]).activations
        close(backend.scores_from(own, x[n]), backend.scores(x[n : n + 1]))


def test_other_batches_than_the_first(backend, net, x):
    close(backend.scores(np.concatenate([x, x[:2]])), np.concatenate([net("scores")] * 2)[:5])


def test_kinds_of_arrays(made, backend, net, x):
    for array in (
        x.astype(np.float64),
        np.asfortranarray(x),
        made.tensor(np.ascontiguousarray(x)),
        x.tolist(),
    ):
        close(backend.scores(array), net("scores"))
    close(backend.capture(made.tensor(np.array(x))).gradients, backend.capture(x).gradients)


def test_whole_numbers(backend, x):
    whole = np.round(np.abs(x) * 40).astype(np.uint8)
    close(backend.scores(whole), backend.scores(whole.astype(np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(made, backend, x, bad):
    spoilt = np.array(x)
    spoilt.flat[7] = bad
    for inputs in (spoilt, made.tensor(spoilt)):
        for ask in (backend.scores, backend.capture, lambda i: backend.scores_from(x, i, layer=0)):
            with pytest.raises(InvalidInputError):
                ask(inputs)


def test_inputs_that_do_not_fit_are_refused(made, backend, net, x):
    fewer = made.turned(np.concatenate([net.x, net.x], axis=1))
    for wrong in (fewer, x[None], x[0, 0], x[:0], x.astype(str), x + 1j, None, "a"):
        with pytest.raises(InvalidInputError):
            backend.capture(wrong)


def test_nothing_is_written_to(made, net, backend, x):
    own, tensor = x.copy(), made.tensor(np.array(x))
    activations = backend.capture(x).activations.copy()
    kept = activations.copy()
    for layer in LAYERS:
        backend.capture(own, layer=layer)
        backend.capture(tensor, layer=layer)
    backend.scores_from(activations, own)
    np.testing.assert_array_equal(own, x)
    np.testing.assert_array_equal(np.asarray(tensor), x)
    np.testing.assert_array_equal(activations, kept)


# ------------------------------------------------------------------------------------- from outside


@pytest.mark.parametrize("layer", LAYERS)
def test_explain(model, net, x, layer):
    made = cfcam.explain(model, x, layer=layer, method="grad-cam")
    close(made.heatmaps, net(f"heatmaps/{layer}"))
    np.testing.assert_array_equal(made.targets, net("scores").argmax(axis=1))
    close(made.scores, net("scores"))


def test_explain_by_cf_cam(model, net, x):
    best = np.eye(CLASSES)[net("scores").argmax(axis=1)]
    for layer in (None, "stem", "block"):
        name = layer or "last"
        arrays = net(f"activations/{name}"), net.gradients(name, best)
        wanted = cfcam.explain_arrays(*arrays, size=net.x.shape[2:], spatial_dims=net.axes)
        found = cfcam.explain(model, x, layer=layer)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        close(found.weights, wanted.weights)
        close(found.heatmaps, wanted.heatmaps, CF_CAM)


def test_explain_several_layers(model, backend, x):
    fused = cfcam.explain(model, x, layer=["last", "stem"], method="hires-cam")
    alone = [cfcam.explain(backend, x, layer=n, method="hires-cam") for n in ("last", "stem")]
    close(fused.maps, cfcam.fusion.fuse(alone).maps)
    assert fused.layer == "last + stem"


class Turned(cfcam.Backend):
    """A backend, its inputs turned: channels come first, whatever the framework takes."""

    input_layout = "channels_first"

    def __init__(self, backend: cfcam.Backend, made: Framework) -> None:
        self.own, self.turned = backend, made.turned

    def layers(self) -> Any:
        return self.own.layers()

    def scores(self, inputs: Any) -> Any:
        return self.own.scores(self.turned(inputs))

    def scores_from(self, activations: Any, inputs: Any, *, layer: Any = None) -> Any:
        return self.own.scores_from(activations, self.turned(inputs), layer=layer)

    def capture(self, inputs: Any, *, layer: Any = None, target: Any = None) -> cfcam.Capture:
        return self.own.capture(self.turned(inputs), layer=layer, target=target)


@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if m.asks_model])
def test_explain_by_methods_that_ask(made, backend, net, x, method):
    """They know where the channels are: masks and noise lie on the same pixels in any layout."""
    found = cfcam.explain(backend, x, method=method)
    wanted = cfcam.explain(Turned(backend, made), net.x, method=method)
    close(found.weights, wanted.weights, 1e-3)
    close(found.maps, wanted.maps, 1e-3)


def test_measures_that_ask(made, backend, net, x):
    maps = net("heatmaps/last")
    found = deletion(backend, x, maps, steps=5)
    wanted = deletion(Turned(backend, made), net.x, maps, steps=5)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)


def test_threads(model, backend, x):
    """Eight threads on a model just opened find what one finds alone."""
    jobs = [(layer, target) for layer in (*LAYERS, None) for target in (*range(CLASSES), None)]
    wanted = [backend.capture(x, layer=layer, target=target) for layer, target in jobs]
    shared = cfcam.open_model(model)

    def work(job: tuple[Any, Any]) -> cfcam.Capture:
        return shared.capture(x, layer=job[0], target=job[1])

    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(pool.map(work, jobs), wanted, strict=True):
            same(one, other)


def test_calls_leave_no_trace(backend, x):
    before, first = backend.scores(x), backend.capture(x, layer="stem")
    backend.scores_from(backend.capture(x).activations * 0, x)
    with pytest.raises(InvalidInputError, match=r"the target fails on .* ZeroDivisionError"):
        backend.capture(x, layer="stem", target=lambda scores: 1 / 0)
    np.testing.assert_array_equal(backend.scores(x), before)
    same(backend.capture(x, layer="stem"), first)


# ----------------------------------------------------------------------------------------- soft-max


def test_a_closing_soft_max(made, net, x):
    backend = cfcam.open_model(made.build(net, softmax=True))
    if not made.looks_through:
        check_probabilities(backend, net, x)
        return
    assert list(backend.logits_behind)
    close(backend.scores(x), net("scores"))
    for layer in LAYERS:
        capture = backend.capture(x, layer=layer, target=EACH)
        close(capture.scores, net("scores"))
        close(capture.gradients, net.gradients(layer, np.eye(CLASSES)[EACH]))
        neighbours = np.roll(net(f"activations/{layer}"), 1, axis=0)
        close(backend.scores_from(neighbours, x, layer=layer), net(f"scores_from/{layer}"))


def test_a_closing_soft_max_that_is_asked_for(made, net, x):
    how = {"look_through": False} if made.looks_through else {}
    check_probabilities(cfcam.open_model(made.build(net, softmax=True), **how), net, x)


def check_probabilities(backend: cfcam.Backend, net: Net, x: Any) -> None:
    powers = np.exp(net("scores").astype(np.float64))
    p = powers / powers.sum(axis=1, keepdims=True)
    close(backend.scores(x), p)
    for layer in LAYERS:
        coefficients = p[:, 1:2] * (np.eye(CLASSES)[1] - p)
        capture = backend.capture(x, layer=layer, target=1)
        close(capture.gradients, net.gradients(layer, coefficients))
