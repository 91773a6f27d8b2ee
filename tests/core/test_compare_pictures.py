"""Comparisons of files of pictures with masks, and the page they are shown on."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from compared_toys import HEADS, INPUTS, METHODS, compared
from html_pages import Page
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, evaluation
from cfcam_core.evaluation.compare import compare
from cfcam_core.evaluation.metrics import METRICS


@pytest.fixture
def toy():
    return Toy(HEADS, shortcut=0.01)


class Photos(Toy):
    """The toy for pictures in files: gray, 8 x 6."""

    input_shape = (None, 1, 8, 6)
    input_names = ("x",)


@pytest.fixture
def folder(tmp_path):
    """Four pictures, of which one is damaged, and masks for two."""
    rng = np.random.default_rng(3)
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "b.jpg", "d<u>&.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), rng.integers(0, 255, (16, 12, 3), np.uint8))
    (tmp_path / "photos" / "c.png").write_bytes(b"no picture")
    mask = np.zeros((32, 24), np.uint8)
    mask[:16] = 7
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), mask)
    cv2.imwrite(str(tmp_path / "masks" / "b.png"), mask[::-1])
    return tmp_path


def test_a_folder_of_pictures_with_masks(folder):
    found = compare(Photos(HEADS), folder / "photos", methods=["grad-cam"], masks=folder / "masks")
    assert found.images == ("a.png", "b.jpg", "d<u>&.png")
    assert list(found.failures) == ["c.png"]
    assert "damaged" in found.failures["c.png"]
    energy = found.values[0, :, found.metrics.index("energy-in-mask")]
    picture = cfcam.images.read_image(folder / "photos" / "a.png")
    x = cfcam.images.prepare(picture, cfcam.images.ModelInput.of(Photos(HEADS)), "unit")
    mask = np.repeat([[True], [False]], 4, axis=0) & np.ones((8, 6), bool)
    e = cfcam.explain(Photos(HEADS), x, method="grad-cam")
    assert energy[0] == evaluation.energy_in_mask(e, mask[None])[0]
    assert np.isnan(energy).tolist() == [False, False, True]


def test_our_own_overlays_are_no_pictures(folder):
    overlay = folder / "photos" / "a.cfcam.png"
    overlay.write_bytes((folder / "photos" / "a.png").read_bytes())
    found = compare(Photos(HEADS), folder / "photos", methods="grad-cam", metrics="sparseness")
    assert found.images == ("a.png", "b.jpg", "d<u>&.png")
    assert (found.methods, found.metrics) == (("grad-cam",), ("sparseness",))


def test_failures_are_tried_again_and_a_file_that_changed_is_noticed(folder):
    journal = folder / "j.jsonl"
    given = {"methods": ["grad-cam"], "metrics": ["sparseness"], "journal": journal}
    compare(Photos(HEADS), folder / "photos", **given)
    assert len(journal.read_text().splitlines()) == 1 + 3
    (folder / "photos" / "c.png").write_bytes((folder / "photos" / "a.png").read_bytes())
    with pytest.raises(InvalidInputError, match=r"images c\.png content was"):
        compare(Photos(HEADS), folder / "photos", **given)


@pytest.mark.parametrize("case", ["none", "twice", "strangers", "no folder", "same stem", "shared"])
def test_pictures_and_masks_that_do_not_fit_are_refused(folder, case):
    photos, masks, says = folder / "photos", folder / "masks", "no mask in"
    if case == "none":
        photos, masks, says = folder / "nowhere.png", None, "none of the 1 images can be read"
    elif case == "twice":
        photos, says = [photos / "a.png"] * 2, "given twice"
    elif case == "strangers":
        masks = folder / "strangers"
        masks.mkdir()
        (masks / "z.png").touch()
    elif case == "no folder":
        masks, says = folder / "nowhere", "no folder of masks"
    elif case == "shared":
        (photos / "a.bmp").touch()
        says = "belongs to 2 images"
    else:
        (masks / "a.bmp").touch()
        says = "masks of the same image"
    with pytest.raises(InvalidInputError, match=says):
        compare(Photos(HEADS), photos, methods=["grad-cam"], masks=masks)


def test_nothing_but_broken_pictures_is_an_error(folder):
    with pytest.raises(InvalidInputError, match=r"none of the 1 images can be read: .*damaged"):
        compare(Photos(HEADS), [folder / "photos" / "c.png"])


def test_the_page_is_whole_and_needs_no_other_file(folder):
    found = compare(
        Photos(HEADS),
        folder / "photos",
        methods=[*METHODS, ("a<b>&'\"", "hires-cam", None)],
        metrics=[*METRICS],
        masks=folder / "masks",
    )
    text = found.to_html(folder / "index.html", labels=dict.fromkeys(range(3), "<i>x</i>"))
    assert (folder / "index.html").read_text() == text
    page = Page(text)
    assert not {"i", "u"} & {tag for tag, _ in page.found}
    words = "".join(page.text)
    assert "a<b>&'\"" in words
    assert "d<u>&.png" in words
    assert "<i>x</i>" in words
    for name in METRICS:
        assert METRICS[name].about in words
    pictures = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(pictures) == 3 * (1 + 5)
    assert all(each["alt"] for each in pictures)


def test_the_page_shows_some_images_and_counts_the_rest(toy):
    many = np.repeat(INPUTS, 6, axis=0) + np.arange(30, dtype="f")[:, None, None, None] / 100
    found = compare(toy, many, methods=["grad-cam"], metrics=["sparseness"])
    page = Page(found.to_html())
    assert sum(tag == "img" for tag, _ in page.found) == 24 * 2
    assert "and 6 more images, not shown" in "".join(page.text)


def test_signals_and_single_methods_have_a_page(toy):
    signals = INPUTS[:, :, 0]
    found = compare(toy, signals, methods=["grad-cam"], metrics=["sparseness", "class-sensitivity"])
    Page(found.to_html())
    Page(found._repr_html_())


def test_a_class_blind_method_is_called_so(toy):
    found = compared(toy, methods=["grad-cam", "eigen-cam"])
    words = "".join(Page(found.to_html()).text)
    assert "Class-blind, the same map whatever class is asked for: eigen-cam (1.000)." in words
