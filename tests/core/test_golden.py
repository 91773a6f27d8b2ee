"""The preset ``reference`` against what the public code put out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cfcam_core as cfcam
from cfcam_core.filtering import public_code_filter, public_code_filter_mean

REFERENCE = cfcam.Settings.preset("reference")
LOCAL = Path(__file__).parents[1] / "golden"
CASES = json.loads((LOCAL / "manifest.json").read_text())["cases"]
NOT_FINITE = {"nan_act_c64_7x7", "inf_act_c64_7x7", "nan_grad_c64_7x7"}
FAILING = {name for name, case in CASES.items() if case["error"]} | NOT_FINITE

pytestmark = pytest.mark.filterwarnings("ignore:the map of sample 0 shows nothing")


def check(vectors):
    A, G = vectors["activations"], vectors["gradients"]
    e = cfcam.explain_arrays(A, G, settings=REFERENCE)
    np.testing.assert_array_equal(e.labels[0], vectors["labels"])
    close(e.weights[0], vectors["weights_softmax"], 1e-6)
    raw = cfcam.explain_arrays(A, G, settings=replace(REFERENCE, weighting="linear")).weights[0]
    close(raw, vectors["weights_raw"], 1e-6)
    close(np.maximum(e.maps[0], 0), vectors["cam_lowres"], 5e-6)
    for key in {"cam_224", "cam_96x128", "cam_16x16"} & set(vectors.files):
        wanted = vectors[key]
        e = cfcam.explain_arrays(A, G, settings=REFERENCE, size=wanted.shape)
        np.testing.assert_allclose(e.heatmaps[0], wanted, rtol=0, atol=5e-6)


def close(got, wanted, tolerance):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("name", sorted(set(CASES) - FAILING))
def test_reference_preset_agrees(name, golden):
    with np.load(golden / f"{name}.npz") as vectors:
        check(vectors)


@pytest.mark.parametrize("name", ["offset_c64_7x7", "relu_c64_7x5", "relu_c512_7x7"])
def test_memory_layout_changes_nothing(name, golden):
    with np.load(golden / f"{name}.npz") as v:
        last = [
            np.ascontiguousarray(np.moveaxis(v[k], 0, -1)) for k in ("activations", "gradients")
        ]
        e = cfcam.explain_arrays(*last, settings=REFERENCE, channels_last=True)
        np.testing.assert_array_equal(e.labels[0], v["labels"])
        close(e.weights[0], v["weights_softmax"], 1e-6)


@pytest.mark.real
def test_reference_preset_agrees_with_every_vector(real_data):
    folder = real_data.parent / "golden"
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    assert set(cases) >= set(CASES)
    for name in sorted(set(cases) - FAILING):
        with np.load(folder / f"{name}.npz") as vectors:
            check(vectors)


@pytest.mark.parametrize("name", sorted(FAILING))
def test_reference_preset_refuses_what_breaks_the_public_code(name, golden):
    with (
        np.load(golden / f"{name}.npz") as v,
        pytest.raises(cfcam.InvalidInputError, match=r"public code|not finite"),
    ):
        cfcam.explain_arrays(v["activations"], v["gradients"], settings=REFERENCE)


@pytest.mark.parametrize("name", sorted(set(CASES) - NOT_FINITE))
def test_default_preset_is_defined_wherever_the_input_is_finite(name, golden):
    with np.load(golden / f"{name}.npz") as v:
        e = cfcam.explain_arrays(v["activations"], v["gradients"], size=(20, 30))
    assert np.isfinite(e.heatmaps).all()
    assert np.isfinite(e.maps).all()
    assert (e.heatmaps.max() == 1) == (e.maps.max() > 0)


def test_filter_agrees(golden):
    compared = 0
    for path in sorted(golden.glob("*.npz")):
        if path.stem in NOT_FINITE:
            continue
        with np.load(path) as v:
            if "cluster_filtered_gradients" not in v.files:
                continue
            pairs = list(
                zip(v["cluster_mean_gradients"], v["cluster_filtered_gradients"], strict=True)
            )
        for mean, wanted in pairs:
            if wanted.shape != mean.shape:  # one column: the public code drops the axis
                continue
            got = public_code_filter(mean, sigma_spatial=5.0, sigma_range=0.1)
            close(got, wanted, 2e-6)
            short = public_code_filter_mean(mean, sigma_spatial=5.0, sigma_range=0.1)
            assert short == pytest.approx(got.mean(), rel=1e-9, abs=1e-12)
            compared += 1
    assert compared > 15
