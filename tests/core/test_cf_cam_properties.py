"""What must hold for CF-CAM on any arrays, under every preset and beyond."""

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cam_inputs import DEFAULT, PLAIN, assert_same_map, explain, relu_like
from hypothesis import given
from hypothesis import strategies as st

from cfcam_core.settings import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore:the map of sample")

VARIANTS = {
    "-".join(map(str, choice)): replace(
        DEFAULT,
        cluster_on=choice[0],
        average=choice[1],
        weighting=choice[2],
        filter=choice[3],
        sign_split=choice[4],
    )
    for choice in itertools.product(
        ("activations", "contributions"),
        ("gradients", "directions", "both"),
        ("linear", "element-wise"),
        ("none", "gaussian", "bilateral"),
        (True, False),
    )
}
EVERY = {**PRESETS, **VARIANTS, "noise kept": replace(DEFAULT, noise="keep")}
every = pytest.mark.parametrize("settings", EVERY.values(), ids=EVERY)
without_reference = pytest.mark.parametrize(
    "settings", [s for s in EVERY.values() if s.filter != "public-code"]
)


@every
def test_heatmaps_lie_in_unit_interval_and_reach_one(settings):
    for seed in range(3):
        e = explain(*relu_like(seed), settings, size=(32, 40))
        assert e.heatmaps.dtype == np.float32
        assert e.heatmaps.shape == (1, 32, 40)
        assert e.heatmaps.min() >= 0
        assert e.heatmaps.max() == (1 if e.maps.max() > 0 else 0)


@every
def test_a_batch_gives_what_its_samples_give(settings):
    samples = [relu_like(seed) for seed in range(3)]
    batch = explain(*(np.stack(arrays) for arrays in zip(*samples, strict=True)), settings)
    for n, (A, G) in enumerate(samples):
        one = explain(A, G, settings)
        for field in ("heatmaps", "maps", "weights", "labels"):
            np.testing.assert_array_equal(getattr(batch, field)[n], getattr(one, field)[0])
        assert batch.status[n] == one.status[0]


@without_reference  # the public code's kernel is centred off the middle, its padding lopsided
def test_flips_of_the_input_flip_the_map(settings):
    A, G = relu_like(5)
    whole = explain(A, G, settings)
    for axis in (1, 2):
        flipped = explain(np.flip(A, axis), np.flip(G, axis), settings)
        assert_same_map(flipped.maps[0], np.flip(whole.maps[0], axis - 1), 1e-4)


@every
def test_channel_order_does_not_matter(settings):
    """Border channels may join another cluster, so the data has none: groups lie far apart."""
    rng = np.random.default_rng(0)
    patterns = np.eye(20)[:4].reshape(4, 4, 5) * 10
    group = np.repeat(np.arange(4), 10)
    A = (patterns[group] + rng.uniform(0, 0.01, (40, 4, 5))).astype(np.float32)
    G = (rng.normal(size=(4, 4, 5))[group] + rng.normal(0, 0.001, (40, 4, 5))).astype(np.float32)
    order = rng.permutation(40)
    a, b = explain(A, G, settings), explain(A[order], G[order], settings)
    assert_same_map(b.maps, a.maps, 1e-4)
    assert_same_map(b.weights[0], a.weights[0][order], 1e-4)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("scale", [1e-25, 1e-9, 0.37, 1e8, 1e18])
def test_scaling_activations_leaves_the_heatmap(settings, scale):
    A, G = relu_like(7)
    a, b = explain(A, G, settings), explain(A * np.float32(scale), G, settings)
    assert_same_map(b.heatmaps, a.heatmaps, 1e-4)
    np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 2.5, 1e12])
def test_scaling_gradients_scales_maps_and_weights(settings, scale):
    A, G = relu_like(8)
    a, b = explain(A, G, settings), explain(A, G * np.float32(scale), settings)
    assert_same_map(b.maps, a.maps * scale, 1e-4)
    assert_same_map(b.weights, a.weights * scale, 1e-4)
    assert_same_map(b.heatmaps, a.heatmaps, 1e-4)


@every
def test_constant_in_constant_out(settings):
    A = np.ones((12, 4, 4), np.float32) * np.linspace(1, 2, 12, dtype=np.float32)[:, None, None]
    e = explain(A, np.full_like(A, 0.5), settings, size=(9, 9))
    np.testing.assert_allclose(e.heatmaps, 1, rtol=1e-5)
    assert np.ptp(e.maps) <= 1e-5 * e.maps.max()


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("size", [(9,), (6, 1), (1, 6), (1, 1), (3, 4, 5), (1,)])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_every_shape_is_defined(settings, size, channels):
    A, G = relu_like(9, channels, size)
    A += np.float32(0.1)
    e = explain(A, G, settings, spatial_dims=len(size))
    assert e.maps.shape == (1, *size)
    assert np.isfinite(e.heatmaps).all()


@pytest.mark.parametrize("settings", [DEFAULT, PLAIN, replace(PLAIN, average="directions")])
def test_directions_that_cancel_show_no_rounding_noise(settings):
    """Constant in, constant out, also where evidence for and against the class balances."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        A = np.ones((64, 5, 5), np.float32) * rng.uniform(0.5, 1, (64, 1, 1)).astype(np.float32)
        G = np.ones_like(A) * rng.normal(0, 1, (64, 1, 1)).astype(np.float32)
        e = explain(A, G, settings)
        assert np.ptp(e.maps) <= 1e-4 * np.abs(e.maps).max()


def test_both_is_positive_wherever_a_half_is():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        A = np.abs(rng.normal(size=(12, 3, 3))).astype(np.float32)
        G = rng.normal(-0.6, 1, A.shape).astype(np.float32)
        peaks = [
            explain(A, G, replace(DEFAULT, average=kind)).maps.max()
            for kind in ("directions", "gradients", "both")
        ]
        assert (peaks[2] > 0) == (max(peaks[:2]) > 0)


def test_softmax_of_large_gradients_is_finite():
    A, G = relu_like(36)
    e = explain(A, G * np.float32(1e9), PRESETS["paper"])
    assert np.isfinite(e.weights).all()
    assert e.weights.sum() == pytest.approx(1, abs=1e-5)


def test_long_signals_need_little_memory():
    A, G = (np.random.default_rng(k).random((8, 30_000), np.float32) for k in (1, 2))
    tracemalloc.start()
    e = explain(A, G - 0.4, replace(DEFAULT, filter="gaussian"), size=(90_000,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert e.heatmaps.shape == (1, 90_000)
    assert peak < 60e6


def test_dead_channels_change_nothing_by_default():
    A, G = relu_like(11)
    live = A.any(axis=(1, 2))
    rng = np.random.default_rng(0)
    A2 = np.concatenate([A[live], np.zeros((200, *A.shape[1:]), np.float32)])
    G2 = np.concatenate([G[live], rng.normal(size=(200, *A.shape[1:])).astype(np.float32)])
    for settings in (PLAIN, DEFAULT):
        a, b = explain(A[live], G[live], settings), explain(A2, G2, settings)
        assert_same_map(b.maps, a.maps)
        np.testing.assert_array_equal(b.labels[0, : live.sum()], a.labels[0])
        assert (b.labels[0, live.sum() :] == -1).all()
        assert (b.weights[0, live.sum() :] == 0).all()


def changed(A, B, G, settings):
    """By how much the heatmap changes between two arrays of activations, and how many labels."""
    a, b = explain(A, G, settings), explain(B, G, settings)
    return np.abs(a.heatmaps - b.heatmaps).max(), (a.labels != b.labels).sum()


def test_a_channel_becomes_dominant_gradually():
    """The two norms on either side of the threshold change places, by rounding.

    Only where the others keep their clusters: the radius follows from who is clustered.
    """
    jumps = []
    for seed in range(20):
        A, G = relu_like(seed)
        labels = explain(A, G, DEFAULT).labels[0]
        norms = np.linalg.norm(A.reshape(len(A), -1), axis=1)
        above = np.where(labels == -2, norms, np.inf).argmin()
        below = np.where(labels >= 0, norms, 0).argmax()
        A[below] *= norms[above] / norms[below] * np.float32(1 - 1e-6)
        B = A.copy()
        B[below] *= np.float32(1 + 3e-6)
        gradually, labels = changed(A, B, G, DEFAULT)
        if labels != 2:
            continue
        assert gradually < 1e-4
        jumps.append(changed(A, B, G, replace(DEFAULT, gradual=0.0))[0])
    assert len(jumps) >= 5
    assert max(jumps) > 1e-2


def test_a_channel_dies_gradually():
    jumps = []
    for seed in range(20):
        A, G = relu_like(seed)
        weakest = np.where(A.any(axis=(1, 2)), np.abs(A).max(axis=(1, 2)), np.inf).argmin()
        A[weakest] *= np.float32(1e-6)
        B = A.copy()
        B[weakest] *= np.float32(1 + 1e-1)
        B[weakest, 0] = 0
        assert changed(A, B, G, DEFAULT)[0] < 1e-4
        jumps.append(changed(A, B, G, replace(DEFAULT, gradual=0.0))[0])
    assert max(jumps) > 1e-4


def test_both_has_no_steep_slope():
    """Where one of the two maps crosses zero, a geometric mean would be infinitely steep."""
    A, G = relu_like(17)
    sharp = replace(DEFAULT, sigma_agreement=0.0)
    halves = [explain(A, G, replace(DEFAULT, average=k)).maps for k in ("directions", "gradients")]
    peaks = [each.max() for each in halves]
    both = explain(A, G, sharp).maps / np.sqrt(peaks[0] * peaks[1])
    for half, peak in zip(halves, peaks, strict=True):
        assert (np.abs(both) <= np.abs(half / peak) * (1 + 1e-5)).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(EVERY)))
def test_inputs_are_never_written_to(seed, name):
    A, G = relu_like(seed, 12, (3, 3))
    a, g = A.copy(), G.copy()
    explain(A, G, EVERY[name])
    np.testing.assert_array_equal(A, a)
    np.testing.assert_array_equal(G, g)
    assert A.flags.writeable
    assert G.flags.writeable
