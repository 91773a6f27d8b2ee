"""The golden file is what its generator makes, and the generator would notice a wrong gradient."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from conformance_nets import GOLDEN, LAYERS, NETS


@pytest.fixture(scope="module")
def maker():
    return runpy.run_path(str(Path(__file__).with_name("make_golden.py")))


def test_the_file_is_what_the_generator_makes(maker):
    made = maker["golden"]()
    with np.load(GOLDEN) as arrays:
        assert set(arrays.files) == set(made)
        for name, array in made.items():
            assert arrays[name].dtype == array.dtype == np.float32
            np.testing.assert_allclose(arrays[name], array, rtol=3e-7, atol=1e-12, err_msg=name)
    assert GOLDEN.stat().st_size < 300_000
    assert (maker["LAYERS"], tuple(maker["PLANS"]), maker["PATH"]) == (LAYERS, NETS, GOLDEN)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_wrong_gradient_would_be_noticed(maker, name, layer):
    plan, rng = maker["PLANS"][name], np.random.default_rng(0)
    facts = maker["facts"](plan)
    weights = {k.removeprefix("weights/"): a for k, a in facts.items() if k.startswith("weights/")}
    own, slopes = facts[f"activations/{layer}"], facts[f"gradients/{layer}"].copy()
    maker["check_slopes"](weights, facts["x"], plan, layer, own, slopes, rng)
    slopes.flat[rng.integers(slopes.size)] += 1e-3 * np.abs(slopes).max()
    with pytest.raises(AssertionError, match="Not equal to tolerance rtol=1e-09"):
        maker["check_slopes"](weights, facts["x"], plan, layer, own, slopes, rng)


@pytest.mark.parametrize("name", NETS)
def test_no_two_axes_can_be_taken_for_each_other(name):
    with np.load(GOLDEN) as arrays:
        for layer in LAYERS:
            _, *sizes = arrays[f"{name}/activations/{layer}"].shape
            assert len(set(sizes)) == len(sizes)
        assert len(set(arrays[f"{name}/scores"].argmax(axis=1))) > 1
