import numpy as np
import pytest
from linear_toy import Linear

import cfcam_core as cfcam
from cfcam_core.evaluation.feeding import feeding
from cfcam_core.evaluation.perturbations import perturb
from cfcam_core.images import PREPROCESSINGS, ModelInput, Preprocessing, prepare

rng = np.random.default_rng(0)
COLOUR = rng.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
ONE, THREE = rng.normal(size=(2, 1, 5, 4)), rng.normal(size=(2, 3, 5, 4))
OWN = Preprocessing((10.0, 20.0, 30.0), (2.0, 3.0, 4.0), "BGR", "made up")


def layouts(heads):
    return [Linear(heads, input_layout=layout) for layout in ("channels_first", "channels_last")]


@pytest.mark.parametrize("name", PREPROCESSINGS)
@pytest.mark.parametrize("model", layouts(THREE), ids=lambda model: model.input_layout)
def test_inputs_are_those_that_files_give(model, name):
    fed = feeding(model, COLOUR, name)
    wanted = [prepare(each, ModelInput.of(model), name) for each in COLOUR]
    found = fed.inputs(fed.pictures)
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=1e-5, atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("name", ["unit", "tf", "raw"])
@pytest.mark.parametrize("model", layouts(ONE), ids=lambda model: model.input_layout)
def test_colour_for_a_gray_model_and_gray_for_either(model, name):
    fed = feeding(model, COLOUR, name)
    wanted = [prepare(each, ModelInput.of(model), name) for each in COLOUR]
    found = fed.inputs(fed.pictures)
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=1e-4, atol=1e-3)
    for each in (model, *layouts(THREE)):
        gray = feeding(each, COLOUR[..., 0], name)
        same = feeding(each, np.repeat(COLOUR[..., :1], 3, axis=3), name)
        np.testing.assert_allclose(
            gray.inputs(gray.pictures), same.inputs(same.pictures), rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize("heads", [ONE, THREE], ids=["gray model", "colour model"])
@pytest.mark.parametrize("images", [COLOUR, COLOUR[..., 0]], ids=["colour", "gray"])
@pytest.mark.parametrize("preprocess", ["imagenet", "caffe", "tf", "raw", OWN], ids=str)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_the_slope_is_that_of_the_logit(heads, images, preprocess, layout):
    """Of a linear model it is the same everywhere: differences are exact."""
    model = Linear(heads.astype(np.float32), input_layout=layout)
    wide = preprocess in ("imagenet", "caffe", OWN)
    if wide and heads is ONE:
        with pytest.raises(cfcam.InvalidInputError, match="the preprocessing is for 3"):
            feeding(model, images, preprocess)
        return
    fed = feeding(model, images, preprocess)
    picture = np.full(fed.pictures.shape[1:], 0.4)
    slope = fed.gradient(picture, 1)
    assert slope.shape == picture.shape
    for place in [(0, 0, 0), (3, 2, picture.shape[-1] - 1), (4, 3, picture.shape[-1] // 2)]:
        moved = picture.copy()
        moved[place] += 0.5
        low, high = model.scores(fed.inputs(np.stack([picture, moved])))[:, 1]
        assert slope[place] == pytest.approx((high - low) / 0.5, rel=1e-3, abs=1e-2)


def test_fgsm_lowers_the_logit_of_a_bgr_model_as_far_as_eps_allows():
    model = Linear(THREE)
    fed = feeding(model, np.full((1, 5, 4, 3), 0.5, np.float32), "caffe")
    found = perturb(fed.pictures[0], "fgsm", 4, gradient=lambda x: fed.gradient(x, 0))
    rgb = THREE[0, ::-1].transpose(1, 2, 0)
    np.testing.assert_allclose(found, 0.5 - 8 / 255 * np.sign(rgb), atol=1e-6)
    before, after = model.scores(fed.inputs(np.stack([fed.pictures[0], found])))[:, 0]
    assert before - after == pytest.approx(8 * np.abs(THREE[0]).sum(), rel=1e-4)


def test_without_preprocessing_the_model_gets_what_came():
    for axes in (1, 2, 3):
        heads = np.random.default_rng(axes).normal(size=(2, 2, 4, 5, 6)[: axes + 2])
        x = np.random.default_rng(axes).random((3, *heads.shape[1:])).astype(np.float32)
        for model, given in zip(layouts(heads), (x, np.moveaxis(x, 1, -1)), strict=True):
            fed = feeding(model, given)
            assert fed.pictures.shape == np.moveaxis(x, 1, -1).shape
            np.testing.assert_array_equal(fed.inputs(fed.pictures), given)
            wanted = np.moveaxis(heads[1], 0, -1)
            np.testing.assert_allclose(fed.gradient(fed.pictures[0], 1), wanted, rtol=1e-6)


def test_a_function_gets_pictures_as_they_were_given_and_cannot_be_attacked():
    got = []

    def keep(pictures):
        got.append(pictures)
        return np.zeros((len(pictures), 3, 5, 4), np.float32)

    for images in (COLOUR, COLOUR[..., 0]):
        fed = feeding(Linear(THREE), images, keep)
        fed.inputs(fed.pictures)
        np.testing.assert_array_equal(got.pop(), np.float32(images / np.float32(255)))
        with pytest.raises(cfcam.InvalidInputError, match=r"no.*through a function"):
            fed.gradient(fed.pictures[0], 0)


def test_whole_numbers_are_rounded_to():
    model = Linear(THREE, input_dtype=np.uint8)
    fed = feeding(model, COLOUR, "raw")
    found = fed.inputs(fed.pictures)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, COLOUR.transpose(0, 3, 1, 2))
    assert (fed.inputs(np.full((1, 5, 4, 3), 10.7 / 255)) == 11).all()


@pytest.mark.parametrize(
    ("images", "preprocess", "message"),
    [
        (COLOUR.astype(np.float32), "unit", "values from 0 to 255; wanted 0 to 1"),
        (COLOUR.astype(int), "unit", "wanted uint8, or floats"),
        (np.zeros((0, 5, 4, 3)), "unit", "wanted uint8, or floats"),
        (np.full((1, 5, 4, 3), np.nan), "unit", "not finite"),
        (np.zeros((5, 4)), None, "without preprocess="),
        (np.zeros((5, 4)), "unit", "with preprocess="),
        (np.zeros((2, 3, 5, 4)), "unit", "with preprocess="),
        (COLOUR, "imagenette", "allowed are imagenet, tf"),
        (COLOUR, 7, "there is no preprocessing 7"),
    ],
)
def test_refused(images, preprocess, message):
    with pytest.raises(cfcam.InvalidInputError, match=message):
        feeding(Linear(THREE), images, preprocess)


def test_whole_numbers_need_a_preprocessing():
    """Shares of 1 would all be rounded to 0 or 1."""
    model = Linear(THREE, input_dtype=np.uint8)
    with pytest.raises(cfcam.InvalidInputError, match=r"whole numbers \(uint8\).*'raw'"):
        feeding(model, COLOUR.transpose(0, 3, 1, 2))


def test_a_layout_that_is_known_once_the_model_has_run():
    class Late(Linear):
        def scores(self, inputs):
            self.input_layout = "channels_last"
            return super().scores(inputs)

    x = COLOUR / np.float32(255)
    np.testing.assert_array_equal(feeding(Late(THREE), x).pictures, x)
