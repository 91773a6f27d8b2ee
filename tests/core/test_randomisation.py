import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.backend import Randomisable
from cfcam_core.cam import Cam
from cfcam_core.demo.shipped import MODEL, load_scenes
from cfcam_core.evaluation import parameter_randomisation
from cfcam_core.shuffling import is_weight, shuffles
from cfcam_core.targets import resolve_targets


class Plain:
    """A linear model of pictures (N, 1, 2, 2): one matrix (K, 4) and a layer that is the input."""

    def __init__(self, matrix):
        self.matrix = np.float32(matrix)

    def layers(self):
        return [cfcam.Layer("maps", (None, 1, 2, 2), "Conv", is_default=True)]

    def scores(self, inputs):
        return np.float32(inputs).reshape(len(inputs), 4) @ self.matrix.T

    def capture(self, inputs, *, layer=None, target=None):
        scores = self.scores(inputs)
        targets, cotangents = resolve_targets(target, scores)
        slopes = (cotangents @ self.matrix).reshape(-1, 1, 2, 2)
        return cfcam.Capture(np.float32(inputs), slopes, scores, targets, "maps")

    def scores_from(self, activations, inputs, *, layer=None):
        return self.scores(activations)


class Mixable(Plain):
    """The same; `mixed` are the matrices that it takes in turn, from the output down."""

    def __init__(self, matrix, *mixed):
        super().__init__(matrix)
        self.mixed = mixed
        self.asked = []

    def weight_names(self):
        return [f"w{n}" for n in range(len(self.mixed))]

    def randomised(self, seed, *, last=None):
        self.asked.append((seed, last))
        return Plain(self.mixed[(last or len(self.mixed)) - 1])


ONES = np.ones((2, 1, 2, 2))
UP, DOWN, FLAT = [[1, 2, 3, 4], [0] * 4], [[4, 3, 2, 1], [0] * 4], [[1] * 4, [0] * 4]


@pytest.fixture
def edges():
    """Register a method that shows the picture and knows nothing of the model."""
    cfcam.register_method("edges", lambda A, G, settings: Cam(A.mean(axis=0), np.ones(len(A))))
    yield "edges"
    del sys.modules["cfcam_core.methods"]._TABLE["edges"]


@pytest.mark.parametrize("similarity", ["spearman", "pearson", "kendall"])
def test_equal_opposite_and_flat_maps_by_hand(similarity):
    model = Mixable(UP, UP, DOWN, FLAT)
    found = parameter_randomisation(
        model, ONES, method="hires-cam", depths="cascading", seed=7, similarity=similarity
    )
    np.testing.assert_allclose(found.similarities, [[1, 1], [-1, -1], [np.nan, np.nan]])
    assert found.depths == (1, 2, 3)
    assert found.weights == ("w2", "w1", "w0")
    assert found.undefined.tolist() == [0, 0, 2]
    np.testing.assert_allclose(found.mean, [1, -1, np.nan])
    assert model.asked == [(7, 1), (7, 2), (7, 3)]


def test_the_class_stays_the_same_whatever_the_mixed_model_prefers():
    mixed = Plain([[4, 3, 2, 1], [9, 9, 9, 9]])
    found = parameter_randomisation(Plain(UP), ONES, method="hires-cam", randomised=[mixed])
    assert found.targets.tolist() == [0, 0]
    np.testing.assert_allclose(found.similarities, [[-1, -1]])


def test_a_function_of_the_scores_is_explained_of_both():
    def against(scores):
        return scores[:, 1] - scores[:, 0]

    models = [Plain([[0] * 4, row[0]]) for row in (UP, DOWN)]
    found = parameter_randomisation(
        models[0], ONES, method="hires-cam", target=against, randomised=models
    )
    assert found.targets.tolist() == [-1, -1]
    np.testing.assert_allclose(found.similarities, [[1, 1], [-1, -1]])


@pytest.mark.parametrize(
    ("depths", "asked"), [("all", [(0, 2)]), ((2, 1), [(0, 2), (0, 1)]), ([1], [(0, 1)])]
)
def test_depths(depths, asked):
    model = Mixable(UP, UP, DOWN)
    found = parameter_randomisation(model, ONES, method="hires-cam", depths=depths)
    assert model.asked == asked
    assert found.depths == tuple(last for _, last in asked)


def test_models_of_your_own():
    found = parameter_randomisation(
        Plain(UP), ONES, method="hires-cam", randomised=[Plain(DOWN), Plain(UP)]
    )
    np.testing.assert_allclose(found.similarities, [[-1, -1], [1, 1]])
    assert found.depths == (1, 2)
    assert found.weights == ("", "")
    assert not found.similarities.flags.writeable


def test_a_similarity_of_your_own():
    found = parameter_randomisation(
        Mixable(UP, DOWN), ONES, method="hires-cam", similarity=lambda a, b: abs(a - b).max()
    )
    np.testing.assert_allclose(found.similarities, 0.75)


def test_a_blank_map_of_the_model_itself_is_said_and_counted():
    with pytest.warns(cfcam.BlankMapWarning, match="flat"):
        found = parameter_randomisation(Mixable(FLAT, UP), ONES, method="hires-cam")
    assert found.undefined.tolist() == [2]
    assert np.isnan(found.mean).all()


@pytest.mark.parametrize("similarity", ["spearman", "ssim"])
def test_the_check_catches_what_ignores_the_model(edges, similarity):
    inputs = load_scenes().inputs()
    how = {"depths": "cascading", "similarity": similarity, "seed": 1}
    blind = parameter_randomisation(MODEL, inputs, method=edges, **how)
    assert len(blind.depths) > 2
    np.testing.assert_allclose(blind.mean[0], 1)  # behind the layer
    at_the_input = parameter_randomisation(MODEL, inputs, method=edges, layer="input", **how)
    np.testing.assert_allclose(at_the_input.similarities, 1)
    seeing = parameter_randomisation(MODEL, inputs, method="grad-cam", **how)
    assert seeing.mean.max() < 0.9


def test_another_seed_is_another_model_and_the_same_the_same():
    inputs = load_scenes().inputs()[:4]
    one, same, other = (
        parameter_randomisation(MODEL, inputs, seed=seed).similarities for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other, equal_nan=True)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Plain(UP), {}, r"a Plain cannot mix its weights; .* randomised="),
        (Plain(UP), {"randomised": []}, "one model or more"),
        (Plain(UP), {"randomised": Plain(UP)}, "no list"),
        (Mixable(UP), {}, "no weights that can be found"),
        (Mixable(UP, DOWN), {"depths": "some"}, "'all', 'cascading', or numbers"),
        (Mixable(UP, DOWN), {"depths": [2]}, "from 1 to 1"),
        (Mixable(UP, DOWN), {"depths": [0]}, "from 1 to 1"),
        (Mixable(UP, DOWN), {"depths": []}, "from 1 to 1"),
        (Mixable(UP, DOWN), {"depths": 1}, "from 1 to 1"),
        (Mixable(UP, DOWN), {"depths": [1.0]}, "from 1 to 1"),
        (Mixable(UP, DOWN), {"similarity": "hog"}, "no similarity 'hog'"),
        (Mixable(UP, DOWN), {"layer": ["maps"]}, "pass one layer"),
    ],
)
def test_bad_arguments_are_refused(model, arguments, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        parameter_randomisation(model, ONES, method="hires-cam", **arguments)


def test_the_protocol_is_told_by_its_methods():
    assert isinstance(Mixable(UP), Randomisable)
    assert not isinstance(Plain(UP), Randomisable)


@given(st.lists(st.integers(2, 20), min_size=1, max_size=6), st.integers(0, 2**40), st.data())
def test_orders_are_permutations_that_depend_on_the_seed_and_the_place_alone(sizes, seed, data):
    named = {f"w{n}": size for n, size in enumerate(sizes)}
    full = dict(shuffles(named, seed, None))
    assert list(full) == list(named)[::-1]
    assert all(sorted(order) == list(range(named[name])) for name, order in full.items())
    last = data.draw(st.integers(1, len(sizes)))
    some = dict(shuffles(named, seed, last))
    assert list(some) == list(full)[:last]
    for name, order in some.items():
        np.testing.assert_array_equal(order, full[name])


def test_weights_of_one_size_get_different_orders():
    a, b = (order for _, order in shuffles({"a": 100, "b": 100}, 0, None))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("sizes", "seed", "last", "message"),
    [
        ({}, 0, None, "no weights in floating point"),
        ({"a": 4}, 0, 2, "allowed are 1 to 1"),
        ({"a": 4}, 0, 0, "allowed are 1 to 1"),
        ({"a": 4}, -1, None, "wanted a whole number, 0 or more"),
    ],
)
def test_shuffles_that_cannot_be_are_refused(sizes, seed, last, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        list(shuffles(sizes, seed, last))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 2), True), ((8, 1, 3, 3), True), ((5,), False), ((1, 5, 1, 1), False), ((), False)],
)
def test_what_a_weight_is(shape, expected):
    assert is_weight(shape) == expected
