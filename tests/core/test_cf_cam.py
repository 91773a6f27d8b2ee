"""CF-CAM against its definition: dominant channels, clusters, averages, weights, maps."""

from dataclasses import replace

import numpy as np
import pytest
from cam_inputs import DEFAULT, PLAIN, assert_same_map, explain, relu_like
from sklearn.cluster import DBSCAN, HDBSCAN, OPTICS, AgglomerativeClustering

import cfcam_core as cfcam
from cfcam_core.cam import near_one
from cfcam_core.clustering import cluster_channels, dominant_channels
from cfcam_core.settings import PRESETS

pytestmark = pytest.mark.filterwarnings("ignore:the map of sample")
presets = pytest.mark.parametrize("settings", PRESETS.values(), ids=PRESETS)


def test_dominant_channels_are_numpys_percentile():
    for channels in range(1, 12):
        norms = np.random.default_rng(channels).random(channels).astype(np.float32)
        live = np.ones(channels, np.bool_)
        for percentile in (0, 30.0, 75.0, 100):
            wanted = norms >= np.percentile(norms, percentile)
            np.testing.assert_array_equal(dominant_channels(norms, live, percentile), wanted)


def test_a_dead_channel_is_never_dominant():
    A, G = relu_like(30)
    labels = explain(A, G, replace(DEFAULT, dominant_percentile=0.0)).labels[0]
    np.testing.assert_array_equal(labels == -2, A.any(axis=(1, 2)))


def test_a_single_channel_left_is_a_cluster_and_strange_labels_are_noise():
    A = np.ones((2, 3, 3), np.float32)
    A[1] *= 2
    assert explain(A, A, DEFAULT).labels[0].tolist() == [0, -2]
    A, G = relu_like(31)
    labels = explain(A, G, replace(DEFAULT, clusterer=Everything(-5))).labels[0]
    assert set(labels) == {-2, -1}


def test_min_samples(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "cfcam_core.clustering.dbscan",
        lambda later, degrees, min_samples: seen.append(min_samples) or np.zeros(len(degrees), int),
    )
    A, G = relu_like(32, 50)
    A += np.float32(0.1)
    plain = replace(DEFAULT, dominant_percentile=None)
    explain(A, G, plain)
    explain(A, G, replace(plain, min_samples_least=6))
    explain(A, G, replace(plain, min_samples_share=0.5))
    assert seen == [2, 6, 25]


def test_eps_floor_is_relative_to_the_median_norm():
    rng = np.random.default_rng(33)
    A = np.repeat(rng.random((4, 3, 3)), 8, axis=0) + rng.normal(0, 0.01, (32, 3, 3))
    settings = replace(DEFAULT, unit_norm=False, eps_percentile=0.0, eps_floor=0.1)
    labels = [explain((A * k).astype("f"), A, settings).labels for k in (1, 1000)]
    np.testing.assert_array_equal(*labels)
    assert labels[0].max() > 0


def test_a_users_radius_meets_unscaled_channels():
    A, G = relu_like(34)
    found = []
    for scale in (1.0, 2.0**30):
        settings = replace(DEFAULT, unit_norm=False, clusterer=DBSCAN(2.5 * scale))
        labels = explain(A * np.float32(scale), G, settings).labels
        found.append(labels)
    np.testing.assert_array_equal(*found)
    assert (found[0] == 0).any()


def test_near_one_is_exact():
    for value in (2.0**30, -(2.0**30), 3e-30, -7e20):
        scaled, exponent = near_one(np.full((2, 2), value, np.float32))
        assert 0.5 <= abs(scaled[0, 0]) < 1
        assert np.ldexp(scaled, exponent)[0, 0] == np.float32(value)
    array = np.array([[1.0, -3.0]], np.float32)
    assert near_one(array)[0] is array


@pytest.mark.parametrize("kind", ["directions", "gradients"])
def test_the_filter_reaches_the_map(kind):
    A, G = relu_like(35)
    plain, smooth = (
        explain(A, G, replace(PLAIN, average=kind, filter=name)).maps
        for name in ("none", "gaussian")
    )
    assert np.abs(plain - smooth).max() > 0.05 * np.abs(plain).max()


def test_public_code_presets_refuse_nothing_but_noise():
    A, G = relu_like(37)
    settings = replace(PRESETS["reference"], clusterer=Everything(-1), dominant_percentile=None)
    with pytest.raises(cfcam.InvalidInputError, match="every channel is noise"):
        explain(A, G, settings)
    one = np.ones((9, 1, 1), np.float32) * np.arange(1, 10, dtype=np.float32)[:, None, None]
    assert explain(one, one, PRESETS["reference"]).maps.shape == (1, 1, 1)


def test_default_tells_classes_apart_where_the_public_code_is_blind():
    place = np.eye(20)[:4].reshape(4, 4, 5)  # four groups of channels, each active in one place
    group = np.repeat(np.arange(4), 10)
    rng = np.random.default_rng(10)
    A = (place[group] + rng.uniform(0, 0.1, (40, 4, 5))).astype(np.float32)
    G = np.where(group == 0, 1e-3, -1e-4)[:, None, None] * np.ones_like(A)
    other = np.roll(G, 10, axis=0)

    def correlation(settings):
        a, b = (explain(A, g, settings).heatmaps.ravel() for g in (G, other))
        return np.corrcoef(a, b)[0, 1]

    assert correlation(PRESETS["reference"]) > 0.9999
    assert correlation(PRESETS["default"]) < 0.5


def test_dead_channels_undo_the_public_codes_clusters():
    """The defect that `drop_dead` removes: many dead channels leave no live one in a cluster."""
    A, G = relu_like(12, 100)
    A[:60] = 0
    labels = cluster_channels(A, G, PRESETS["reference"])
    live = A.any(axis=(1, 2)) & (labels != -2)
    assert live.sum() > 10
    assert (labels[live] == -1).all()


def test_without_averaging_partners_element_wise_is_hires_cam():
    A, G = relu_like(13)
    alone = replace(PLAIN, noise="keep", clusterer=Everything(-1), average="gradients")
    np.testing.assert_allclose(
        explain(A, G, alone).maps, cfcam.explain_arrays(A, G, method="hires-cam").maps, rtol=1e-4
    )


def test_one_cluster_of_all_channels_is_the_mean_gradient():
    A, G = relu_like(14)
    together = replace(
        PLAIN,
        clusterer=Everything(0),
        average="gradients",
        sign_split=False,
        drop_dead=False,
        dominant_percentile=None,
    )
    np.testing.assert_allclose(explain(A, G, together).maps[0], G.mean(0) * A.sum(0), rtol=2e-4)


def assert_made_of(e, terms, A):
    """The map is the sum of the channels' terms, the weights their projections on activations."""
    assert_same_map(e.maps[0], terms.sum(axis=0))
    flat, A = terms.reshape(len(A), -1), A.reshape(len(A), -1).astype(np.float64)
    energy = (A * A).sum(axis=1)
    wanted = (flat * A).sum(axis=1) / np.where(energy > 0, energy, 1)
    assert_same_map(e.weights[0], wanted)


def test_directions_are_their_definition():
    A, G = relu_like(15)
    e = explain(A, G, replace(PLAIN, average="directions"))
    labels, E = e.labels[0], (G * A).astype(np.float64)
    lengths = np.sqrt((E * E).sum(axis=(1, 2), keepdims=True))
    terms = np.where((labels == -2)[:, None, None], E, 0)
    for k in range(labels.max() + 1):
        members = labels == k
        direction = (E[members] / lengths[members]).sum(axis=0)
        terms[members] = lengths[members] * direction / np.linalg.norm(direction)
    assert_made_of(e, terms, A)


def test_sign_split_is_its_definition():
    A, G = relu_like(16)
    e = explain(A, G, replace(PLAIN, average="gradients"))
    labels, shared = e.labels[0], np.zeros(G.shape)
    shared[labels == -2] = G[labels == -2]
    for k in range(labels.max() + 1):
        for negative in (True, False):
            half = (labels == k) & ((G.mean(axis=(1, 2)) < 0) == negative)
            if half.any():
                shared[half] = G[half].mean(axis=0, dtype=np.float64)
    assert_made_of(e, shared * A, A)


def smoothed(maps, sigma):
    """Every position against every other, as the docstring of `filtering.gaussian` has it."""
    if sigma == 0:
        return maps
    rows, columns = (np.abs(np.subtract.outer(range(n), range(n))) for n in maps.shape)
    weights = [np.exp(-((d / sigma) ** 2) / 2) * (d <= round(6 * sigma)) for d in (rows, columns)]
    kernel = np.einsum("ik,jl->ijkl", *weights)
    return np.einsum("ijkl,kl->ij", kernel, maps) / kernel.sum(axis=(2, 3))


@pytest.mark.parametrize("sigma", [0.0, 0.4, 0.7])
def test_both_is_where_the_two_agree(sigma):
    A, G = relu_like(17)
    a, b, both = (
        explain(A, G, replace(DEFAULT, average=kind, sigma_agreement=sigma))
        for kind in ("directions", "gradients", "both")
    )
    peaks = [np.abs(each.maps).max() for each in (a, b)]
    x, y = (
        each.maps[0].astype(np.float64) / peak for each, peak in zip((a, b), peaks, strict=True)
    )
    shown = smoothed(np.maximum(x, 0), sigma) * smoothed(np.maximum(y, 0), sigma)
    assert_same_map(both.maps[0], shown * np.sqrt(peaks[0] * peaks[1]))
    assert (both.maps >= 0).all()
    assert_same_map(both.weights, (a.weights + b.weights) / 2)


@presets
def test_weights_of_scalar_weightings_rebuild_the_map(settings):
    A, G = relu_like(18)
    e = explain(A, G, replace(settings, average="gradients", weighting="linear"))
    assert_same_map(e.maps[0], np.tensordot(e.weights[0], A, 1))


class Everything:
    """A clusterer that puts all rows into one group."""

    def __init__(self, label):
        self.label = label

    def fit_predict(self, X):
        self.seen = X
        return np.full(len(X), self.label)


@pytest.mark.parametrize(
    "clusterer",
    [HDBSCAN(min_cluster_size=3, copy=True), OPTICS(), AgglomerativeClustering(4), DBSCAN(0.9)],
    ids=lambda c: type(c).__name__,
)
def test_any_scikit_learn_clusterer_takes_the_built_in_ones_place(clusterer):
    A, G = relu_like(20)
    before = dict(vars(clusterer))
    e = explain(A, G, replace(PLAIN, clusterer=clusterer))
    assert vars(clusterer) == before  # fitted a copy
    E = (G * A).reshape(len(A), -1)
    rest = e.labels[0] != -2
    rest &= E.any(axis=1)
    units = E[rest] / np.linalg.norm(E[rest], axis=1, keepdims=True)
    np.testing.assert_array_equal(e.labels[0][rest], clusterer.fit_predict(units))


def test_built_in_dbscan_equals_scikit_learns_in_place():
    A, G = relu_like(21, 200)
    builtin = explain(A, G, PLAIN)
    rest = (builtin.labels[0] != -2) & A.any(axis=(1, 2))
    E = (G * A).reshape(len(A), -1)[rest].astype(np.float64)
    units = (E / np.linalg.norm(E, axis=1, keepdims=True)).astype(np.float32)
    d = np.linalg.norm(units[:, None].astype(np.float64) - units[None], axis=2)
    pairs = np.sort(d[np.triu_indices(len(d), 1)])
    radius = np.repeat(pairs, 2)[int((2 * len(pairs) - 1) * 0.25)]
    wanted = DBSCAN(
        eps=radius * (1 + 1e-9), min_samples=max(2, int(len(d) * 0.05)), metric="precomputed"
    )
    np.testing.assert_array_equal(builtin.labels[0][rest], wanted.fit_predict(d))


@pytest.mark.parametrize("labels", [[0, 1], "none", [0.5] * 3])
def test_a_clusterer_that_misbehaves_is_named(labels):
    class Bad:
        def fit_predict(self, X):
            return np.array(labels)

    A, G = relu_like(22)
    with pytest.raises(cfcam.InvalidInputError, match=r"Bad.*wanted integers of shape"):
        explain(A, G, replace(DEFAULT, clusterer=Bad()))


def test_a_clusterer_that_fails_is_named():
    A, G = relu_like(22, 3)
    with pytest.raises(cfcam.InvalidInputError, match=r"AgglomerativeClustering.* failed on"):
        explain(A + 1, G, replace(DEFAULT, clusterer=AgglomerativeClustering(40)))


def test_nothing_but_noise_is_kept_rather_than_leaving_a_blank_map():
    A, G = relu_like(23)
    settings = replace(DEFAULT, clusterer=Everything(-1), dominant_percentile=None)
    assert explain(A, G, settings).maps.any()
