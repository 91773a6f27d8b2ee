"""A sample's picture and layer as functions, and the methods that ask them."""

import numpy as np
import pytest
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core.methods import METHODS
from cfcam_core.pictures import BATCH, Pictures
from cfcam_core.probe import Probe

ASKING = [name for name in cfcam.methods() if METHODS[name].asks_model]
HEADS = np.float32([[1, 0, 0], [0.5, -1, 2], [0, 1, -0.5]])
X = np.random.default_rng(0).normal(1, 1, (3, 1, 4, 6)).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")


def probe(model, x, sample, target=None):
    return Probe(Pictures.of(model, x, target=target), sample, "maps")


def combined(scores):
    return 2 * scores[:, 1] - scores[:, 2]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    ("target", "coefficients"),
    [(1, [[0, 1, 0]] * 3), ([2, 0, 1], np.eye(3)[[2, 0, 1]]), (combined, [[0, 2, -1]] * 3)],
    ids=["one class", "one class each", "a function"],
)
def test_what_a_probe_says(layout, target, coefficients):
    model = Toy(HEADS, shortcut=0.25, input_layout=layout)
    x = np.moveaxis(X, 1, -1) if layout == "channels_last" else X
    others = np.random.default_rng(1).normal(size=(5, 1, 4, 6)).astype(np.float32)
    maps = np.random.default_rng(2).normal(size=(5, 3, 4, 6)).astype(np.float32)
    plain = Toy(HEADS, shortcut=0.25)
    for n in range(3):
        one, c = probe(model, x, n, target), np.asarray(coefficients[n])
        near = {"rtol": 1e-4, "atol": 1e-4}
        np.testing.assert_array_equal(one.picture, X[n])
        np.testing.assert_allclose(one.value, plain.scores(X)[n] @ c, **near)
        np.testing.assert_allclose(one.of_pictures(others), plain.scores(others) @ c, **near)
        wanted = plain.scores_from(maps, np.repeat(X[n : n + 1], 5, axis=0)) @ c
        np.testing.assert_allclose(one.of_activations(maps), wanted, **near)
        own = plain.activations(X[n : n + 1])
        np.testing.assert_allclose(one.of_activations(own), [one.value], **near)
        capture = one.captures(others)
        np.testing.assert_array_equal(capture.activations, plain.activations(others))
        slopes = np.broadcast_to((c @ HEADS)[:, None, None], maps.shape)
        np.testing.assert_allclose(capture.gradients, slopes, **near)


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize("target", [None, [2, 0, 1], combined], ids=["best", "each", "function"])
def test_each_sample_asks_for_itself(method, target):
    model = Toy(HEADS, shortcut=0.25)
    batch = cfcam.explain(model, X, method=method, target=target)
    assert len({m.tobytes() for m in batch.maps}) == 3
    for n in range(3):
        own = [target[n]] if isinstance(target, list) else target
        one = cfcam.explain(model, X[n : n + 1], method=method, target=own)
        np.testing.assert_allclose(one.maps[0], batch.maps[n], rtol=1e-5)
        assert one.targets[0] == batch.targets[n]


@pytest.mark.parametrize("method", ASKING)
def test_several_layers(method):
    class Two(Toy):
        def capture(self, inputs, *, layer=None, target=None):
            found = super().capture(inputs, layer="maps", target=target)
            part = slice(2) if layer == "fewer" else slice(None)
            maps = found.activations[:, part], found.gradients[:, part]
            return cfcam.Capture(*maps, found.scores, found.targets, layer or "", (4, 6))

        def scores_from(self, activations, inputs, *, layer=None):
            if layer == "fewer":
                rest = self.activations(inputs)[:, 2:]
                activations = np.concatenate([activations, rest], axis=1)
            return super().scores_from(activations, inputs)

    fused = cfcam.explain(Two(HEADS), X, method=method, layer=["maps", "fewer"])
    alone = [cfcam.explain(Two(HEADS), X, method=method, layer=name) for name in ("maps", "fewer")]
    assert fused.layer == "maps + fewer"
    np.testing.assert_array_equal(fused.weights, np.concatenate([e.weights for e in alone], axis=1))
    shares = [e.maps / np.abs(e.maps).max(axis=(1, 2), keepdims=True) for e in alone]
    np.testing.assert_allclose(fused.maps, np.mean(shares, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ASKING)
def test_never_more_than_a_batch_at_a_time(method):
    channels = 2 * BATCH + 3
    features = tuple(lambda x, k=k: np.sin(x * k) for k in range(1, channels + 1))
    heads = np.random.default_rng(0).normal(0, 0.01, (2, channels)).astype(np.float32)
    model = Toy(heads, features)
    e = cfcam.explain(model, X[:1], method=method)
    assert max(model.asked) <= BATCH
    if method != "smooth-grad-cam++":
        assert sum(model.asked) >= channels
        assert (e.weights != 0).all()


def test_a_probe_asks_in_batches():
    model = Toy(HEADS)
    one, pictures = probe(model, X, 0), np.repeat(X[:1], 2 * BATCH + 3, axis=0)
    maps = model.activations(pictures)
    assert one.of_pictures(pictures).shape == one.of_activations(maps).shape == (2 * BATCH + 3,)
    assert model.asked == [3, BATCH, BATCH, 3, BATCH, BATCH, 3]


def test_dead_channels_are_not_asked_for():
    model = Toy(np.ones((2, 5), np.float32), (lambda x: x, *[lambda x: 0 * x] * 4))
    cfcam.explain(model, X[:1], method="ablation-cam")
    assert model.asked == [1, 1, 1, 1]  # the capture, the pictures, the value, one channel


@pytest.mark.parametrize("method", ASKING)
def test_arrays_cannot_be_asked(method):
    arrays = np.ones((2, 3, 4))
    with pytest.raises(cfcam.InvalidInputError, match=r"use explain with a model, or .* grad-cam,"):
        cfcam.explain_arrays(arrays, arrays, method=method)


@pytest.mark.parametrize("method", ASKING)
def test_outputs_that_are_no_logits(method):
    class Segments(Toy):
        def capture(self, inputs, *, layer=None, target=None):
            found = super().capture(inputs, layer=layer)
            return cfcam.Capture(found.activations, found.gradients)

    with pytest.raises(
        cfcam.InvalidInputError, match="another form; use a method that does not ask: "
    ):
        cfcam.explain(Segments(HEADS), X, method=method, target=lambda out: out.sum())


def test_a_layer_without_the_axes_of_the_picture():
    class Row(Toy):
        def capture(self, inputs, *, layer=None, target=None):
            found = super().capture(inputs, layer=layer, target=target)
            flat = [a.reshape(len(a), 3, -1) for a in (found.activations, found.gradients)]
            return cfcam.Capture(*flat, found.scores, found.targets, "row")

    with pytest.raises(cfcam.InvalidInputError, match="'row' has 1 spatial axes and the input 2"):
        cfcam.explain(Row(HEADS), X, method="score-cam")


def test_a_backend_that_does_not_say_where_channels_are():
    class Last(Toy):
        def capture(self, inputs, *, layer=None, target=None):
            self.input_layout = "channels_last"
            found = super().capture(inputs, layer=layer, target=target)
            self.input_layout = "channels_first"
            return found

    with pytest.raises(cfcam.InvalidInputError, match=r"size \(4, 6\), but .* input_layout"):
        cfcam.explain(Last(HEADS), np.moveaxis(X, 1, -1), method="score-cam")


def test_methods_that_do_not_ask_run_the_model_once():
    for method in set(cfcam.methods()) - set(ASKING):
        model = Toy(HEADS)
        cfcam.explain(model, X, method=method)
        assert model.asked == [3]
