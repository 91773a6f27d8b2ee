import importlib.util
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cfcam_core as cfcam
from cfcam_core.demo.shipped import MODEL, load_scenes
from cfcam_core.evaluation import class_sensitivity, map_correlation
from cfcam_core.images import ModelInput, prepare, read_image
from cfcam_core.targets import resolve_targets

REFERENCE = cfcam.Settings.preset("reference")


class Toy:
    """A backend whose activations and gradients are given: of class k, `gradients[k]`."""

    def __init__(self, activations, gradients, scores):
        self.activations, self.gradients = np.float32(activations), np.float32(gradients)
        self.logits = np.float32(scores)
        self.runs = []

    def layers(self):
        return [cfcam.Layer("maps", (None, *self.activations.shape), "Conv", is_default=True)]

    def capture(self, inputs, *, layer=None, target=None):
        targets, _ = resolve_targets(target, self.scores(inputs))
        self.runs.append(targets.tolist())
        A = np.stack([self.activations] * len(inputs))
        return cfcam.Capture(A, self.gradients[targets], self.scores(inputs), targets)

    def scores(self, inputs):
        return np.stack([self.logits] * len(inputs))

    def scores_from(self, activations, inputs, *, layer=None):
        raise NotImplementedError


EYE = np.eye(4).reshape(4, 2, 2)  # channel k is lit in corner k
ONES = np.ones((2, 2))


def corners(*weights):
    """Return gradients (4, 2, 2) that make grad-cam draw these weights in the four corners."""
    return np.multiply.outer(weights, ONES)


def toy():
    gradients = [corners(*row) for row in ([4, 3, 2, 1], [1, 2, 3, 4], [8, 6, 4, 2], [1, 1, 1, 1])]
    return Toy(EYE, gradients, [3, 2, 1, 0])


def test_a_rank_is_a_whole_number():
    with pytest.raises(cfcam.InvalidInputError, match=r"rank=2\.5; wanted a whole number"):
        class_sensitivity(toy(), np.zeros((2, 1, 2, 2)), rank=2.5)


@pytest.mark.parametrize(("other", "correlation"), [(1, -1), (2, 1), (3, np.nan), (0, np.nan)])
def test_opposite_equal_and_blank_maps_by_hand(other, correlation):
    if other == 3:
        with pytest.warns(cfcam.BlankMapWarning, match="flat"):
            found = class_sensitivity(toy(), np.zeros((2, 1, 2, 2)), method="grad-cam", others=3)
    else:
        found = class_sensitivity(toy(), np.zeros((2, 1, 2, 2)), method="grad-cam", others=other)
    np.testing.assert_allclose(found.correlations, [correlation] * 2)
    assert found.targets.tolist() == [0, 0]
    assert found.others.tolist() == [other] * 2
    assert found.undefined == 2 * np.isnan(correlation)
    assert found.mean == pytest.approx(correlation, nan_ok=True)


def test_heatmaps_leave_out_what_speaks_against_a_class_and_maps_do_not():
    gradients = [corners(2, 1, 0, 0), corners(2, 1, 0, -9)]
    toy = Toy(EYE, gradients, [1, 0])
    assert class_sensitivity(toy, [0], method="grad-cam").mean == pytest.approx(1)
    signed = class_sensitivity(toy, [0], method="grad-cam", of="maps").mean
    assert signed == pytest.approx(np.corrcoef([2, 1, 0, 0], [2, 1, 0, -9])[0, 1])


@pytest.mark.parametrize(("rank", "other"), [(2, 1), (3, 2), (4, 3), (6, 3)])
def test_the_other_class_is_the_one_at_that_rank_or_the_last(rank, other):
    model = Toy(EYE, [corners(4, 3, 2, k) for k in range(4)], [3, 2, 1, 0])
    assert class_sensitivity(model, [0], rank=rank, method="grad-cam").others.tolist() == [other]
    assert model.runs == [[0], [other]]  # one capture a class


def test_equal_scores_rank_by_index():
    model = Toy(EYE, [corners(4, 3, 2, k) for k in range(4)], [1, 1, 1, 1])
    assert class_sensitivity(model, [0], method="grad-cam", rank=3).others.tolist() == [2]


def test_a_callable_names_the_other_class_of_each_sample():
    found = class_sensitivity(toy(), [0, 0], method="grad-cam", others=lambda s: [1, 2])
    np.testing.assert_allclose(found.correlations, [-1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "weights"}, "'heatmaps' and 'maps'"),
        ({"rank": 1}, "2 is the runner-up"),
        ({"others": lambda s: s[:, 0] - s[:, 1]}, "function of several scores"),
        ({"others": 7}, "out of range"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        class_sensitivity(toy(), [0], **arguments)


def test_one_logit_has_no_other_class():
    with pytest.raises(cfcam.InvalidInputError, match="single logit"):
        class_sensitivity(Toy(EYE, [corners(1, 2, 3, 4)], [1]), [0])


@pytest.mark.parametrize("of", ["heatmaps", "maps"])
@pytest.mark.parametrize("preset", ["reference", "paper"])
def test_the_public_code_is_blind_to_the_class_and_the_default_is_not(preset, of):
    inputs = load_scenes().inputs()
    settings = cfcam.Settings.preset(preset)
    blind = class_sensitivity(MODEL, inputs, settings=settings, of=of)
    assert blind.undefined == 0
    assert blind.correlations.min() >= 0.999999
    default = class_sensitivity(MODEL, inputs, of=of)
    assert default.undefined == 0
    assert default.correlations.max() < 0.9
    assert default.mean < 0.2


@pytest.fixture(scope="module")
def photographs(real_data):
    items = json.loads((real_data / "MANIFEST.json").read_text())["images"]
    return [read_image(real_data / item["file"]) for item in items if item["imagenet_ok"]][:6]


@pytest.fixture(scope="module")
def mobilenet(real_data, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("m", real_data / "loaders/mobilenet_v2.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    path = tmp_path_factory.mktemp("model") / "mobilenet_v2.onnx"
    loader.build_onnx(real_data / "models/mobilenet_v2_imagenet_int8.npz", path)
    return path


@pytest.mark.real
@pytest.mark.parametrize(("name", "preprocess"), [("mobilenet", "tf"), ("squeezenet", "caffe")])
def test_the_public_code_is_blind_on_photographs_too(
    name, preprocess, photographs, mobilenet, real_data
):
    squeezenet = real_data / "models/squeezenet1_1_fp16.onnx"
    model = cfcam.open_model(mobilenet if name == "mobilenet" else squeezenet)
    wanted = ModelInput.of(model)
    batch = np.concatenate([prepare(picture, wanted, preprocess) for picture in photographs])
    blind = class_sensitivity(model, batch, settings=REFERENCE)
    assert blind.undefined == 0
    assert blind.correlations.min() >= 0.999999
    default = class_sensitivity(model, batch)
    assert default.undefined == 0
    assert default.mean < 0.95
    assert default.correlations.min() < 0.9


@given(st.integers(0, 999), st.floats(0.01, 100), st.floats(-100, 100))
def test_correlation_is_numpys_and_ignores_scale_and_offset(seed, factor, offset):
    a, b = np.random.default_rng(seed).normal(size=(2, 3, 4, 5))
    found = map_correlation(a, b)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # maps are float32
    np.testing.assert_array_equal(found, map_correlation(b, a))
    np.testing.assert_allclose(map_correlation(factor * a + offset, b), found, atol=1e-3)
    np.testing.assert_allclose(map_correlation(-a, b), -found, atol=1e-12)
    np.testing.assert_allclose(map_correlation(a, a), 1)


@pytest.mark.parametrize("flat", [0.0, 3.0, np.array([1, 1 + 1e-6, 1])])
def test_a_flat_map_correlates_with_nothing(flat):
    maps = np.array([[1, 2, 4], [0, 0, 0]], float)
    maps[1] = flat
    found = map_correlation(maps, [[1, 2, 4], [1, 2, 4]])
    np.testing.assert_allclose(found, [1, np.nan])


@pytest.mark.parametrize("scale", [1e-37, 1e37])
def test_maps_of_any_size_correlate(scale):
    assert map_correlation([[scale, 2 * scale, 0]], [[1, 2, 0]]) == pytest.approx([1])


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.ones((1, 2)), np.ones((1, 3))), (np.ones(3), np.ones(3)), (np.ones((0, 2)),) * 2],
)
def test_maps_that_do_not_belong_together_are_refused(first, second):
    with pytest.raises(cfcam.InvalidInputError, match=r"same shape \(N, \*size\)"):
        map_correlation(first, second)
