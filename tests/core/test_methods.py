"""The family of methods: numbers worked out by hand, and what holds for any arrays."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core.errors import BlankMapWarning
from cfcam_core.methods import METHODS, find_method, register_method
from cfcam_core.methods.asking import smooth_grad_cam_plus_plus
from cfcam_core.pictures import BATCH
from cfcam_core.settings import Settings

ASKING = [name for name in cfcam.methods() if METHODS[name].asks_model]
PLAIN = [name for name in cfcam.methods() if not METHODS[name].asks_model]
ELEMENTARY = [name for name in PLAIN if name != "cf-cam"]  # which has tests of its own

A = [[1, 3], [0, 1], [1, -1]]
G = [[1, -1], [2, 4], [3, -3]]


def cam(name, activations, gradients):
    arrays = (np.asarray(values, np.float32) for values in (activations, gradients))
    return find_method(name).function(*arrays, Settings())


@pytest.mark.parametrize(
    ("name", "activations", "gradients", "wanted", "weights"),
    [
        # Means of the gradients: 0, 3, 0. Map: 3 * [0, 1].
        ("grad-cam", A, G, [0, 3], [0, 3, 0]),
        # G * A: [1, -3], [0, 4], [3, 3]. Weights <G A, A> / <A, A>: -8 / 10, 4 / 1, 0 / 2.
        ("hires-cam", A, G, [4, 4], [-0.8, 4, 0]),
        # Sums of A: 4, 1, 0. Shares G^2 / (2 G^2 + sum G^3): 1/6 at the one positive gradient;
        # 4/16 and 16/96; 9/18. Weights: 1/6; 2/4 + 4/6 = 7/6; 3/2.
        ("grad-cam++", A, G, [1 / 6 + 3 / 2, 3 / 6 + 7 / 6 - 3 / 2], [1 / 6, 7 / 6, 3 / 2]),
        # The sum is -2: at a gradient of 1 the denominator is 2 - 2, and the share 0. At 2 it is
        # 8 - 16, and the share -1/2: the weight is -1.
        ("grad-cam++", [[-1, -1]], [[1, 2]], [1, 1], [-1]),
        # Sums of G A over sums of A: -2 / 4, 4 / 1, and 6 / 0, which is 0.
        ("xgrad-cam", A, G, [-0.5, -1.5 + 4], [-0.5, 4, 0]),
        # relu(G) * A: [1, 0], [0, 4], [3, 0]. Weights: 1 / 10, 4 / 1, 3 / 2.
        ("layer-cam", A, G, [4, 4], [0.1, 4, 1.5]),
        # One position differs from zero: its direction (3, 4) / 5 is the singular vector.
        ("eigen-cam", [[3, 0], [4, 0]], [[1, 1], [1, 1]], [5, 0], [0.6, 0.8]),
        # The sign is chosen so that the sum is positive.
        ("eigen-cam", [[-3, 0], [-4, 0]], [[1, 1], [1, 1]], [5, 0], [-0.6, -0.8]),
        # Nothing is centred: the map of constant channels is constant.
        ("eigen-cam", [[3, 3], [4, 4]], [[1, 1], [1, 1]], [5, 5], [0.6, 0.8]),
        # More channels than positions, and fewer: the other Gram matrix.
        ("eigen-cam", [[2, 0, 0], [0, 0, 1]], [[1] * 3] * 2, [2, 0, 0], [1, 0]),
        ("eigen-cam", [[0, 1], [2, 0], [0, 0]], [[1] * 2] * 3, [2, 0], [0, 1, 0]),
        # G A: [6, 0] and [-8, 0], centred [3, -3] and [-4, 4]. The vector is (3, -4) / 5, the map
        # [5, -5]; it goes against the sum [-2, 0] and is turned. The terms
        # are [-1.8, 1.8] and [-3.2, 3.2], the weights -1.8 of 6 and -3.2 of 8.
        ("eigen-grad-cam", [[6, 0], [8, 0]], [[1, 1], [-1, 1]], [-5, 5], [-0.3, -0.4]),
    ],
)
def test_by_hand(name, activations, gradients, wanted, weights):
    found = cam(name, activations, gradients)
    np.testing.assert_allclose(found.map, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6, atol=1e-6)
    assert found.labels is None


X = np.float32([[[1, 2]]])
"""The toy's maps are [1, 2], [4, 1] and [5, 5]."""


def toy(*head, **how):
    return Toy(np.float32([head, [-h for h in head]]), **how)


def test_score_cam_by_hand():
    """Masks are [0, 1] and [1, 0]; the third channel makes none. The masked pictures [0, 2] and
    [1, 0] score 2 ln 2 and ln 2: weights 4/6 and 2/6."""
    e = cfcam.explain(toy(np.log(2), 0, 0), X, method="score-cam")
    np.testing.assert_allclose(e.weights, [[2 / 3, 1 / 3, 0]], rtol=1e-6)
    np.testing.assert_allclose(e.maps, [[2 / 3 + 4 / 3, 4 / 3 + 1 / 3]], rtol=1e-6)


def test_score_cam_stretches_what_it_has_laid_over_the_picture():
    """Two positions over four pixels: [0, .25, .75, 1], whatever the maps' own range."""
    seen = []

    class Halved(Toy):
        def activations(self, inputs):
            seen.append(np.asarray(inputs)[:, 0])
            return super().activations(inputs).reshape(len(inputs), 3, 2, 2).mean(axis=3)

    x = np.float32([[[2, 2, 6, 6]]])
    e = cfcam.explain(Halved(np.float32([[1, 0, 0]])), x, method="score-cam")
    np.testing.assert_allclose(seen[-1][0], [0, 0.25 * 2, 0.75 * 6, 6], rtol=1e-6)
    # The second map is [1, 9]: the same mask, so the same weight.
    np.testing.assert_allclose(e.weights, [[0.5, 0.5, 0]], rtol=1e-6)


def test_ablation_cam_by_hand():
    """The sums of the maps are 3, 5 and 10; y = 3 - 5 + 10 / 2 = 3. Without a channel it is 0, 8,
    -2: weights 1, -5/3, 5/3. For the class with logit -3 all of it turns around, and no more."""
    weights, wanted = [[1, -5 / 3, 5 / 3]], [[1 - 20 / 3 + 25 / 3, 2 - 5 / 3 + 25 / 3]]
    model = toy(1, -1, 0.5)
    e = cfcam.explain(model, X, method="ablation-cam", target=0)
    np.testing.assert_allclose(e.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(e.maps, wanted, rtol=1e-6)
    with pytest.warns(BlankMapWarning, match="all_negative"):
        against = cfcam.explain(model, X, method="ablation-cam", target=1)
    np.testing.assert_array_equal(against.maps, -e.maps)


def test_ablation_cam_of_a_value_of_zero():
    """y = -15 + 5 + 10 = 0: the drops stay undivided."""
    e = cfcam.explain(toy(-5, 1, 1), X, method="ablation-cam", target=0)
    np.testing.assert_allclose(e.weights, [[-15, 5, 10]], rtol=1e-6)


def test_smooth_grad_cam_plus_plus_by_hand():
    """The gradient is the same for all pictures: Grad-CAM++. Sums 3, 5, 10; gradients 1, 2, -1:
    shares 1 / 5 and 4 / 48, twice each, times the gradient: 2/5 and 1/3. The third is negative."""
    e = cfcam.explain(toy(1, 2, -1), X, method="smooth-grad-cam++", target=0)
    np.testing.assert_allclose(e.weights, [[2 / 5, 1 / 3, 0]], rtol=1e-6)


def test_the_noise_of_smooth_grad_cam_plus_plus():
    """As wide as was asked for, as many as were asked for; the same picture gets the same noise."""
    seen = []

    class Watched(Toy):
        def capture(self, inputs, *, layer=None, target=None):
            seen.append(np.asarray(inputs))
            return super().capture(inputs, layer=layer, target=target)

    model, x = Watched(np.float32([[1, 2, 3]])), np.linspace(-1, 3, 500, dtype="f")[None, None]
    for method in ("smooth-grad-cam++", wide_and_many()):
        del seen[:]
        first = cfcam.explain(model, x, method=method)
        again = cfcam.explain(model, np.concatenate([x + 1, x]), method=method)
        np.testing.assert_array_equal(first.maps[0], again.maps[1])
        count, spread = (25, 0.15) if method == "smooth-grad-cam++" else (BATCH + 1, 0.5)
        portions = (len(seen) - 2) // 3  # a sample's; each of the two calls starts with its inputs
        own = np.concatenate(seen[1 : 1 + portions])
        others = np.concatenate(seen[-portions:])
        np.testing.assert_array_equal(own, others)
        assert len(own) == count
        assert max(map(len, seen)) <= BATCH
        noise = own - x
        assert noise.std() == pytest.approx(spread * 4, rel=0.03)
        assert np.abs(noise.mean(axis=0)).max() < spread * 4
        assert np.unique(noise[:, 0, 0]).size == count


def wide_and_many():
    name = "test: wide and many"
    if name not in METHODS:
        many = partial(smooth_grad_cam_plus_plus, samples=BATCH + 1, noise=0.5)
        register_method(name, many, asks_model=True, uses_gradients=False)
    return name


@pytest.fixture(autouse=True)
def _table_as_it_was():
    from cfcam_core.methods import _TABLE

    before = dict(_TABLE)
    yield
    _TABLE.clear()
    _TABLE.update(before)


def test_random_is_noise_of_its_own_for_each_sample():
    some = np.random.default_rng(0).normal(size=(40, 3, 20, 30)).astype(np.float32)
    maps = np.stack([cam("random", a, a).map for a in some])
    np.testing.assert_array_equal(maps[7], cam("random", some[7] * (1 + 2**-22), some[0]).map)
    assert len({m.tobytes() for m in maps}) == 40
    assert 0 <= maps.min() < 0.001
    assert 0.999 < maps.max() < 1
    assert maps.mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.corrcoef(maps.reshape(40, -1)) - np.eye(40)).max() < 0.2
    assert not cam("random", some[0], some[0]).weights.any()


# ------------------------------------------------------------------------------------- any arrays

whole = st.integers(-8, 8).map(float)


@st.composite
def samples(draw, axes=None):
    count = draw(st.integers(1, 3)) if axes is None else axes
    shape = draw(st.tuples(*[st.integers(1, 4)] * (count + 1)))
    draws = arrays.arrays(np.float32, shape, elements=whole)
    return draw(draws), draw(draws)


@pytest.mark.parametrize("name", ELEMENTARY)
@given(sample=samples())
def test_shapes_and_finite_values(name, sample):
    found = cam(name, *sample)
    assert np.shape(found.map) == sample[0].shape[1:]
    assert np.shape(found.weights) == sample[0].shape[:1]
    assert np.isfinite(found.map).all()
    assert np.isfinite(found.weights).all()


@pytest.mark.parametrize("name", ELEMENTARY)
@given(sample=samples(axes=3))
def test_positions_are_only_positions(name, sample):
    """A volume, a picture and a signal with the same positions have the same map."""
    volume = cam(name, *sample)
    for size in ((sample[0][0].shape[0], -1), (-1,)):
        other = cam(name, *(a.reshape(len(a), *size) for a in sample))
        np.testing.assert_allclose(np.ravel(other.map), np.ravel(volume.map), atol=1e-4)
        np.testing.assert_allclose(other.weights, volume.weights, atol=1e-4)


@pytest.mark.parametrize("name", ELEMENTARY)
@given(sample=samples(), power=st.sampled_from([-8, 3, 20]))
def test_scaled_gradients(name, sample, power):
    """The map is as large as the gradient, or has nothing to do with it. Grad-CAM++ weighs the
    gradient against the activations: with these scaled the other way its map stays."""
    A, G = sample
    scale = np.float32(2.0**power)
    found = cam(name, A, G)
    if name == "grad-cam++":
        other, times = cam(name, A / scale, G * scale), 1
    else:
        other = cam(name, A, G * scale)
        times = 1 if not METHODS[name].uses_gradients else scale
    same = np.abs(found.map).max() * times * 1e-5
    np.testing.assert_allclose(other.map, found.map * times, rtol=0, atol=same)


@pytest.mark.parametrize("name", [n for n in ELEMENTARY if n != "random"])
@given(seed=st.integers(0, 999), channels=st.integers(2, 40))
def test_the_order_of_channels(name, seed, channels):
    rng = np.random.default_rng(seed)
    A, G = rng.normal(size=(2, channels, 3, 4)).astype(np.float32)
    order = rng.permutation(channels)
    found, other = cam(name, np.abs(A), G), cam(name, np.abs(A)[order], G[order])
    peak = np.abs(found.map).max()
    np.testing.assert_allclose(other.map, found.map, rtol=0, atol=1e-4 * peak)
    np.testing.assert_allclose(other.weights, found.weights[order], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
@given(seed=st.integers(0, 99))
@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_a_batch_is_its_samples(name, seed):
    A, G = np.random.default_rng(seed).normal(size=(2, 3, 9, 5, 4)).astype(np.float32)
    batch = cfcam.explain_arrays(A, G, method=name)
    for n in range(3):
        one = cfcam.explain_arrays(A[n], G[n], method=name)
        for field in ("heatmaps", "maps", "weights"):
            np.testing.assert_array_equal(getattr(one, field)[0], getattr(batch, field)[n])
    assert batch.method == name
    assert (batch.settings is None) == (name != "cf-cam")


@pytest.mark.parametrize("name", PLAIN)
def test_no_gradient(name):
    """Blank, and said to be, for methods that follow the gradient; as ever for the others."""
    A = np.random.default_rng(3).random((6, 5, 4), np.float32)
    if METHODS[name].uses_gradients:
        with pytest.warns(BlankMapWarning, match="zero_gradient"):
            e = cfcam.explain_arrays(A, np.zeros_like(A), method=name)
        assert not e.maps.any()
    else:
        e = cfcam.explain_arrays(A, np.zeros_like(A), method=name)
        assert e.status == ("ok",)
        assert e.maps.any()


@pytest.mark.parametrize("name", cfcam.methods())
@pytest.mark.parametrize("head", [(0, 0, 0), (0, 1, 0)])
@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_dead_layers(name, head):
    """Channels of zeros, and a score that is 0: a map of zeros, not of NaN."""
    nothing = Toy(np.float32([head, head]), features=(lambda x: 0 * x,) * 3)
    e = cfcam.explain(nothing, X, method=name)
    assert name == "random" or not e.maps.any()


# ----------------------------------------------------------------------------------- the table


def test_every_method_says_where_it_is_from():
    assert all(method.source for method in METHODS.values())
    assert ASKING == ["score-cam", "ablation-cam", "smooth-grad-cam++"]
    with pytest.raises(TypeError):
        METHODS["own"] = METHODS["random"]


def mean_activation(activations, gradients, settings):
    assert not activations.flags.writeable
    assert isinstance(settings, Settings)
    return cfcam.Cam(activations.mean(axis=0), np.full(len(activations), 1 / len(activations)))


def test_a_method_of_ones_own():
    cfcam.register_method("mean", mean_activation, source="here", uses_gradients=False)
    assert cfcam.methods()[-1] == "mean"
    e = cfcam.explain(toy(1, 1, 1), X, method="mean")
    np.testing.assert_allclose(e.maps, [[10 / 3, 8 / 3]], rtol=1e-6)
    assert e.method == "mean"
    with pytest.raises(cfcam.InvalidInputError, match="'mean' already; choose another"):
        cfcam.register_method("mean", mean_activation)
    with pytest.raises(cfcam.InvalidInputError, match="'grad-cam' already"):
        cfcam.register_method("grad-cam", mean_activation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("", mean_activation), "name=''"), ((3, mean_activation), "name=3"), (("x", 3), "is a int")],
)
def test_what_cannot_be_registered(arguments, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        cfcam.register_method(*arguments)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (np.zeros(2), "a ndarray of activations"),
        (cfcam.Cam(np.zeros(3), np.zeros(3)), r"a map of shape \(3,\) and weights of shape \(3,\)"),
        (cfcam.Cam(np.zeros(2), np.zeros(2)), r"map of shape \(2,\) and weights of shape \(2,\)"),
    ],
)
def test_what_a_method_must_return(made, message):
    cfcam.register_method("wrong", lambda *_: made)
    with pytest.raises(cfcam.InvalidInputError, match=message):
        cfcam.explain(toy(1, 1, 1), X, method="wrong")
