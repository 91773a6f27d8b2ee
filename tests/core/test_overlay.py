"""Colours, blending, PNG bytes and notebook HTML."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cfcam_core import Explanation, InvalidInputError, png, report
from cfcam_core.overlay import colours, overlay
from cfcam_core.resize import resize


def explanation(heatmaps, **fields):
    heatmaps = np.asarray(heatmaps, np.float32)
    n = len(heatmaps)
    values = {
        "maps": heatmaps,
        "weights": np.ones((n, 3), np.float32),
        "labels": None,
        "targets": np.arange(n),
        "scores": None,
        "status": ("ok",) * n,
        **fields,
    }
    return Explanation(heatmaps, **values)


@pytest.mark.parametrize(
    ("value", "rgb"),
    [
        (0, (0, 0, 128)),
        (1 / 8, (0, 0, 255)),
        (3 / 8, (0, 255, 255)),
        (1 / 2, (128, 255, 128)),
        (5 / 8, (255, 255, 0)),
        (7 / 8, (255, 0, 0)),
        (1, (128, 0, 0)),
    ],
)
def test_jet_at_its_knots(value, rgb):
    assert np.abs(colours(np.array(value)).astype(int) - rgb).max() <= 1


def test_jet_follows_its_formula_between_the_knots():
    x = np.linspace(0, 1, 5001)
    exact = 255 * np.clip(1.5 - np.abs(4 * x[:, None] - [3, 2, 1]), 0, 1)
    assert np.abs(colours(x) - exact).max() <= 1.01


def test_blending_is_the_weighted_mean_of_picture_and_colours():
    rng = np.random.default_rng(0)
    heatmaps = rng.random((1, 5, 7), np.float32)
    image = rng.integers(0, 256, (10, 14, 3), np.uint8)
    colour = colours(resize(heatmaps, (10, 14)))[0]
    for alpha in (0, 0.3, 0.5, 1):
        expected = np.rint(alpha * colour.astype(float) + (1 - alpha) * image)
        assert np.abs(overlay(heatmaps, image, alpha=alpha) - expected).max() <= 1
    np.testing.assert_array_equal(overlay(heatmaps, image, alpha=0), image)
    np.testing.assert_array_equal(overlay(heatmaps, image, alpha=1), colour)


def test_every_kind_of_picture_of_the_same_scene_gives_the_same_overlay():
    rng = np.random.default_rng(1)
    heatmap = rng.random((1, 4, 4), np.float32)
    gray = rng.integers(0, 256, (8, 9), np.uint8)
    expected = overlay(heatmap, gray)
    opaque = np.dstack([gray, gray, gray, np.full_like(gray, 255)])
    same = {
        "one band": gray[..., None],
        "rgb": np.dstack([gray] * 3),
        "rgba": opaque,
        "uint16": gray.astype(np.uint16) * 257,
        "float32": gray.astype(np.float32) / 255,
        "float64": gray / 255,
        "nested list": (gray / 255).tolist(),
        "read-only": np.broadcast_to(gray, (1, 8, 9))[0],
    }
    for kind, image in same.items():
        assert np.abs(overlay(heatmap, image).astype(int) - expected).max() <= 1, kind
    batch = overlay(heatmap, gray[None])
    np.testing.assert_array_equal(batch, expected[None])


def test_transparency_shows_white_paper():
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0, 3] = 255
    image[0, 1, 3] = 51
    out = overlay(np.zeros((1, 2, 2), np.float32), image, alpha=0)
    assert out[..., 0].tolist() == [[0, 204], [255, 255]]


def test_a_batch_is_its_samples_one_by_one():
    rng = np.random.default_rng(2)
    heatmaps = rng.random((3, 4, 4), np.float32)
    images = rng.integers(0, 256, (3, 6, 5, 3), np.uint8)
    both = overlay(heatmaps, images)
    for i in range(3):
        np.testing.assert_array_equal(both[i], overlay(heatmaps[i : i + 1], images[i]))


@given(
    arrays(np.float32, (1, 3, 4), elements=st.floats(0, 1, width=32)),
    arrays(np.uint8, (6, 8, 3)),
    st.floats(0, 1),
)
def test_never_outside_picture_and_colours(heatmaps, image, alpha):
    out = overlay(heatmaps, image, alpha=alpha).astype(int)
    colour = colours(resize(heatmaps, (6, 8)))[0]
    low, high = np.minimum(colour, image), np.maximum(colour, image)
    assert (out >= low.astype(int) - 1).all()
    assert (out <= high.astype(int) + 1).all()


@pytest.mark.parametrize(
    ("heatmaps", "image", "message"),
    [
        ((1, 9), np.zeros((9,), np.uint8), "plot the heatmap"),
        ((1, 2, 3, 4), np.zeros((3, 4), np.uint8), "slice by slice"),
        ((1, 4, 4), np.zeros((5, 5, 2), np.uint8), "(5, 5, 2)"),
        ((1, 4, 4), np.zeros((3, 5, 5), np.uint8), "last axis"),
        ((2, 4, 4), np.zeros((5, 5, 3), np.uint8), "2 heatmap"),
        ((2, 4, 4), np.zeros((3, 5, 5, 3), np.uint8), "leading axis N"),
        ((1, 4, 4), np.zeros((0, 5, 3), np.uint8), "(0, 5, 3)"),
        ((1, 4, 4), np.zeros((5, 5, 3), np.int64), "int64"),
        ((1, 4, 4), np.full((5, 5, 3), 255.0), "preprocessed"),
        ((1, 4, 4), np.full((5, 5, 3), -1.0), "preprocessed"),
        ((1, 4, 4), np.full((5, 5, 3), np.nan), "nan"),
        ((1, 4, 4), np.array("picture.png"), "()"),
    ],
)
def test_what_does_not_fit_is_refused(heatmaps, image, message):
    with pytest.raises(InvalidInputError) as caught:
        overlay(np.zeros(heatmaps, np.float32), image)
    assert message in str(caught.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_out_of_range(alpha):
    with pytest.raises(InvalidInputError, match="allowed is 0 to 1"):
        overlay(np.zeros((1, 2, 2), np.float32), np.zeros((2, 2)), alpha=alpha)


def test_the_picture_is_not_written_to():
    image = np.full((4, 4, 3), 0.5)
    image.flags.writeable = False
    assert explanation(np.ones((1, 2, 2))).overlay(image).shape == (4, 4, 3)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
    | arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
)
def test_png_bytes_decode_to_the_same_picture(image):
    decoded = cv2.imdecode(np.frombuffer(png.encode(image), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded[..., ::-1] if image.ndim == 3 else decoded, image)


def test_png_of_another_kind_is_refused(tmp_path):
    for image in (np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(InvalidInputError, match="PNG"):
            png.write(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2, 30), (2, 600, 500), (2, 3, 20, 10)])
def test_notebooks_show_signals_pictures_and_volumes(shape):
    text = explanation(np.random.default_rng(0).random(shape), layer="<b>&")._repr_html_()
    assert "<b>" not in text
    assert "&lt;b&gt;&amp;" in text
    found = re.findall(r"base64,([^']+)'", text)
    assert len(found) == 2
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(found[0]), np.uint8), 1)
    assert max(picture.shape) <= report.THUMBNAIL


def test_notebooks_say_what_is_blank_and_how_many_more():
    text = explanation(
        np.zeros((20, 4, 4)), targets=np.full(20, -1), status=("flat",) * 20
    )._repr_html_()
    assert text.count("<img") == report.SHOWN
    assert "and 4 more" in text
    assert ">the map is the same everywhere<" in text
    assert "class" not in text


def test_notebooks_say_class_reason_and_projection():
    status = ("ok", "zero_gradient", "all_negative")
    text = explanation(np.zeros((3, 2, 4, 4)), status=status)._repr_html_()
    captions = re.findall(r"<figcaption[^>]*>([^<]*)<", text)
    assert captions == [
        "class 0",
        "class 1: the score does not depend on this layer",
        "class 2: the map is nowhere positive",
    ]
    assert "largest values along the first spatial axis" in text
    assert "largest values" not in explanation(np.zeros((3, 4, 4)))._repr_html_()


def test_a_page_is_whole_and_escaped():
    picture = np.zeros((2, 2, 3), np.uint8)
    text = report.page(
        "A & B",
        report.heading("<i>"),
        report.paragraph("x < y"),
        report.figures([(picture, "left\nbelow"), (picture, '"right"')], width=64),
        report.table(["name", "share"], [["<c>", 0.5], ["d", 3]]),
    )
    assert text.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in text
    assert not {"<i>", "<c>", '"right"'} & set(re.findall(r'<\w>|"right"', text))
    assert "<td class='number'>0.500</td>" in text
    assert "<div style='overflow-x:auto'><table>" in text
    assert "http" not in text
