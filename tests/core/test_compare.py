"""Comparisons: the numbers of the measures themselves, reproducible, and safe from kills."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from html_pages import Page
from toy_backend import Toy

import cfcam_core as cfcam
from cfcam_core import InvalidInputError, Settings, evaluation
from cfcam_core.evaluation import choices
from cfcam_core.evaluation.compare import compare
from cfcam_core.evaluation.comparison import Comparison
from cfcam_core.evaluation.metrics import METRICS
from cfcam_core.methods import METHODS as METHODS_BY_NAME

HEADS = np.array([[1.0, -0.5, 0.2], [-0.4, 0.3, 0.1], [0.2, 0.1, 0.3]]) / 8
INPUTS = np.random.default_rng(0).random((5, 1, 6, 4)).astype(np.float32) * 4
MASKS = INPUTS[:, 0] > 3
METHODS = ("cf-cam", "grad-cam", "score-cam", "random")
QUICK = ("energy-in-mask", "class-sensitivity", "keep-minus-delete", "sparseness")


@pytest.fixture
def toy():
    return Toy(HEADS, shortcut=0.01)


def _compared(model, **more):
    given = {"methods": METHODS, "metrics": QUICK, "masks": MASKS, **more}
    return compare(model, INPUTS, **given)


def _same(first, second):
    assert first.to_csv() == second.to_csv()
    assert first.to_json() == second.to_json()


def test_numbers_are_those_of_the_measures(toy):
    found = _compared(toy)
    for m, method in enumerate(METHODS):
        for i in range(len(INPUTS)):
            one = INPUTS[i : i + 1]
            e = cfcam.explain(toy, one, method=method)
            wanted = (
                evaluation.energy_in_mask(e, MASKS[i : i + 1])[0],
                evaluation.class_sensitivity(toy, one, method=method).correlations[0],
                evaluation.keep_minus_delete(toy, one, e)[0],
                evaluation.sparseness(e)[0],
            )
            np.testing.assert_array_equal(found.values[m, i], wanted)
            assert found.statuses[m][i] == e.status[0]
            assert found.targets[i] == e.targets[0]


def test_curves_are_kept_for_every_map(toy):
    found = _compared(toy, metrics=["deletion", "sparseness"])
    assert set(found.curves) == {"deletion"}
    e = cfcam.explain(toy, INPUTS[2:3], method="grad-cam")
    wanted = evaluation.deletion(toy, INPUTS[2:3], e)
    curves = found.curves["deletion"]
    np.testing.assert_array_equal(curves.x, wanted.shares)
    np.testing.assert_array_equal(curves.y[1, 2], wanted.probabilities[0])
    np.testing.assert_allclose(curves.means()[1], curves.y[1].mean(axis=0))


def test_gradient_methods_share_one_capture(toy, monkeypatch):
    captured = []
    whole = Toy.capture

    def counted(self, inputs, **more):
        captured.append(more.get("target"))
        return whole(self, inputs, **more)

    monkeypatch.setattr(Toy, "capture", counted)
    compare(toy, INPUTS[:1], methods=["grad-cam", "hires-cam", "layer-cam"], metrics=["sparseness"])
    assert len(captured) == 1 + 1  # the journal's look at the model, and the work itself


@pytest.mark.filterwarnings("ignore::cfcam_core.BlankMapWarning")
def test_methods_are_names_presets_or_settings(toy):
    mine = ("mine", "cf-cam", Settings(filter="none"))
    found = compare(
        toy, INPUTS, methods=["cf-cam", "cf-cam:paper", mine], metrics=["sparseness"], seed=3
    )
    assert found.methods == ("cf-cam", "cf-cam:paper", "mine")
    for m, settings in enumerate((Settings(), Settings.preset("paper"), mine[2])):
        for i in range(len(INPUTS)):
            e = cfcam.explain(toy, INPUTS[i : i + 1], settings=settings)
            np.testing.assert_array_equal(found.values[m, i, 0], evaluation.sparseness(e)[0])
    assert found.settings["methods"]["mine"]["settings"]["filter"] == "none"


def test_targets_are_one_for_all_or_one_each(toy):
    assert _compared(toy, target=1).targets.tolist() == [1] * 5
    assert _compared(toy, target=[0, 1, 2, 1, 0]).targets.tolist() == [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"methods": ["nope"]}, "no method 'nope'"),
        ({"methods": ["grad-cam:paper"]}, "only cf-cam has presets"),
        ({"methods": ["cf-cam:nope"]}, "no preset 'nope'"),
        ({"methods": ["grad-cam", "grad-cam"]}, "two methods are called 'grad-cam'"),
        ({"methods": []}, "no methods"),
        ({"methods": [("a", "b")]}, "is not understood"),
        ({"methods": [("a", "cf-cam", 3)]}, "settings of 'a' is a int"),
        ({"metrics": ["nope"]}, "no metric 'nope'"),
        ({"metrics": []}, "no metrics"),
        ({"masks": None}, "energy-in-mask: masks are needed"),
        ({"masks": MASKS[:2]}, "2 masks for 5 images"),
        ({"masks": {"9": MASKS[0]}}, "a mask for '9'"),
        ({"masks": MASKS[:, 0] | True}, "does not fit maps"),
        ({"target": [1, 2]}, "does not name classes"),
        ({"target": lambda s: s}, "does not name classes"),
        ({"target": 1.5}, "does not name classes"),
        ({"layer": ["maps"]}, "one layer"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.0}, "seed=1.0"),
        ({"preprocess": "nope"}, "no preprocessing"),
    ],
)
def test_what_is_not_understood_is_refused(toy, more, says):
    with pytest.raises(InvalidInputError, match=says):
        _compared(toy, **more)


def test_the_defaults_ask_for_little():
    assert not any(METHODS_BY_NAME[n.partition(":")[0]].asks_model for n in _default())
    assert "cf-cam:reference" in _default()
    assert choices.default_metrics(masks=True) != choices.default_metrics(masks=False)
    assert set(choices.all_methods()) > set(_default())
    assert set(choices.all_metrics(masks=True)) == set(METRICS)


def _default():
    return choices.default_methods()


# ------------------------------------------------------------------------------ what follows


def test_means_and_counts_leave_out_what_has_no_value(toy):
    found = _compared(toy, masks={"0": MASKS[0], "3": MASKS[3]})
    assert found.counts[:, 0].tolist() == [2] * 4
    assert found.counts[:, 1].tolist() == [5] * 4
    for m in range(4):
        energies = found.values[m, :, 0]
        assert np.isnan(energies[[1, 2, 4]]).all()
        assert found.means[m, 0] == pytest.approx(energies[[0, 3]].mean())
        low, high = found.intervals[m][0].low, found.intervals[m][0].high
        assert energies[[0, 3]].min() - 1e-12 <= low <= found.means[m, 0] <= high + 1e-12


def _table(values, better="higher"):
    """A comparison of given numbers (M, I) under a metric of that direction."""
    name = {"higher": "road", "lower": "deletion", None: "sparseness"}[better]
    values = np.asarray(values, float)
    return Comparison(
        methods=tuple("abcdef"[: len(values)]),
        metrics=(name,),
        images=tuple(map(str, range(values.shape[1]))),
        values=values[:, :, None],
        targets=np.zeros(values.shape[1], np.intp),
        statuses=(("ok",) * values.shape[1],) * len(values),
        curves={},
        settings={"seed": 0},
    )


def test_the_best_is_marked_and_what_the_tests_do_not_tell_from_it():
    noise = np.random.default_rng(1).normal(0, 1e-3, (3, 20))
    values = np.array([[0.5], [0.5], [0.1]]) + noise
    values[0] += 1e-4
    assert _table(values).marks("road") == ("best", "tied", "")
    assert _table(values, "lower").marks("deletion") == ("", "", "best")
    assert _table(values, None).marks("sparseness") == ("", "", "")
    assert _table(values).ranks["road"].mean_ranks[2] == 3
    assert _table(values, "lower").ranks["deletion"].mean_ranks[2] == 1
    assert not _table(values, None).ranks


def test_what_differs_by_rounding_alone_is_best_together():
    assert _table(np.array([[0.3] * 4, [0.1 + 0.2] * 4, [0.2] * 4])).marks("road") == (
        *("best", "best", "tied"),
    )


def test_what_differs_by_rounding_alone_has_the_same_rank():
    values = np.random.default_rng(0).random(20).round(3) + np.array([[0], [1e-8], [-0.5]])
    ranks = _table(values).ranks["road"]
    assert ranks.mean_ranks == (1.5, 1.5, 3)
    assert [pair.differing for pair in ranks.pairs] == [0, 20, 20]


def test_few_images_tie_everything():
    values = np.arange(3)[:, None] + np.zeros((3, 4))
    found = _table(values)
    assert found.marks("road") == ("tied", "tied", "best")
    assert found.least_images == 7  # 3 pairs: 3 * 2 / 2^7 = .047
    wide = _table(np.arange(3)[:, None] + np.zeros((3, 7)))
    assert wide.marks("road") == ("", "", "best")


def test_a_method_without_any_value_is_neither_best_nor_tied():
    values = np.array([[1.0, 2, 3], [np.nan] * 3])
    found = _table(values)
    assert found.marks("road") == ("best", "")
    assert not found.ranks
    assert "no value" in found.to_html()
    assert Comparison.from_json(found.to_json()).to_json() == found.to_json()


# ------------------------------------------------------------------------------ files


def test_csv_has_a_row_for_every_map_with_all_digits(toy, tmp_path):
    found = _compared(toy, masks={"1": MASKS[1]})
    text = found.to_csv(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text() == text
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 4 * 5
    for k, row in enumerate(rows):
        i, m = divmod(k, 4)
        assert (row["image"], row["method"]) == (str(i), METHODS[m])
        for q, name in enumerate(QUICK):
            value = float(row[name]) if row[name] else float("nan")
            np.testing.assert_array_equal(value, found.values[m, i, q])


def test_json_comes_back_as_it_went(toy):
    found = _compared(toy, metrics=[*QUICK, "insertion"], masks={"1": MASKS[1]})
    text = found.to_json()
    json.loads(text, parse_constant=pytest.fail)  # no NaN, which is not JSON
    back = Comparison.from_json(text)
    np.testing.assert_array_equal(back.values, found.values)
    _same(back, found)


def test_the_order_in_memory_changes_no_byte():
    values = np.random.default_rng(0).random((3, 300))
    turned = np.asfortranarray(values)
    assert _table(turned).to_json() == _table(values).to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cfcam comparison": 99}', "null"])
def test_what_is_no_comparison_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"not what Comparison\.to_json writes"):
        Comparison.from_json(text)


def test_the_same_seed_gives_the_same_bytes(toy):
    metrics = ["road", "keep-minus-delete"]
    first, again = (_compared(toy, metrics=metrics, seed=4) for _ in range(2))
    _same(first, again)
    other = _compared(toy, metrics=metrics, seed=5)
    assert other.to_csv() != first.to_csv()


# ------------------------------------------------------------------------------ the journal


def test_a_stopped_run_goes_on_where_it_was(toy, tmp_path):
    path, whole = tmp_path / "j.jsonl", _compared(toy)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _compared(toy, journal=path, progress=stop)
    assert len(path.read_text().splitlines()) == 1 + 3
    toy.asked.clear()
    _same(_compared(toy, journal=path), whole)
    remaining = len(toy.asked)
    toy.asked.clear()
    finished = _compared(toy, journal=path)
    _same(finished, whole)
    assert len(toy.asked) < 5 < remaining
    assert finished.maps.keys() == whole.maps.keys()
    for name in whole.maps:
        np.testing.assert_array_equal(finished.maps[name], whole.maps[name])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"metrics": QUICK[:3]}, "metrics was"),
        ({"methods": METHODS[:2]}, "methods score-cam was"),
        ({"settings": Settings(eps_percentile=33)}, "settings eps_percentile was"),
        ({"target": 1}, "images 0 target was null, is 1"),
        ({"masks": 1 - MASKS}, "images 0 mask was"),
        ({"identity": {"model": "abc"}}, 'model was "Toy", is "abc"'),
    ],
)
def test_the_journal_of_another_run_is_refused(toy, tmp_path, more, says):
    path = tmp_path / "j.jsonl"
    _compared(toy, journal=path)
    before = path.read_bytes()
    with pytest.raises(InvalidInputError, match=says):
        _compared(toy, journal=path, **more)
    assert path.read_bytes() == before
    _same(_compared(toy, journal=path, overwrite=True, **more), _compared(toy, **more))


def test_another_model_or_other_images_are_noticed(toy, tmp_path):
    path = tmp_path / "j.jsonl"
    _compared(toy, journal=path)
    with pytest.raises(InvalidInputError, match="answer was"):
        _compared(Toy(HEADS * 2), journal=path)
    with pytest.raises(InvalidInputError, match="images 0 content was"):
        compare(toy, INPUTS[::-1].copy(), methods=METHODS, metrics=QUICK, masks=MASKS, journal=path)


SCRIPT = """
import sys, time
import numpy as np
from html_pages import Page
from toy_backend import Toy
from cfcam_core.evaluation.compare import compare
from cfcam_core.evaluation.metrics import register_metric

def slow(case):
    time.sleep(0.03)
    with open("log", "a") as log:
        print(case.inputs.sum(), file=log)
    return float(case.explanation.heatmaps.mean())

register_metric("slow", slow, better="higher")
inputs = np.random.default_rng(0).random((12, 1, 6, 4)).astype("f") * 4
found = compare(Toy(np.eye(3) / 8), inputs, methods=["cf-cam", "grad-cam", "random"],
                metrics=["slow", "sparseness", "road"], journal=sys.argv[1])
found.to_csv(sys.argv[2] + ".csv")
found.to_json(sys.argv[2] + ".json")
"""


def _run(folder, journal, out):
    helpers = str(Path(__file__).parents[1] / "helpers")
    paths = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, journal, out],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_kills_lose_nothing_finished_and_change_no_byte(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert _run(whole, "j.jsonl", "out").wait() == 0
    lines = (whole / "j.jsonl").read_bytes().count(b"\n")
    assert lines == 1 + 12

    journal = tmp_path / "j.jsonl"
    finished = 0
    for wanted, pause in ((1, 0.0), (3, 0.05), (6, 0.02), (9, 0.07)):
        process = _run(tmp_path, "j.jsonl", "out")
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= wanted):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept = journal.read_bytes().count(b"\n")
        assert kept >= max(wanted, finished)
        finished = kept
    with journal.open("ab") as file:  # and one in the middle of a line
        file.write(b'{"key": "11", "rec')
    assert _run(tmp_path, "j.jsonl", "out").wait() == 0
    for suffix in (".csv", ".json"):
        assert (tmp_path / f"out{suffix}").read_bytes() == (whole / f"out{suffix}").read_bytes()
    calls = len((tmp_path / "log").read_text().splitlines())
    assert calls < 12 * 3 + 4 * 3 + 1  # at most one image a kill was measured twice


def test_two_runs_at_once_are_kept_apart(toy, tmp_path):
    path = tmp_path / "j.jsonl"

    def meanwhile(done, _):
        if done == 1:
            with pytest.raises(InvalidInputError, match="in use by another process"):
                _compared(toy, journal=path)

    _same(_compared(toy, journal=path, progress=meanwhile), _compared(toy))


# ------------------------------------------------------------------------------ files of pictures


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


# ------------------------------------------------------------------------------ the page


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
    found = _compared(toy, methods=["grad-cam", "eigen-cam"])
    words = "".join(Page(found.to_html()).text)
    assert "Class-blind, the same map whatever class is asked for: eigen-cam (1.000)." in words
