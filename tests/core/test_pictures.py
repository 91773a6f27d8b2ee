"""A model as a function of pictures: layouts, forms of inputs, probabilities."""

from dataclasses import replace

import numpy as np
import pytest
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core.errors import LayerNotFoundError
from cfcam_core.evaluation import deletion
from cfcam_core.pictures import Pictures

HEADS = np.float32([[1, 0, 0], [0.5, -1, 2], [0, 1, -0.5]])
X = np.random.default_rng(0).uniform(0, 1, (3, 1, 4, 6)).astype(np.float32)


class Silent(Toy):
    """Takes channels last, and says so by its layer ``input`` alone."""

    input_layout = None
    sees_input = True

    def activations(self, inputs):
        x = np.asarray(inputs, np.float32)[..., 0]
        return np.stack([feature(x) for feature in self.features], axis=1).astype(np.float32)

    def capture(self, inputs, *, layer=None, target=None):
        if layer != "input":
            found = super().capture(inputs, layer=layer, target=target)
            return replace(found, input_size=np.shape(inputs)[1:-1])
        if not self.sees_input:
            raise LayerNotFoundError("there is no layer 'input'")
        x = np.moveaxis(np.asarray(inputs, np.float32), -1, 1)
        return cfcam.Capture(x, np.zeros_like(x))


@pytest.mark.parametrize("method", ["score-cam", "ablation-cam", "smooth-grad-cam++"])
def test_a_backend_without_a_layout_is_asked_for_its_input(method):
    wanted = cfcam.explain(Toy(HEADS), X, method=method, target=1)
    found = cfcam.explain(
        Silent(HEADS, input_layout=None), np.moveaxis(X, 1, -1), method=method, target=1
    )
    np.testing.assert_allclose(found.maps, wanted.maps, rtol=1e-5)


def test_a_square_as_wide_as_its_channels_is_not_taken_for_another_layout():
    x = np.random.default_rng(1).uniform(0, 1, (2, 3, 3, 3)).astype(np.float32)
    model = Silent(HEADS, input_layout=None)
    np.testing.assert_array_equal(Pictures.of(model, x).arrays, np.moveaxis(x, -1, 1))


def test_a_backend_that_tells_neither_layout_nor_input_is_refused():
    model = Silent(HEADS, input_layout=None)
    model.sees_input = False
    x = np.moveaxis(X, 1, -1)
    with pytest.raises(cfcam.InvalidInputError, match="the attribute input_layout, channels_first"):
        deletion(model, x, X[:, 0])


@pytest.mark.parametrize("given", [lambda x: (x,), lambda x: [x], lambda x: [*x]], ids=range(3))
def test_one_input_in_a_tuple_or_list_and_samples_in_a_list(given):
    class Takes(Toy):
        """Reads what some frameworks take: a list of one input, or of samples."""

        def scores(self, inputs):
            return super().scores(inputs[0] if len(inputs) == 1 else np.stack(inputs))

    np.testing.assert_array_equal(Pictures.of(Takes(HEADS), given(X)).arrays, X)


def test_several_inputs_are_refused_whatever_holds_them():
    model = Toy(HEADS)
    model.input_names = ("left", "right")
    for inputs in ({"left": X, "right": X}, (X, X), [X, X]):
        with pytest.raises(cfcam.InvalidInputError, match=r"gets 2 inputs \(left, right\)"):
            Pictures.of(model, inputs)


def test_inputs_that_are_no_batch_of_pictures_are_refused():
    class Signals(Toy):
        """Takes (N, T) without an axis of channels."""

        input_shape = (None, 1, None)

        def scores(self, inputs):
            return np.zeros((len(inputs), 2), np.float32)

    with pytest.raises(cfcam.InvalidInputError, match="a batch with channels"):
        Pictures.of(Signals(HEADS), np.ones((5, 8), np.float32))


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        (("Sigmoid",), "sigmoid"),
        (("sigmoid",), "sigmoid"),
        (("log_sigmoid",), "sigmoid"),
        (("HardSigmoid",), "sigmoid"),
        (("softmax",), "softmax"),
        ((), "softmax"),
    ],
)
def test_sigmoids_by_any_name(behind, expected):
    model = Toy(HEADS / 100)
    model.logits_behind = behind
    pictures = Pictures.of(model, X)
    logits = pictures.scores.astype(float)
    powers = np.exp(logits)
    wanted = 1 / (1 + 1 / powers) if expected == "sigmoid" else powers / powers.sum(1)[:, None]
    np.testing.assert_allclose(pictures.probabilities(pictures.scores), wanted, rtol=1e-6)


def test_what_is_a_probability_already_stays_one():
    class Closed(Toy):
        def scores(self, inputs):
            powers = np.exp(super().scores(inputs))
            return powers / powers.sum(axis=1, keepdims=True)

    pictures = Pictures.of(Closed(HEADS / 100), X)
    np.testing.assert_allclose(pictures.probabilities(pictures.scores), pictures.scores)
