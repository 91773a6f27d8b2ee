"""The front doors: forms of arrays, sizes, blank maps, layers fused, errors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import zoom

import cfcam_core as cfcam
from cfcam_core.errors import BlankMapWarning
from cfcam_core.fusion import fuse
from cfcam_core.resize import resize

RNG = np.random.default_rng(0)

LINEAR = ("cf-cam", "grad-cam", "xgrad-cam", "hires-cam")
"""Methods whose map turns with the sign of the gradient."""


def pair(*shape):
    return RNG.normal(size=(2, *shape)).astype(np.float32) + np.float32(0.1)


class Fake(cfcam.Backend):
    """Two layers of different size; the score is linear in both."""

    def __init__(self):
        self.A = {"early": pair(3, 4, 8, 6)[0], "late": pair(3, 5, 4, 3)[0]}

    def layers(self):
        return [
            cfcam.Layer("early", (None, 4, 8, 6), "Conv"),
            cfcam.Layer("late", (None, 5, 4, 3), "Conv", is_default=True),
        ]

    def capture(self, inputs, *, layer=None, target=None):
        A = self.A[layer or "late"]
        return cfcam.Capture(A, np.ones_like(A), layer=layer or "late", input_size=(16, 12))

    def scores(self, inputs):
        return np.zeros((3, 2), np.float32)

    def scores_from(self, activations, inputs, *, layer=None):
        return np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("shape", "kwargs", "maps"),
    [
        ((6, 9), {}, (1, 9)),
        ((6, 5, 4), {}, (1, 5, 4)),
        ((2, 6, 5, 4), {}, (2, 5, 4)),
        ((2, 6, 3, 5, 4), {}, (2, 3, 5, 4)),
        ((2, 6, 9), {"spatial_dims": 1}, (2, 9)),
        ((6, 3, 5, 4), {"spatial_dims": 3}, (1, 3, 5, 4)),
        ((9, 6), {"channels_last": True}, (1, 9)),
        ((5, 4, 6), {"channels_last": True}, (1, 5, 4)),
        ((2, 5, 4, 6), {"channels_last": True}, (2, 5, 4)),
        ((2, 3, 5, 4, 6), {"channels_last": True}, (2, 3, 5, 4)),
    ],
)
def test_forms_of_arrays(shape, kwargs, maps):
    A, G = pair(*shape)
    e = cfcam.explain_arrays(A, G, **kwargs)
    assert e.maps.shape == maps
    assert e.heatmaps.shape == maps
    assert len(e) == maps[0]
    assert e.weights.shape == (maps[0], 6)
    assert e.labels.shape == (maps[0], 6)
    assert e.scores is None
    assert (e.targets == -1).all()


def test_channels_last_is_a_transpose():
    A, G = pair(2, 6, 5, 4)
    first = cfcam.explain_arrays(A, G)
    last = cfcam.explain_arrays(np.moveaxis(A, 1, -1), np.moveaxis(G, 1, -1), channels_last=True)
    np.testing.assert_array_equal(first.heatmaps, last.heatmaps)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.uint8, bool])
def test_any_real_dtype(dtype):
    A = RNG.integers(0, 2, (6, 5, 4)).astype(dtype)
    e = cfcam.explain_arrays(A, A)
    assert e.heatmaps.dtype == np.float32


def test_size():
    A, G = pair(6, 5, 4)
    assert cfcam.explain_arrays(A, G, size=(10, 7)).heatmaps.shape == (1, 10, 7)
    assert cfcam.explain_arrays(A, G, size=np.array([10, 7])).heatmaps.shape == (1, 10, 7)
    assert cfcam.explain(Fake(), None).heatmaps.shape == (3, 16, 12)


@pytest.mark.parametrize("size", [(10,), (10, 7, 3), (0, 7), (10.5, 7), ("a", "b")])
def test_bad_size(size):
    A, G = pair(6, 5, 4)
    with pytest.raises(cfcam.InvalidInputError, match="2 positive integers"):
        cfcam.explain_arrays(A, G, size=size)


@pytest.mark.parametrize(
    ("arrays", "kwargs", "message"),
    [
        (([1.0], [1.0]), {}, "2 to 5 axes"),
        ((np.ones((1,) * 6),) * 2, {}, "2 to 5 axes"),
        ((np.ones((2, 3)), np.ones((2, 4))), {}, r"\(1, 2, 3\) and gradients \(1, 2, 4\)"),
        ((np.ones((2, 3, 4)),) * 2, {"spatial_dims": 3}, "4 axes for a sample or 5 for a batch"),
        ((np.ones((2, 3, 4)),) * 2, {"spatial_dims": 4}, "allowed are 1, 2 and 3"),
        ((np.ones((0, 3, 4)),) * 2, {}, "no empty axis"),
        ((np.full((2, 3, 4), np.nan), np.ones((2, 3, 4))), {}, "activations contain 24 values"),
        ((np.ones((2, 3, 4)), np.full((2, 3, 4), -np.inf)), {}, "gradients contain 24 values"),
        ((np.full((2, 3, 4), 1e300), np.ones((2, 3, 4))), {}, "not finite in float32"),
        ((np.ones((2, 3, 4), complex),) * 2, {}, "complex128; wanted real numbers"),
        ((np.full((2, 3, 4), "a"),) * 2, {}, "wanted real numbers"),
        (([[1, 2], [3]], [[1, 2], [3]]), {}, "cannot be read as an array"),
        ((np.ones((2, 3, 4)),) * 2, {"method": "nope"}, "allowed are cf-cam, grad-cam"),
        ((np.ones((2, 3, 4)),) * 2, {"settings": "paper"}, "Settings.preset"),
        ((np.ones((2, 3, 4)),) * 2, {"method": []}, "allowed are cf-cam, grad-cam"),
        ((np.ones((2, 3, 4)),) * 2, {"spatial_dims": [2]}, "allowed are 1, 2 and 3"),
        ((np.ones((2, 3, 4)),) * 2, {"size": 7}, "2 positive integers"),
        ((np.ma.masked_less(np.ones((2, 3, 4)), 0),) * 2, {}, "masked array"),
        ((np.full((2, 3, 4), 1e-60), np.ones((2, 3, 4))), {}, "zero in float32"),
        ((np.full((2, 3, 4), 1e30),) * 2, {"method": "grad-cam"}, "overflows float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_bad_arrays(arrays, kwargs, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        cfcam.explain_arrays(*arrays, **kwargs)


def blank(kind):
    A = np.abs(pair(6, 5, 4)[0])
    G = {"zero_gradient": 0, "all_negative": -1, "flat": 1}[kind] * np.ones_like(A)
    return (np.ones_like(A) if kind == "flat" else A), G


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("kind", ["zero_gradient", "all_negative", "flat"])
def test_a_blank_map_says_why(kind, method):
    fine, (A, G) = pair(6, 5, 4), blank(kind)
    why = "speaks against the class; try another class, " if kind == "all_negative" else ""
    with pytest.warns(BlankMapWarning, match=rf"sample 1 shows nothing \({kind}\): .*{why}"):
        e = cfcam.explain_arrays(np.stack([fine[0], A]), np.stack([fine[1], G]), method=method)
    assert e.status == ("ok", kind)
    if kind == "flat":
        np.testing.assert_allclose(e.heatmaps[1], 1, rtol=1e-5)
    else:
        assert not e.heatmaps[1].any()
    if kind == "all_negative":
        assert e.maps[1].max() < 0


def test_flat_up_to_rounding_is_flat():
    rng = np.random.default_rng(3)
    A, G = (rng.random((64, 1, 1), np.float32) + np.zeros((64, 5, 5), np.float32) for _ in "AG")
    for method in LINEAR:
        with pytest.warns(BlankMapWarning, match="flat"):
            assert cfcam.explain_arrays(A, G, method=method).status == ("flat",)


def test_what_explain_passes_on(monkeypatch):
    model, asked = Fake(), []
    capture = model.capture

    def spy(inputs, *, layer=None, target=None):
        asked.append((inputs, layer, target))
        found = capture(inputs, layer=layer)
        return cfcam.Capture(
            found.activations, found.gradients, scores=np.eye(3), targets=[2, 0, 1], layer="x"
        )

    model.capture = spy
    e = cfcam.explain(model, "inputs", layer=["early", "late"], target=1)
    assert asked == [("inputs", "early", 1), ("inputs", "late", 1)]
    np.testing.assert_array_equal(e.scores, np.eye(3))
    assert e.targets.tolist() == [2, 0, 1]
    assert e[1].targets.tolist() == [0]
    assert e[1].scores.shape == (1, 3)
    assert e[1].labels.shape == (1, 9)
    for name in ("heatmaps", "maps", "weights", "labels", "targets", "scores"):
        assert not getattr(e, name).flags.writeable
    with pytest.raises(cfcam.InvalidInputError, match="there is no method"):
        cfcam.explain("nowhere.onnx", None, method="nope")  # before the model is looked for


def test_fused_status_needs_every_layer_to_be_dead():
    fine, dead = pair(1, 6, 5, 4), np.zeros((1, 6, 5, 4), np.float32)
    one = cfcam.explain_arrays(*fine)
    with pytest.warns(BlankMapWarning):
        two = cfcam.explain_arrays(fine[0], dead)
    assert fuse([one, two]).status == ("ok",)
    assert fuse([two, two]).status == ("zero_gradient",)
    assert fuse([two, one]).maps.shape == (1, 5, 4)
    noise = fuse([one, one]).labels[0]
    assert ((noise[:6] == -1) == (noise[6:] == -1)).all()


def test_result_is_read_only_and_indexable():
    e = cfcam.explain(Fake(), None)
    with pytest.raises(ValueError, match="read-only"):
        e.heatmaps[0, 0, 0] = 1
    with pytest.raises(AttributeError):
        e.layer = "x"
    one = e[1]
    assert len(one) == 1
    np.testing.assert_array_equal(one.heatmaps[0], e.heatmaps[1])
    np.testing.assert_array_equal(e[-1].maps, e[2:].maps)
    assert [len(x) for x in e] == [1, 1, 1]
    assert len(e[1:]) == 2
    with pytest.raises(IndexError, match="sample 3 of an explanation of 3"):
        e[3]
    assert "late" in repr(e)


def test_an_explanation_holds_together():
    e = cfcam.explain(Fake(), None)
    for changes, message in [
        ({"targets": np.zeros(2, int)}, "do not belong together"),
        ({"status": ("ok",)}, "do not belong together"),
        ({"maps": e.maps[:, 0]}, "do not belong together"),
        ({"status": ("ok", "fine", "ok")}, "status 'fine' is unknown"),
    ]:
        with pytest.raises(cfcam.InvalidInputError, match=message):
            replace(e, **changes)


def test_fused_layers():
    model = Fake()
    early, late = (cfcam.explain(model, None, layer=name) for name in ("early", "late"))
    both = cfcam.explain(model, None, layer=["early", "late"])
    assert both.layer == "early + late"
    assert both.maps.shape == (3, 8, 6)
    assert both.heatmaps.shape == (3, 16, 12)
    peak = [np.abs(e.maps).max(axis=(1, 2), keepdims=True) for e in (early, late)]
    wanted = (early.maps / peak[0] + resize(late.maps / peak[1], (8, 6))) / 2
    np.testing.assert_allclose(both.maps, wanted, atol=1e-6)
    assert both.weights.shape == both.labels.shape == (3, 9)
    np.testing.assert_array_equal(both.labels[:, :4], early.labels)
    assert (both.labels[:, 4:].max(axis=1) > both.labels[:, :4].max(axis=1)).all()
    np.testing.assert_array_equal(cfcam.explain(model, None, layer=["late"]).maps, late.maps)
    with pytest.raises(cfcam.InvalidInputError, match="empty list"):
        cfcam.explain(model, None, layer=[])


@given(
    arrays(np.float32, (2, 3, 4), elements=st.floats(-5, 5, width=32)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_resize_keeps_bounds(maps, size):
    out = resize(maps, size)
    assert out.shape == (2, *size)
    assert out.min() >= maps.min() - 1e-5
    assert out.max() <= maps.max() + 1e-5


def test_resize_is_linear_interpolation_of_cell_centres():
    maps = pair(1, 7, 5)[0]
    np.testing.assert_array_equal(resize(maps, (7, 5)), maps)
    wanted = zoom(maps[0], (4, 3), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resize(maps, (28, 15))[0], wanted, atol=1e-6)
    volume = pair(1, 3, 4, 5)[0]
    wanted = zoom(volume[0], 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resize(volume, (6, 8, 10))[0], wanted, atol=1e-6)
    np.testing.assert_allclose(resize(np.full((1, 1), 3.0), (9,)), 3.0)


def test_grad_cam_and_hires_cam_are_their_formulas():
    A, G = pair(2, 6, 5, 4)
    grad = cfcam.explain_arrays(A, G, method="grad-cam")
    np.testing.assert_allclose(grad.weights, G.mean(axis=(2, 3)), rtol=1e-5)
    wanted = np.einsum("nc,nchw->nhw", G.mean(axis=(2, 3)), A)
    np.testing.assert_allclose(grad.maps, wanted, atol=1e-5)
    hires = cfcam.explain_arrays(A, G, method="hires-cam")
    np.testing.assert_allclose(hires.maps, (A * G).sum(axis=1), atol=1e-5)
    assert grad.labels is hires.labels is None
    assert grad.settings is hires.settings is None


def test_captures_are_checked_views():
    A, G = pair(2, 6, 5, 4)
    c = cfcam.Capture(A, G, scores=np.zeros((2, 3)), targets=[0, 1], input_size=[9, 8])
    assert c.activations.base is A or np.shares_memory(c.activations, A)
    assert not c.activations.flags.writeable
    assert A.flags.writeable
    assert c.input_size == (9, 8)
    for bad, message in [
        ({"scores": np.zeros((3, 3))}, r"scores have shape \(3, 3\); wanted \(2, K\)"),
        ({"scores": np.full((2, 3), np.nan)}, "scores contain 6"),
        ({"targets": [1]}, r"wanted integers of shape \(2,\)"),
        ({"targets": [0.5, 1]}, "wanted integers"),
        ({"targets": [[1], [1, 2]]}, "cannot be read"),
        ({"input_size": 7}, "positive integers"),
        ({"input_size": "ab"}, "positive integers"),
        ({"input_size": (3.7, 2)}, "positive integers"),
        ({"input_size": (9,)}, "does not fit maps"),
        ({"input_size": (0, 9)}, "does not fit maps"),
    ]:
        with pytest.raises(cfcam.InvalidInputError, match=message):
            cfcam.Capture(A, G, **bad)


def test_a_stranger_that_fits_is_a_backend_and_one_method_alone_is_not():
    fits = dict.fromkeys(("layers", "capture", "scores", "scores_from"), print)
    assert isinstance(SimpleNamespace(**fits), cfcam.Backend)
    assert not isinstance(SimpleNamespace(capture=print), cfcam.Backend)
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (cfcam.Backend,), {"layers": lambda self: []})()
