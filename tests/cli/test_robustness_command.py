"""``cfcam robustness``: the numbers of the function itself, with p printed; stopped runs go on."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from html_pages import Page

from cfcam_core import open_model
from cfcam_core.evaluation import robustness, robustness_on_files
from cfcam_core.images import fit, read_image

OUT = "cfcam-robustness"
FEW = (
    *("--method", "cf-cam", "--method", "grad-cam"),
    *("--perturbation", "gaussian", "--perturbation", "gaussian_blur"),
    *("--severity", 1, "--severity", 5),
)


@pytest.fixture
def photos(tmp_path, photo):
    for n, size in enumerate([(40, 60), (44, 58), (30, 60)]):
        photo(f"photos/{n}.png", size)
    return tmp_path / "photos"


@pytest.mark.filterwarnings("ignore::cfcam_core.errors.UndefinedMeasureWarning")
def test_numbers_are_those_of_the_function(cfcam, model, photos, tmp_path):
    path = model()
    done = cfcam("robustness", photos, "--model", path, *FEW, "--seed", 2, "--p", 0.8)
    assert done.returncode == 0, done.stderr
    out = tmp_path / OUT
    names = {"robustness.csv", "robustness.json", "index.html", "journal.jsonl"}
    assert {each.name for each in out.iterdir()} == names
    assert "rank-biased overlap with p = 0.8" in done.stderr
    page = Page((out / "index.html").read_text())
    assert "p = 0.8" in "".join(page.text)

    pictures = np.stack([fit(read_image(each), (16, 16)) for each in sorted(photos.iterdir())])
    twin = robustness(
        open_model(path),
        pictures,
        methods=["cf-cam", "grad-cam"],
        preprocess="imagenet",
        perturbations=["gaussian", "gaussian_blur"],
        severities=[1, 5],
        p=0.8,
        seed=2,
    )
    rows = list(csv.DictReader((out / "robustness.csv").read_text().splitlines()))
    assert len(rows) == len(twin.pairs) == 3 * 2 * 2 * 2
    for row, wanted in zip(rows, twin.pairs.rows(), strict=True):
        assert row["method"] == wanted[0]
        assert row["image"] == f"{wanted[1]}.png"
        assert float(row["similarity"]) == pytest.approx(wanted[5], abs=1e-6)
    content = json.loads((out / "robustness.json").read_text(), parse_constant=pytest.fail)
    assert content["p"] == 0.8
    for score in twin.scores:
        found = content["scores"][score.method]
        for name in ("consistency", "responsiveness", "robustness"):
            value = np.nan if found[name] is None else found[name]
            np.testing.assert_allclose(value, getattr(score, name), atol=1e-6)
        assert (found["same"], found["changed"]) == (score.same, score.changed)


def test_p_is_printed_by_default_and_few_pairs_are_noted(cfcam, model, photos):
    done = cfcam("robustness", photos, "--model", model(), *FEW)
    assert "rank-biased overlap with p = 0.9" in done.stderr
    says = r"\d+ pairs kept the class, \d+ changed it; fewer than 30 of a kind"
    assert re.search(says, done.stderr)
    head = done.stdout.splitlines()[0].split()
    assert head == ["method", "consistency", "responsiveness", "robustness", "flat"]


def test_what_has_no_value_is_said_and_left_empty(cfcam, model, photos, tmp_path):
    faint = ("--perturbation", "gaussian_blur", "--severity", 1, "--method", "cf-cam")
    done = cfcam("robustness", photos, "--model", model(), *faint)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / OUT / "robustness.json").read_text())
    assert content["scores"]["cf-cam"]["changed"] == 0
    assert content["scores"]["cf-cam"]["robustness"] is None
    says = "no perturbation changed a prediction"
    assert says in done.stderr
    assert says in (tmp_path / OUT / "index.html").read_text()
    assert re.search(r"^cf-cam +\S+ +- +-", done.stdout, re.MULTILINE)


def test_the_same_command_gives_the_same_bytes_and_goes_on(cfcam, model, photos, tmp_path):
    path = model()
    for out in ("a", "b"):
        assert cfcam("robustness", photos, "--model", path, *FEW, "--out", out).returncode == 0
    journal = tmp_path / "b" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert cfcam("robustness", photos, "--model", path, *FEW, "--out", "b").returncode == 0
    for name in ("robustness.csv", "robustness.json", "index.html", "journal.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--severity", "6"), "severities (6,)"),
        (("--perturbation", "nope"), "'nope' is unknown"),
        (("--segments", "nope"), "'nope' is unknown"),
        (("--p", "1.5"), "p=1.5"),
        (("--method", "nope"), "no method 'nope'"),
    ],
)
def test_what_is_not_understood_is_refused(cfcam, model, photos, arguments, says):
    done = cfcam("robustness", photos, "--model", model(), *arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())


def test_a_folder_of_another_run_is_refused(cfcam, model, photos):
    path = model()
    assert cfcam("robustness", photos, "--model", path, *FEW).returncode == 0
    done = cfcam("robustness", photos, "--model", path, *FEW, "--p", 0.5)
    assert done.returncode == 2
    assert "p was 0.9, is 0.5" in done.stderr


def test_a_run_goes_on_with_the_pictures_in_the_same_order_alone(model, photos, tmp_path):
    """The place of a picture decides its noise, and what the record says it is."""
    backend = open_model(model())
    few = {"methods": ["grad-cam"], "perturbations": ["gaussian"], "journal": tmp_path / "j"}
    files = sorted(photos.iterdir())
    robustness_on_files(backend, files, **few)
    with pytest.raises(ValueError, match=r"images 1\.png place was 1, is 2"):
        robustness_on_files(backend, [files[0], files[2], files[1]], **few)


def test_a_broken_picture_fails_alone_and_leaves_the_noise_of_the_others(
    cfcam, model, photos, tmp_path
):
    path = model()
    assert cfcam("robustness", photos, "--model", path, *FEW, "--out", "a").returncode == 0
    (photos / "3.png").write_bytes(b"no")
    done = cfcam("robustness", photos, "--model", path, *FEW, "--out", "b")
    assert done.returncode == 1
    assert re.search(r"failed: 3\.png: .*damaged", done.stderr)
    assert (tmp_path / "a" / "robustness.csv").read_bytes() == (
        (tmp_path / "b" / "robustness.csv").read_bytes()
    )


def test_arrays_are_for_the_function(model):
    with pytest.raises(ValueError, match="pass files"):
        robustness_on_files(open_model(model()), np.zeros((1, 3, 16, 16), np.float32))
