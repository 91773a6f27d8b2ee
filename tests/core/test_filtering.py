"""Filters: constants stay, bounds hold, flips commute, limits are what they should be."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import correlate

from cfcam_core import Settings
from cfcam_core.filtering import (
    bilateral,
    filter_maps,
    filtered_means,
    gaussian,
    public_code_filter,
)

maps = arrays(
    np.float32,
    array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6),
    elements=st.floats(-8, 8, width=32),
)
TRUE_FILTERS = {
    "gaussian": lambda g: gaussian(g[None], sigma=1.5)[0],
    "bilateral": lambda g: bilateral(g[None], sigma_spatial=1.5, sigma_range=0.7)[0],
}
every_filter = pytest.mark.parametrize("run", TRUE_FILTERS.values(), ids=TRUE_FILTERS)


@every_filter
@given(maps)
def test_values_stay_within_those_of_the_input(run, g):
    out = run(g)
    slack = 1e-5 * np.abs(g).max()
    assert out.shape == g.shape
    assert out.min() >= g.min() - slack
    assert out.max() <= g.max() + slack


@every_filter
@given(maps, st.data())
def test_flips_commute(run, g, data):
    axis = data.draw(st.integers(0, g.ndim - 1))
    np.testing.assert_allclose(run(np.flip(g, axis)), np.flip(run(g), axis), atol=2e-5)


@every_filter
@pytest.mark.parametrize("value", [0.0, 3.7, -1e-6])
def test_constant_in_constant_out(run, value):
    g = np.full((5, 7), value, np.float32)
    np.testing.assert_allclose(run(g), g, rtol=1e-6)


@every_filter
def test_scaling_gradients_scales_the_result(run):
    g = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    np.testing.assert_allclose(run(g * 1e-5), run(g) * 1e-5, rtol=1e-4, atol=1e-10)


def test_gaussian_is_its_definition():
    g = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    place = np.stack(np.indices(g.shape)).reshape(2, -1).T
    apart = ((place[:, None] - place[None]) ** 2).sum(axis=2)
    w = np.exp(-apart / (2 * 1.3**2))
    wanted = (w @ g.ravel() / w.sum(axis=1)).reshape(g.shape)
    np.testing.assert_allclose(gaussian(g[None], sigma=1.3)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6), (37, 21), (300,), (7, 8, 13)])
def test_bilateral_is_its_definition(shape):
    rng = np.random.default_rng(5)
    spread = np.array([1e-4, 3.0]).reshape(-1, *[1] * len(shape))
    maps = rng.normal(0, spread, (2, *shape)).astype(np.float32)
    place = np.stack(np.indices(shape)).reshape(len(shape), -1).T
    steps = place[:, None] - place[None]
    apart = np.where(np.abs(steps).max(axis=2) > 4 * 1.3, np.inf, (steps**2).sum(axis=2))
    for g, got in zip(maps, bilateral(maps, sigma_spatial=1.3, sigma_range=0.6), strict=True):
        v = g.ravel().astype(np.float64)
        w = np.exp(-apart / (2 * 1.3**2) - (v[:, None] - v) ** 2 / (2 * (0.6 * v.std()) ** 2))
        wanted = (w @ v / w.sum(axis=1)).reshape(shape)
        np.testing.assert_allclose(got, wanted, atol=2e-6 * v.std())


def test_bilateral_in_pieces_is_the_same():
    maps = np.random.default_rng(6).normal(size=(3, 20, 23)).astype(np.float32)
    apart = [bilateral(g[None], sigma_spatial=4.0, sigma_range=1.0)[0] for g in maps]
    together = bilateral(maps, sigma_spatial=4.0, sigma_range=1.0)
    np.testing.assert_allclose(together, apart, atol=1e-6)


def test_bilateral_becomes_gaussian_for_a_wide_range():
    g = np.random.default_rng(2).normal(size=(9, 8)).astype(np.float32)
    wide = bilateral(g[None], sigma_spatial=2.0, sigma_range=1e6)[0]
    np.testing.assert_allclose(wide, gaussian(g[None], sigma=2.0)[0], atol=1e-5)


def test_bilateral_keeps_an_edge_that_gaussian_blurs():
    g = np.zeros((8, 8), np.float32)
    g[:, 4:] = 1
    sharp = bilateral(g[None], sigma_spatial=3.0, sigma_range=0.2)[0]
    blurred = gaussian(g[None], sigma=3.0)[0]
    np.testing.assert_allclose(sharp, g, atol=1e-3)
    assert np.abs(blurred - g).max() > 0.3


@pytest.mark.parametrize("shape", [(7,), (6,), (1,), (5, 4), (4, 4), (7, 1), (3, 4, 5)])
def test_public_code_filter_is_a_zero_padded_correlation(shape):
    g = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    centre = np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    w = np.exp(
        -((np.indices(shape) - centre) ** 2).sum(axis=0) / 8 - (g - g.mean()) ** 2 / (2 * 0.3**2)
    )
    w /= w.sum() + 1e-6
    origin = [(n - 1) // 2 - n // 2 for n in shape]  # ndimage anchors at n // 2
    wanted = correlate(g.astype(np.float64), w, mode="constant", origin=origin)
    got = public_code_filter(g, sigma_spatial=2.0, sigma_range=0.3)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["none", "gaussian", "bilateral", "public-code"])
@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 9), (0, 4, 4), (2, 3, 4, 5)])
def test_means_are_those_of_the_filtered_maps(name, shape):
    settings = replace(Settings(), filter=name, sigma_spatial=1.7, sigma_range=0.4)
    g = np.random.default_rng(4).normal(size=shape).astype(np.float32)
    means = filter_maps(g, settings).mean(axis=tuple(range(1, g.ndim)))
    np.testing.assert_allclose(filtered_means(g, settings), means, atol=1e-6)
